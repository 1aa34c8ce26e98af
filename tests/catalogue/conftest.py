"""The shipped catalogue, and the engine as the judge of what it says."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from planner.catalogue import Catalogue, load
from planner.files import profiles_dir

_PROBE = Path(__file__).with_name("engine_probe.py")


@pytest.fixture(scope="session")
def catalogue() -> Catalogue:
    """The catalogue as shipped."""
    return load()


@pytest.fixture(scope="session")
def ask_engine():
    """Answers of a fresh engine process to a list of questions (see engine_probe.py)."""
    pytest.importorskip("llama_cpp", reason="needs the engine")

    def ask(questions):
        done = subprocess.run(
            [sys.executable, _PROBE],
            input=json.dumps(questions),
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
            env={**os.environ, "GGML_NO_BACKTRACE": "1"},
        )
        assert done.returncode == 0, done.stderr[-2000:]
        return json.loads(done.stdout)

    return ask


@pytest.fixture
def broken(tmp_path):
    """A copy of the profiles in which one text was replaced: ``broken("models/qwen3.toml", "n_head = 16", "")``."""

    def change(file: str, old: str, new: str) -> Path:
        for path in profiles_dir().rglob("*.toml"):
            copy = tmp_path / path.relative_to(profiles_dir())
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes(path.read_bytes())
        text = (tmp_path / file).read_text()
        assert old in text, f"{file} no longer holds {old!r}"
        (tmp_path / file).write_text(text.replace(old, new, 1))
        return tmp_path

    return change
