import importlib.util
import random
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from planner.errors import BadInputError
from planner.measure.calibration import CalibrationTold, Cost, Signature
from planner.render.deployment import deployment
from planner.render.documents import LocalDocument, local_document
from planner.render.export import export
from planner.types import explanation
from planner.types.artifact import Artifact, LocalModel, Part
from planner.types.deployment import Deployment
from planner.types.drift import Change, DriftReport
from planner.types.explanation import DeviceParts, Explanation, PartName, Section, TypeBytes
from planner.types.inspection import Inspection
from planner.types.measurement import Conditions, Measurement
from planner.types.model import KnownModel, License, Model
from planner.types.plan import Candidate, Plan
from planner.types.tuning import Ratio, Setup, Trial, Tuning

_MIB = 1 << 20
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


@pytest.fixture
def explained(chosen: Candidate) -> Explanation:
    """The choice of that plan taken apart, on an invented card."""
    q4 = TypeBytes(type="q4_K", tensors=30, size_bytes=300 * _MIB + 77)
    q6 = TypeBytes(type="q6_K", tensors=6, size_bytes=96 * _MIB)
    every, host = tuple(range(8, 36)), tuple(range(8))
    card = [
        _part("attention", q4.size_bytes + q6.size_bytes, tensors=36, types=(q4, q6), layers=every, form="private"),
        _part("head-copy", 333 * _MIB, tensors=1, types=(q6,), form="private"),
        _part("padding", 3456, form="private"),
        _part("attention-cache", 28 * 8192 * 4096, "cache", layers=every, cells=4096, streams=2, cell_bytes=4096),
        _part("compute", 304 * _MIB + 4096, "compute", buffer="CUDA0"),
        _part("driver", 712 * _MIB, "overhead"),
    ]
    cpu = [
        _part("embedding", 333 * _MIB, tensors=1, types=(q6,), form="mapped"),
        _part("routed-experts", 4 * q4.size_bytes, tensors=24, types=(q4,), layers=host, form="mapped"),
        _part("routed-experts", 2 * q4.size_bytes, tensors=12, types=(q4,), layers=host[::2], form="repacked"),
        _part("recurrent-cache", 5 * _MIB, "cache", layers=(0, 1, 3, 4, 7), cells=1, streams=1, cell_bytes=_MIB),
        _part("pinned-compute", 10 * _MIB + 96, "compute", buffer="CUDA_Host"),
        _part("output", 607_744, "overhead"),
        _part("process", 40 * _MIB, "overhead"),
        _part("unaccounted", 17, "overhead"),
    ]
    devices = tuple(
        DeviceParts(device=name, total_bytes=sum(each.size_bytes for each in parts), parts=tuple(parts))
        for name, parts in (("CUDA0", card), ("CPU", cpu))
    )
    left = _part("mtp", 500 * _MIB, tensors=20, types=(q4, q6), layers=(36,))
    return Explanation(estimate=chosen, devices=devices, not_loaded=(left,))


@pytest.fixture
def drifted() -> DriftReport:
    """Two answers of one number that moved, and a question that is refused now."""
    grown = Change(
        shape_key="9166f1d2928f0e9f", model="qwen3-8b", question="{}", quantization="Q4_K_M", quantity="compute",
        buffer="CUDA0", before_bytes=319_553_536, after_bytes=346_155_909,
    )  # fmt: skip
    less = msgspec.structs.replace(grown, question="{ }", after_bytes=330_000_000)
    refused = msgspec.structs.replace(
        grown, quantity="refusal", buffer="", before_bytes=None, after_bytes=None, text="no such cache type"
    )
    return DriftReport(
        build="now",
        build_before="then",
        questions=12,
        changes=(refused, grown, less),
        skipped={"asked about a file, not about a model of the catalogue": 3},
        removed_builds=("long ago",),
    )


def _part(name: PartName, size: int, section: Section = "weights", **more: Any) -> explanation.Part:
    return explanation.Part(name=name, section=section, size_bytes=size, **more)


@pytest.fixture
def calibration() -> CalibrationTold:
    """Two types, one of them timed for one column alone."""
    costs = {"mm/q8_0/plain@1": 0.05, "mm/q8_0/plain@8": 0.2, "mm/q8_0/plain@512": 8.0, "mm/q4_K/repacked@1": 0.1}
    return CalibrationTold(
        signature=Signature(
            machine_key="abc", cpu="AMD EPYC", instruction_sets=("AVX2",), engine_build="1234", backend="cpu",
            threads=2, threads_batch=2, repack=True, flash_attention="auto", counting=1,
        ),
        openmp_wait="passive", effort="quick", taken_at="2026-01-01T00:00:00+00:00", seconds=11.0, timings=40,
        conditions=Conditions(load_1min=0.1, steal_ratio=0.0, on_battery=None), model_doubt=0.03,
        costs=tuple(Cost(kind=kind, ns=ns, doubt_ns=0.1 * ns) for kind, ns in costs.items()),
        notes=("iq1_s-few: no time was left",),
    )  # fmt: skip


