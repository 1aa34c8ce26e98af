"""The Python API: light to import, typed, checked at the door, and the very functions that the commands call."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import get_type_hints

import pytest
from hypothesis import given
from hypothesis import strategies as st

import planner
from planner import api
from planner.cli import values
from planner.errors import PlannerError, UsageError
from planner.types.plan import Goal
from planner.workflow import EstimateRequest

FUNCTIONS = ("detect", "estimate", "explain", "measure", "plan", "tune", "why_not")
PAGE = Path(__file__).parents[2] / "docs/api.md"


def run_python(program: str) -> str:
    """What a fresh interpreter prints for a program."""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_importing_planner_loads_none_of_its_rooms():
    """A program that only wants the version must not pay for msgspec, click or the catalogue."""
    loaded = json.loads(run_python("import json, sys, planner; print(json.dumps(sorted(sys.modules)))"))
    assert "planner" in loaded
    assert not [name for name in loaded if name.startswith("planner.")]
    assert not {"msgspec", "click", "rich", "psutil", "ctypes"} & {name.split(".")[0] for name in loaded}


@pytest.mark.parametrize(
    "first",
    [
        "import planner.workflow",
        "from planner.estimate.memory import *; from planner.measure.suite import Subject",
        "import planner; planner.estimate; import planner.workflow",
        "from planner import estimate, measure",
    ],
)
def test_the_functions_stand_in_front_of_the_rooms_of_their_names(first):
    """``planner.estimate`` is a function whichever came first, and the room below it can still be imported."""
    program = (
        f"{first}\nimport inspect, planner\n"
        "from planner.measure.suite import Subject\n"
        "from planner.estimate import memory\n"
        f"for name in {FUNCTIONS}:\n    assert inspect.isfunction(getattr(planner, name)), name\n"
        "assert inspect.ismodule(memory)\nprint('good')"
    )
    assert run_python(program) == "good\n"


def test_every_public_name_is_there_and_listed():
    """``dir`` and ``__all__`` agree, and a slip is an AttributeError like any module's."""
    assert set(planner.__all__) <= set(dir(planner))
    for name in planner.__all__:
        assert getattr(planner, name) is not None
    assert {name for name in FUNCTIONS if not getattr(planner, name).__doc__} == set()
    with pytest.raises(AttributeError, match="no attribute 'estimat'"):
        planner.estimat  # noqa: B018 - asking for it is the test


def test_what_may_be_asked_is_what_a_request_holds():
    """The typed keywords and the request are one list: no field is out of reach, none is invented."""
    request = get_type_hints(EstimateRequest)
    for name in ("model", "machine"):
        request.pop(name)
    assert get_type_hints(api.Asked) == request


def test_the_numbers_of_the_command_line_are_those_of_the_api():
    """Two copies, because help must not load msgspec."""
    assert (values.MOST_TOKENS, values.MOST_SEQUENCES) == (api.MOST_TOKENS, api.MOST_SEQUENCES)


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"context_tokens": -1}, "context_tokens=-1"),
        ({"context_tokens": "8k"}, "context_tokens"),
        ({"context_tokens": 2.5}, "context_tokens"),
        ({"context_tokens": 1 << 24, "parallel": 256}, "makes 4294967296 tokens"),
        ({"parallel": 257}, "parallel=257"),
        ({"threads": 0}, "threads=0"),
        ({"load_mode": "swap"}, "load_mode"),
        ({"contxt_tokens": 8}, "contxt_tokens"),
        ({"tensor_split": "3,1"}, "tensor_split"),
        ({"mtp": True, "draft": "qwen3-0.6b"}, "two ways"),
        ({"quantization": 4}, "quantization"),
    ],
    ids=str,
)
def test_a_wrong_value_is_refused_by_name_before_anything_starts(asked, words, monkeypatch):
    """No engine, no file and no network is touched for a slip."""
    monkeypatch.setattr("planner.workflow.estimate", pytest.fail)
    monkeypatch.setattr("planner.workflow.measure", pytest.fail)
    for function in (planner.estimate, planner.measure):
        with pytest.raises(UsageError, match=re.escape(words)) as caught:
            function("qwen3-8b", **asked)
        assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    "goal",
    [
        Goal(use="cooking"),
        Goal(context_tokens=0),
        Goal(parallel=0),
        Goal(min_tokens_per_s=float("nan")),
        Goal(reserve_bytes=-1),
        Goal(families="qwen"),
        Goal(max_answer_seconds=0.0),
        Goal(local=1),
    ],
    ids=repr,
)
def test_a_goal_made_by_hand_is_checked(goal, monkeypatch):
    """A struct takes any value; the door does not."""
    monkeypatch.setattr("planner.workflow.plan", pytest.fail)
    with pytest.raises(UsageError):
        planner.plan(goal)
    with pytest.raises(UsageError):
        planner.why_not(goal, "qwen3-8b")


JUNK = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(), st.binary(), st.lists(st.integers()))


@given(st.dictionaries(st.sampled_from(sorted(api.Asked.__annotations__)), JUNK, max_size=4))
def test_whatever_is_asked_becomes_a_sound_request_or_a_planner_error(asked):
    """Nothing of the wrong kind reaches the workflow, and no other exception leaves."""
    try:
        request = api._request("qwen3-8b", asked)
    except PlannerError:
        return
    for name, value in asked.items():
        if value is not None:
            assert getattr(request, name) == (tuple(value) if isinstance(value, list) else value)
    assert 1 <= request.parallel <= 256
    assert request.context_tokens is None or 1 <= request.context_tokens * request.parallel <= api.MOST_TOKENS


@pytest.mark.engine
def test_the_examples_of_the_page_run(tmp_path, monkeypatch, capsys):
    """What docs/api.md shows is what happens."""
    monkeypatch.setenv("PLANNER_CACHE_DIR", str(tmp_path))
    # Nothing is concluded from what it times, so it need not wait for others.
    monkeypatch.setenv("PLANNER_LOCK_FILE", str(tmp_path / "lock"))
    blocks = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    assert len(blocks) >= 6
    names: dict[str, object] = {}
    for block in blocks:
        exec(compile(block, str(PAGE), "exec"), names)  # noqa: S102 - our own page
    printed = capsys.readouterr().out
    assert "qwen3-0.6b" in printed
    assert "tg16" in printed
    assert "impossible-context 2 " in printed
