"""The command line over a stand-in for the workflow, so that its own behaviour can be tested without an engine.

Run as a program it is ``planner`` with canned answers; ``STAND_IN`` names what the workflow does instead of answering.
"""

import os
import sys
import time
import types
from pathlib import Path
from typing import NamedTuple

import msgspec

SAMPLES = Path(__file__).parents[1] / "render" / "samples"


class EstimateRequest(msgspec.Struct, frozen=True, kw_only=True):
    """The request as the workflow declares it."""

    model: str
    quantization: str | None = None
    context_tokens: int | None = None
    parallel: int = 1
    cache_type_k: str | None = None
    cache_type_v: str | None = None
    load_mode: str | None = None
    ubatch: int | None = None
    batch: int | None = None
    flash_attention: str | None = None
    repack: bool | None = None
    gpu_layers: int | None = None
    cpu_moe_layers: int | None = None
    kv_unified: bool | None = None
    swa_full: bool | None = None
    outputs_max: int | None = None
    lazy_mode: str | None = None
    split_mode: str | None = None
    main_gpu: int | None = None
    tensor_split: tuple[float, ...] | None = None
    tensor_overrides: tuple[tuple[str, str], ...] | None = None
    host_buffer: bool | None = None
    kv_offload: bool | None = None
    op_offload: bool | None = None
    mtp: bool = False
    draft: str | None = None
    draft_tokens: int | None = None
    draft_cache_type_k: str | None = None
    draft_cache_type_v: str | None = None
    draft_gpu_layers: int | None = None
    threads: int | None = None
    machine: str | None = None
    engine_python: str | None = None


class ModelFilter(msgspec.Struct, frozen=True, kw_only=True):
    """What is asked of models, as the workflow declares it."""

    families: tuple[str, ...] = ()
    commercial: bool = False
    languages: tuple[str, ...] = ()
    thinking: bool | None = None
    max_bytes: int | None = None
    fits: bool = False
    machine: str | None = None


class LocalCopy(NamedTuple):
    """A model that is here, as the workflow finds it."""

    copy: object
    model: object


class LocalListing(NamedTuple):
    """The models that are here."""

    copies: tuple
    unrecognised: int
    notes: tuple


class Listing(NamedTuple):
    """What the workflow finds."""

    models: tuple
    known_only: tuple
    languages_unknown: tuple


def workflow():
    """A module-like object with the workflow's functions; ``calls`` records what they were asked."""
    from planner.types.artifact import Artifact, LocalModel, Part
    from planner.types.imported import Imported, ImportedRow, Kept
    from planner.types.inspection import Inspection
    from planner.types.measurement import Test
    from planner.types.model import KnownModel, Model
    from planner.types.plan import Candidate, Plan, Reason
    from planner.types.tuning import Setup, Tuning

    class WhyNot(msgspec.Struct, frozen=True, kw_only=True):
        model: str
        quantization: str | None
        chosen: str | None
        reason: Reason
        candidate: Candidate | None

    plan = msgspec.json.decode((SAMPLES / "plan.json").read_bytes(), type=Plan)
    model = msgspec.json.decode((SAMPLES / "model.json").read_bytes(), type=Model)
    known = KnownModel(
        id="qwen3-1t",
        name="Qwen3-1T",
        family="Qwen3",
        vendor="Alibaba",
        architecture=None,
        parameters_published=1e12,
        released=None,
        context_native=None,
        license=None,
        hf_repo=None,
        modelscope_id=None,
        sources=("https://example.com/rumour",),
        reason="nobody has seen its shape",
    )
    inspection = msgspec.json.decode((SAMPLES / "inspection.json").read_bytes(), type=Inspection)
    measurement = plan.measurements[0]
    sound = msgspec.structs.replace(measurement.conditions, disturbed=())
    row = ImportedRow(test=Test(kind="generate", tokens=128), mean_tokens_per_s=12.5, fields={"n_gen": "128"})
    imported = Imported(source="theirs.csv", format="csv", imported_at="2026-01-01T00:00:00+00:00", rows=(row,))
    part = Part(path="Qwen3-8B-Q4_K_M.gguf", size_bytes=5 << 30, local_path="/models/Qwen3-8B-Q4_K_M.gguf")
    artifact = Artifact(hub="hf", name=part.path, quantization="Q4_K_M", parts=(part,))
    here = LocalModel(
        source="lm-studio", name="me/Qwen3-8B-GGUF/x", artifact=artifact, hub="hf", repo="me/Qwen3-8B-GGUF"
    )
    calls = []

    def answer(value):
        def function(*positional, **named):
            calls.append((positional, named))
            trouble(named.get("progress"))
            return value

        return function

    setup = Setup(settings=plan.chosen.settings)
    tuning = Tuning(
        model="qwen3-8b",
        quantization="Q4_K_M",
        use="chat",
        prompt_tokens=300,
        answer_tokens=400,
        default=setup,
        recommended=setup,
        trials=(),
        seconds=1.0,
        layers_timed=1,
        layers_total=1,
        machine_key="k",
        engine_build="b",
        taken_at="2026-01-01T00:00:00+00:00",
        conditions=sound,
        llama_server=("llama-server",),
    )
    reason = Reason(code="too-big", text="It needs 20 GiB where 11.5 GiB are usable.")
    why = WhyNot(model="qwen3-32b", quantization=None, chosen="qwen3-8b:Q4_K_M", reason=reason, candidate=plan.chosen)
    return types.SimpleNamespace(
        calls=calls,
        sample=plan,
        detect=answer((plan.machine, ("engine not installed: pip install 'llama-planner[engine]'",))),
        capture=answer(b'{"raw": true}\n'),
        models=answer(types.SimpleNamespace(models={model.id: model}, quantizations={})),
        select=answer(Listing(models=(model,), known_only=(known,), languages_unknown=())),
        show=answer(model),
        capabilities=answer(()),
        local_models=answer(LocalListing(copies=(LocalCopy(here, model),), unrecognised=0, notes=())),
        inspect=answer(inspection),
        estimate=answer(plan.chosen),
        measure=answer(msgspec.structs.replace(measurement, conditions=sound)),
        elsewhere=lambda _measurement: (),
        read_measurement=lambda _path: measurement,
        against=lambda measured, _before, name: msgspec.structs.replace(measured, notes=(f"against {name}",)),
        import_file=answer(imported),
        kept=answer(Kept(machine_key="k", measurements=(measurement,), imported=(imported,))),
        plan=answer(plan),
        why_not=answer(why),
        tune=answer(tuning),
        EstimateRequest=EstimateRequest,
        ModelFilter=ModelFilter,
        WhyNot=WhyNot,
    )


def trouble(progress):
    """Do what ``STAND_IN`` says instead of answering at once."""
    match os.environ.get("STAND_IN"):
        case "progress" if progress is not None:
            for done in (0.0, 1.0, 2.0):
                progress("measure", done, 3.0, "qwen3-8b Q4_K_M")
            progress("write", 0.0, 0.0, "")
        case "wait":
            sys.stderr.write("waiting\n")
            sys.stderr.flush()
            time.sleep(60)
        case "bug":
            raise ZeroDivisionError("the stand-in divides\nby zero")


if __name__ == "__main__":
    import planner
    from planner.cli import run

    planner.workflow = workflow()
    run()
