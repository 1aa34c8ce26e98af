from pathlib import Path

import msgspec
import pytest

from planner.types.model import KnownModel, License, Model
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


@pytest.fixture
def known() -> KnownModel:
    """A model that is known and cannot be planned."""
    return KnownModel(
        id="qwen3-1t",
        name="Qwen3-1T",
        family="Qwen3",
        vendor="Alibaba",
        architecture=None,
        parameters_published=1e12,
        released="2025-09",
        context_native=262_144,
        license=License(id="sample licence"),
        hf_repo="Qwen/Qwen3-1T",
        modelscope_id=None,
        sources=("sample",),
        reason="nobody has seen its shape",
    )
