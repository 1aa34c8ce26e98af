"""A plan file is read whole or refused with the place and the remedy."""

import io
import json
import sys
from pathlib import Path

import msgspec
import pytest

from planner.errors import BadInputError, MissingInputError
from planner.render.json import to_json
from planner.types.plan import Plan
from planner.workflow.plan_file import read_plan

SAMPLE = Path(__file__).parents[1] / "render" / "samples" / "plan.json"


def test_what_was_written_is_read_back(tmp_path):
    """Through a file and through stdin."""
    plan = msgspec.json.decode(SAMPLE.read_bytes(), type=Plan)
    path = tmp_path / "plan.json"
    path.write_bytes(to_json(plan))
    assert read_plan(path) == plan
    assert read_plan(str(path)) == plan


def test_a_dash_is_stdin(monkeypatch):
    """As everywhere."""
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(SAMPLE.read_bytes())))
    assert read_plan("-").chosen is not None


def test_a_plan_of_before_is_still_a_plan(tmp_path):
    """One without the facts of the chosen model, and one with fields of a later planner."""
    document = json.loads(SAMPLE.read_text())
    document.pop("model", None)
    path = tmp_path / "plan.json"
    path.write_text(json.dumps({**document, "of_tomorrow": 1}))
    assert read_plan(path).model is None


BROKEN = {
    "empty": b"",
    "cut": SAMPLE.read_bytes()[:5000],
    "not JSON": b"model: qwen3",
    "not UTF-8": b'{"schema": "\xff"}',
    "a list": b"[]",
    "no schema": b"{}",
    "another document": b'{"schema": "planner/machine/1"}',
    "of a later planner": b'{"schema": "planner/plan/2"}',
    "a field missing": b'{"schema": "planner/plan/1"}',
    "a wrong type": SAMPLE.read_bytes().replace(b'"batch": 2048', b'"batch": "many"', 1),
    "too deep": b"[" * 100_000,
}


@pytest.mark.parametrize("name", BROKEN)
def test_what_is_no_plan_is_refused_with_the_remedy(name, tmp_path):
    """Exit code 65, the file's name, and the place inside it where there is one."""
    path = tmp_path / "plan.json"
    path.write_bytes(BROKEN[name])
    with pytest.raises(BadInputError) as raised:
        read_plan(path)
    assert str(path) in raised.value.message
    assert "planner plan" in raised.value.hint
    assert int(raised.value.exit_code) == 65
    if name == "a wrong type":
        assert "$.chosen.settings.batch" in raised.value.message


@pytest.mark.parametrize("name", ["nowhere.json", ".", "nul\0.json"])
def test_a_file_that_is_not_there_is_missing(name, tmp_path):
    """Exit code 66."""
    with pytest.raises(MissingInputError) as raised:
        read_plan(f"{tmp_path}/{name}")
    assert int(raised.value.exit_code) == 66
