from pathlib import Path

import msgspec
import pytest

from planner.render.documents import LocalDocument, local_document
from planner.types.artifact import Artifact, LocalModel, Part
from planner.types.inspection import Inspection
from planner.types.measurement import Measurement
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


@pytest.fixture
def inspection() -> Inspection:
    """One quantization of an invented repository, its header read."""
    return msgspec.json.decode((_SAMPLES / "inspection.json").read_bytes(), type=Inspection)


@pytest.fixture
def measurement(plan: Plan) -> Measurement:
    """The measurement of the plan, a second test composed, and something that disturbed it."""
    first = plan.measurements[0]
    result = first.results[0]
    composed = msgspec.structs.replace(result, origin="predicted", tokens_timed=16)
    conditions = msgspec.structs.replace(first.conditions, disturbed=("other processes used 1.4 of 8 CPUs",))
    return msgspec.structs.replace(first, results=(result, composed), conditions=conditions, notes=("a sample",))


@pytest.fixture
def local(model: Model) -> LocalDocument:
    """A whole file that is recognised, and a set that lacks a part."""
    here = "/homes/somebody/.cache/huggingface/hub/models--me--Qwen3-8B-GGUF/snapshots/0123456789abcdef/Q4_K_M"
    whole = Part(path="Qwen3-8B-Q4_K_M.gguf", size_bytes=5 << 30, local_path=f"{here}/Qwen3-8B-Q4_K_M.gguf")
    first = Part(path="Big-00001-of-00002.gguf", size_bytes=9 << 30, local_path="/data/Big-00001-of-00002.gguf")
    one = Artifact(hub="hf", name=whole.path, quantization="Q4_K_M", parts=(whole,))
    two = Artifact(hub="hf", name="Big.gguf", parts=(first,), missing=("Big-00002-of-00002.gguf",))
    copies = (
        (
            LocalModel(source="lm-studio", name="them/Big-GGUF/Big.gguf", artifact=two, hub="hf", repo="them/Big-GGUF"),
            None,
        ),
        (
            LocalModel(
                source="huggingface", name="me/Qwen3-8B-GGUF/x", artifact=one, hub="hf", repo="me/Qwen3-8B-GGUF"
            ),
            model,
        ),
    )
    return local_document(copies, unrecognised=1, notes=("/srv: Permission denied",))
