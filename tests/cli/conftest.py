import importlib.util
import sys
from pathlib import Path

import pytest

import planner
from planner.cli import run

_STAND_IN = Path(__file__).parent / "stand_in.py"


@pytest.fixture
def program() -> list[str]:
    """The argv of the command line over the stand-in, for tests that need a real process."""
    return [sys.executable, str(_STAND_IN)]


@pytest.fixture
def workflow(monkeypatch):
    """The stand-in workflow, in place of the real one."""
    specification = importlib.util.spec_from_file_location("stand_in", _STAND_IN)
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    stand_in = module.workflow()
    monkeypatch.setattr(planner, "workflow", stand_in, raising=False)
    return stand_in


@pytest.fixture
def invoke(workflow, capfd):  # noqa: ARG001 - the stand-in must be in place
    """Run a command line in this process: exit code, stdout, stderr."""

    def call(*words: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as leaving:
            run(words)
        out, err = capfd.readouterr()
        assert isinstance(leaving.value.code, int)
        return leaving.value.code, out, err

    return call
