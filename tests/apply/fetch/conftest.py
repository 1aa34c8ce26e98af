"""A hub that holds one whole model, a plan that names it, and a home with nothing in it."""

import importlib.util
import os
import sys
from pathlib import Path

import msgspec
import pytest

from planner.hub import find, parse_reference
from planner.hub.patience import Patience
from planner.hub.transfer import Pace
from planner.types.plan import Plan

_TESTS = Path(__file__).parents[2]
_NAME = "planner_tests_hub_server"
REPO = "org/Small-GGUF"
FILE = "Small-Q4_K_M.gguf"
DATA_BYTES = 3 << 20


def _module():
    if _NAME not in sys.modules:
        specification = importlib.util.spec_from_file_location(_NAME, _TESTS / "hub" / "server.py")
        assert specification is not None
        assert specification.loader is not None
        module = importlib.util.module_from_spec(specification)
        sys.modules[_NAME] = module
        specification.loader.exec_module(module)
    return sys.modules[_NAME]


@pytest.fixture(scope="session")
def speaker():
    """The module of the server."""
    return _module()


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    """A home folder with nothing in it, and no variable that points elsewhere."""
    home = tmp_path / "home"
    home.mkdir()
    for name in list(os.environ):
        if name.startswith(("HF_", "HUGGING", "MODELSCOPE_", "XDG_", "LLAMA_CACHE", "OLLAMA_", "TRANSFORMERS_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("PLANNER_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("PLANNER_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("PLANNER_LOCK_FILE", str(tmp_path / "measure.lock"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1,localhost")
    return home


@pytest.fixture
def hub(speaker, monkeypatch):
    """A running hub with one repository, and this process pointed at it."""
    hub = speaker.Hub()
    hub.repos[REPO] = {
        FILE: speaker.whole(seed=1, data_bytes=DATA_BYTES, template="{{ hello }}"),
        "Split-Q8_0-00001-of-00002.gguf": speaker.whole(seed=2, data_bytes=4096, split=(0, 2)),
        "Split-Q8_0-00002-of-00002.gguf": speaker.whole(seed=3, data_bytes=8192, split=(1, 2)),
        "mmproj-F16.gguf": speaker.whole(seed=4, data_bytes=4096),
    }
    monkeypatch.setenv("HF_ENDPOINT", hub.endpoint)
    monkeypatch.setenv("MODELSCOPE_ENDPOINT", hub.endpoint)
    yield hub
    hub.stop()


@pytest.fixture
def hasty():
    """Patience for tests: short pauses, and deadlines that a busy machine keeps."""
    return Patience(deadline_s=60.0, idle_s=10.0, connect_s=10.0, retries=3, backoff_s=0.01, longest_wait_s=1.5)


@pytest.fixture
def hurried():
    """A pace that a drip does not keep."""
    return Pace(window_s=0.5, window_bytes=1 << 10)


@pytest.fixture
def invented() -> Plan:
    """A complete plan for an invented laptop; it names a model and no files."""
    return msgspec.json.decode((_TESTS / "render/samples/plan.json").read_bytes(), type=Plan)


@pytest.fixture
def planned(hub, invented):
    """Make the plan name the files of a reference, as ``planner plan --model`` does; what was asked is forgotten."""

    def call(text: str = f"hf:{REPO}:Q4_K_M") -> Plan:
        reference = parse_reference(text)
        assert reference is not None
        artifact = find(reference).models[0]
        hub.seen.clear()
        chosen = msgspec.structs.replace(invented.chosen, artifact=artifact)
        return msgspec.structs.replace(invented, chosen=chosen)

    return call


@pytest.fixture
def plan(planned) -> Plan:
    """A plan for the one file of the small model."""
    return planned()


@pytest.fixture
def blob(hub):
    """That file as the hub holds it."""
    return hub.repos[REPO][FILE]


@pytest.fixture
def cache(home) -> Path:
    """The cache of Hugging Face."""
    return home / ".cache/huggingface/hub"
