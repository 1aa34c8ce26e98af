"""How the hub's room behaves towards the rest: proxies, codes that are documented, a light import."""

import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_a_proxy_is_used_as_the_environment_says(hub):
    """A name that nobody could look up is reached through it."""
    program = "from planner.hub import find, parse_reference\nprint(find(parse_reference('hf:org/Small-GGUF')).commit)"
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        env={
            **{name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")},
            "HF_ENDPOINT": "http://hub.invalid",
            "HTTP_PROXY": hub.endpoint,
        },
    )
    assert done.returncode == 0, done.stderr
    assert [seen.path for seen in hub.seen] == ["http://hub.invalid/api/models/org/Small-GGUF?blobs=true"]


def test_every_code_is_documented_with_its_exit():
    """Scripts rely on the words; the page lists all of them."""
    page = (ROOT / "docs/hubs.md").read_text()
    raised = {
        code
        for path in (ROOT / "planner/hub").rglob("*.py")
        for code in re.findall(r'code="([a-z-]+)"', path.read_text())
    }
    assert len(raised) > 12
    assert not [code for code in raised if f"`{code}`" not in page]


def test_every_variable_that_is_read_is_documented():
    """Nobody has to read the source to learn what changes the behaviour."""
    page = (ROOT / "docs/hubs.md").read_text()
    source = "".join(path.read_text() for path in (ROOT / "planner/hub").rglob("*.py"))
    read = set(re.findall(r'"((?:HF|MODELSCOPE|LLAMA|OLLAMA)_[A-Z_]+)"', source))
    assert len(read) > 8
    assert not [name for name in read if not re.search(rf"`{name}[`=]", page)]


def test_the_library_is_imported_for_the_network_alone():
    """Local files, references and caches need a third of a second less."""
    program = (
        "import sys\n"
        "from planner.hub import find, header_files, local_models, parse_reference\n"
        "parse_reference('hf:a/b'), local_models()\n"
        "sys.exit('huggingface_hub' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False, timeout=60).returncode == 0