@pytest.fixture
def tuning(chosen: Candidate) -> Tuning:
    """Three races, one won: pinned, huge pages, threads that wait passively."""
    faster = Ratio(median=1.31, low=1.27, high=1.35, pairs=4)
    settings = msgspec.structs.replace(chosen.settings, threads=4, threads_batch=8, load_mode="none")
    setup = Setup(settings=settings, cpus=(0, 2, 4, 6), numa="distribute", huge_pages=True)
    return Tuning(
        model="qwen3-8b", quantization="Q4_K_M", use="chat", prompt_tokens=300, answer_tokens=400,
        default=Setup(settings=chosen.settings), recommended=setup, answer=faster, generate=faster,
        trials=(
            Trial(factor="threads", option="4", against="defaults", outcome="accepted", generate=faster,
                  to_default=faster),
            Trial(factor="repack", option="off", against="threads 4", outcome="no-gain", answer=faster),
            Trial(factor="numa", option="isolate", against="threads 4", outcome="unusable", note="refused"),
        ),
        not_tried=("ubatch 256",), seconds=58.0, layers_timed=8, layers_total=36, machine_key="abc",
        engine_build="1234", taken_at="2026-01-01T00:00:00+00:00",
        conditions=Conditions(load_1min=0.1, steal_ratio=0.0, on_battery=None),
        llama_server=("taskset", "--cpu-list", "0,2,4,6", "llama-server", "--model", "m.gguf"),
        environment={"OMP_WAIT_POLICY": "passive"}, llama_cpp_python="import llama_cpp\n",
    )  # fmt: skip


_NASTY = (
    "it's.gguf", 'say "hi".gguf', "a\nb.gguf", "a\r\nb", "\n", "100%.gguf", "%h%%n%.gguf", "%", "#1.gguf", "a #b",
    "; rm -rf x", ";", "$(touch owned).gguf", "`touch owned`", "$HOME", "${HOME}", "$$", "$1", "\\", "a\\", "a\\n",
    "\\x41", "-model.gguf", "--host", "--", "-", " lead", "trail ", "two  blanks", "\t", "a\tb", "\x01", "\x1b[2J",
    "\x7f", "\x85", "\xa0", "\u2028", "\u2029", "\ufeffbom", "\ufffe", "\u202egguf", "模型.gguf", "модель", "é",
    "e\u0301", "😀.gguf", "null", "true", "yes", "~", "1e3", "0x10", "0o7", "2026-11-23", "12:30", "*", "&a", "!tag",
    "| tee", "> x", "< x", "{{ x }}", "{a: b}", "[x]", "a: b", "a:", ": b", "- x", "? x", "@x", "%YAML", "---", "...",
    "a,b", "a=b", "=", "'", '"', "''", '""', "'" * 3, '"' * 3, "\"'\"'$`\\", "*?[a]", "a|b&&c", "!!", "!1", "^x^y",
    "~root", "$'x'", "%%", "%d", "{", "}", "(", ")", "EOF", "a" * 200,
)  # fmt: skip
_CONTROLS = ("\n", "\t", "\r", "\x1b", "\x7f", "\x9b", "\u2029")
_PIECES = (*_NASTY, *_CONTROLS, *map(chr, (*range(0x20, 0x7F), *range(0xA0, 0x100), 0xFEFF, 0x200B, 0x1F600)), ".gguf")


@pytest.fixture(scope="session")
def hostile_names() -> tuple[str, ...]:
    """2,000 names that a file or a model may have and that mean something else to some grammar; always the same.

    None has a slash or NUL, which no file name has, nor more than 200 bytes, so that such files can be made.
    """
    chance = random.Random(20_26)  # noqa: S311 - a test's names, no secret
    names = dict.fromkeys(_NASTY)
    while len(names) < 2000:
        name = "".join(chance.choices(_PIECES, k=chance.randint(1, 6))).replace("/", "")
        if name.strip(".") == "":
            continue
        names[name.encode()[:200].decode(errors="ignore") or "x"] = None
    return tuple(names)


@pytest.fixture
def deployed(plan: Plan) -> Callable[..., Deployment]:
    """Makes the deployment of the sample with a name for the model and for the file of its weights in ``/models``."""

    def make(name: str = "qwen3-8b", **named: Any) -> Deployment:
        assert plan.chosen is not None
        facts = plan.model and msgspec.structs.replace(plan.model, id=name, name=name)
        renamed = msgspec.structs.replace(plan, chosen=msgspec.structs.replace(plan.chosen, model=name), model=facts)
        return deployment(renamed, **{"weights": f"/models/{name}", **named})

    return make


@pytest.fixture
def read_by_systemd(tmp_path: Path) -> Callable[[str], tuple[list[tuple[str, ...]], str]]:
    """Reads a unit by systemd's own parser: the words of each command, and its whole dump of the unit."""
    specification = importlib.util.spec_from_file_location(
        "systemd_reader", Path(__file__).parent / "systemd_reader.py"
    )
    assert specification is not None
    assert specification.loader is not None
    reader = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(reader)
    if not reader.SYSTEMD.exists():
        pytest.skip("systemd is not here")
    return lambda unit: reader.read(unit, tmp_path)


@pytest.fixture
def said_or_refused() -> Callable[..., bool]:
    """Whether a format says a deployment, which ``read`` asserts of its files; else that a character of it is named."""

    def check(form: str, made: Deployment, read: Callable[[dict[str, str]], None]) -> bool:
        refusal = None
        try:
            read(export(form, made))
        except BadInputError as error:
            refusal = error
        if refusal is None:
            return True
        assert refusal.code == "unsayable"
        character = re.search(r"U\+([0-9A-F]{4,6})", refusal.message)
        assert character is not None
        assert chr(int(character[1], 16)) in made.weights[0] + made.model
        return False

    return check
