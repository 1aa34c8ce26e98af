from pathlib import Path

import msgspec
import pytest

from planner.types.model import Model
from planner.types.plan import Candidate, Plan

_SAMPLES = Path(__file__).parent / "samples"


@pytest.fixture
def samples() -> Path:
    """The folder with the invented sample plan and what the renderers make of it."""
    return _SAMPLES


@pytest.fixture
def plan() -> Plan:
    """A complete plan for an invented laptop."""
    return msgspec.json.decode((_SAMPLES / "plan.json").read_bytes(), type=Plan)


@pytest.fixture
def chosen(plan: Plan) -> Candidate:
    """The choice of that plan."""
    assert plan.chosen is not None
    return plan.chosen


@pytest.fixture
def model() -> Model:
    """The catalogue entry of the chosen model."""
    return msgspec.json.decode((_SAMPLES / "model.json").read_bytes(), type=Model)
