"""``planner --help`` answers before anything heavy is loaded."""

import json
import subprocess
import sys

import pytest

HEAVY = {"rich", "msgspec", "psutil", "ctypes", "_ctypes", "numpy", "gguf", "llama_cpp", "pynvml", "jinja2", "requests"}
WHAT_IS_LOADED = """
import atexit, json, os, sys
report = os.fdopen(os.dup(2), "w")
atexit.register(lambda: (report.write(json.dumps(sorted(sys.modules))), report.flush()))
sys.argv = ["planner", *json.loads(sys.argv[1])]
from planner.__main__ import main
main()
"""


def loaded_by(*arguments: str) -> set[str]:
    """Top-level modules in memory when ``planner ARGUMENTS`` has ended well."""
    done = subprocess.run(
        [sys.executable, "-c", WHAT_IS_LOADED, json.dumps(arguments)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()
    return {name.split(".")[0] for name in json.loads(done.stderr)}


@pytest.mark.parametrize("arguments", [("--help",), ("--version",), ("plan", "--help"), ("models", "--help")])
def test_help_loads_nothing_heavy(arguments: tuple[str, ...]) -> None:
    """Neither tables nor decoders nor native code are needed to print a page of text."""
    loaded = loaded_by(*arguments)
    assert "click" in loaded
    assert not loaded & HEAVY


def test_the_list_of_modules_would_show_a_heavy_one() -> None:
    """``planner models`` reads the catalogue, which decodes with msgspec: the probe sees that."""
    assert "msgspec" in loaded_by("models")
