"""The Python API: one function for each question about a machine or a model, and the commands are built on them.

The mistake it prevents: a program that gets other answers than the command line, because it assembled the steps itself
or passed a value that the command line would have refused. Everything is checked here, before an engine is started.
"""

import difflib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypedDict, TypeVar, Unpack

import msgspec

from planner.errors import UsageError
from planner.types.plan import Goal
from planner.types.settings import CacheType, FlashAttention, LazyMode, LoadMode, SplitMode, TensorOverride

if TYPE_CHECKING:
    from planner.types.explanation import Explanation
    from planner.types.machine import Machine
    from planner.types.measurement import Measurement, Test
    from planner.types.plan import Candidate, Plan, Use
    from planner.types.tuning import Tuning
    from planner.workflow import EstimateRequest, Progress, WhyNot

__all__ = [
    "MOST_SEQUENCES",
    "MOST_TOKENS",
    "Asked",
    "detect",
    "estimate",
    "explain",
    "measure",
    "plan",
    "tune",
    "why_not",
]

_Struct = TypeVar("_Struct", bound=msgspec.Struct)

MOST_TOKENS = 2**31 - 1
"""llama.cpp counts tokens of a context in 32 bits."""
MOST_SEQUENCES = 256
"""``LLAMA_MAX_SEQ`` of llama.cpp at commit 0c1e57098."""
_LEAST = {
    "context_tokens": 1,
    "parallel": 1,
    "ubatch": 1,
    "batch": 1,
    "threads": 1,
    "gpu_layers": -1,
    "cpu_moe_layers": -1,
    "draft_gpu_layers": -1,
    "draft_tokens": 1,
    "outputs_max": 0,
    "main_gpu": 0,
    "image_max_tokens": 0,
    "cache_ram_mib": 0,
    "checkpoints": 0,
    "min_tokens_per_s": 0,
    "max_answer_seconds": 0.001,
    "reserve_bytes": 0,
}
"""The least that a number may be; the most is :data:`MOST_TOKENS` for whole numbers, bytes aside."""


class Asked(TypedDict, total=False):
    """What may be asked of one model beside its name; what is left out, or ``None``, is llama.cpp's own default.

    ``context_tokens`` is per sequence. ``mtp`` drafts with the model's own block for several tokens, ``draft`` names
    the small model that drafts instead. ``mmproj`` names a projector's file, ``image_max_tokens`` caps what a picture
    becomes. ``if_memory`` asks for the speed as if there were memory enough. The other names are those of
    :class:`planner.types.settings.Settings`.
    """

    quantization: str | None
    context_tokens: int | None
    parallel: int
    cache_type_k: CacheType | None
    cache_type_v: CacheType | None
    load_mode: LoadMode | None
    ubatch: int | None
    batch: int | None
    flash_attention: FlashAttention | None
    repack: bool | None
    gpu_layers: int | None
    cpu_moe_layers: int | None
    kv_unified: bool | None
    swa_full: bool | None
    outputs_max: int | None
    lazy_mode: LazyMode | None
    split_mode: SplitMode | None
    main_gpu: int | None
    tensor_split: tuple[float, ...] | None
    tensor_overrides: tuple[TensorOverride, ...] | None
    host_buffer: bool | None
    kv_offload: bool | None
    op_offload: bool | None
    mtp: bool
    draft: str | None
    draft_tokens: int | None
    draft_cache_type_k: CacheType | None
    draft_cache_type_v: CacheType | None
    draft_gpu_layers: int | None
    mmproj: str | None
    image_max_tokens: int
    cache_ram_mib: int | None
    checkpoints: int | None
    threads: int | None
    if_memory: bool
    engine_python: str | None


def detect(*, machine: str | None = None, engine_python: str | None = None) -> "Machine":
    """What this machine is, or ``machine`` (a name that planner ships, or a file of ``planner detect --capture``).

    ``notes`` of the answer say what could not be found out, a missing engine included. ``engine_python`` is the
    interpreter that has llama-cpp-python, here and in every function below.
    """
    from planner import workflow

    found, notes = workflow.detect(machine=machine, engine_python=engine_python)
    fresh = tuple(note for note in notes if note not in found.notes)
    return msgspec.structs.replace(found, notes=(*found.notes, *fresh))


def plan(
    goal: Goal | None = None,
    *,
    machine: str | None = None,
    measure: Literal["none", "quick", "full"] = "full",
    engine_python: str | None = None,
    progress: "Progress | None" = None,
) -> "Plan":
    """The best deployment for ``goal`` (by default for chat); ``chosen`` is ``None`` where nothing meets it.

    ``measure`` times the best candidates for at most 120 s (``full``) or 30 s (``quick``), on this machine alone.
    ``progress`` is called with the stage, seconds done, seconds in all and a few words. Raises UsageError for unknown
    names and impossible contexts, MissingInputError when a local model is asked for and there is none, and the errors
    of the engine.
    """
    from planner import workflow

    return workflow.plan(
        _checked_goal(goal), machine=machine, measure=measure, engine_python=engine_python, progress=progress
    )


def why_not(goal: Goal | None, model: str, *, machine: str | None = None, engine_python: str | None = None) -> "WhyNot":
    """The one reason against ``model`` (``MODEL`` or ``MODEL:QUANT``) for a goal; raises as :func:`plan`."""
    from planner import workflow

    return workflow.why_not(_checked_goal(goal), model, machine=machine, engine_python=engine_python)


def estimate(model: str, *, machine: str | None = None, **asked: Unpack[Asked]) -> "Candidate":
    """Memory, device by device, and predicted speed of one model under the settings asked for.

    ``model`` is a name of the catalogue, with or without ``:QUANT``, or files: ``hf:owner/repo[:QUANT]``,
    ``ms:owner/repo[:QUANT]``, an https address, a ``.gguf`` file or a folder. Raises UsageError for an unknown name or
    an impossible setting, EngineError with the engine's words when it refuses the settings.
    """
    from planner import workflow

    return workflow.estimate(_request(model, {**asked, "machine": machine}))


def explain(model: str, *, machine: str | None = None, **asked: Unpack[Asked]) -> "Explanation":
    """The same estimate taken apart: every part on every device, adding up to the byte; raises as :func:`estimate`."""
    from planner import workflow

    return workflow.explain(_request(model, {**asked, "machine": machine}))


def measure(
    model: str,
    *,
    effort: Literal["quick", "full"] = "full",
    tests: Sequence["Test"] = (),
    llama_bench: Path | None = None,
    progress: "Progress | None" = None,
    **asked: Unpack[Asked],
) -> "Measurement":
    """The speed of one model on this machine, timed now or kept from an earlier run of the same.

    ``effort`` takes about 90 s or 20 s. ``tests`` are timed at full length; without them those of a plan are,
    shortened to the time there is. ``llama_bench`` is an executable to time with in the place of llama-cpp-python. Look
    at ``conditions.disturbed`` of the answer: numbers with an entry there must not be used. Raises as :func:`estimate`,
    and a PlannerError with code ``busy`` while another measurement runs.
    """
    from planner import workflow

    return workflow.measure(
        _request(model, asked), effort=effort, tests=tests, llama_bench=llama_bench, progress=progress
    )


def tune(
    model: str,
    *,
    use: "Use" = "chat",
    budget_s: float = 60.0,
    cache_types: tuple[CacheType, ...] = (),
    progress: "Progress | None" = None,
    **asked: Unpack[Asked],
) -> "Tuning":
    """The fastest settings of one model for a typical request of ``use``; ``recommended`` is ``None`` if disturbed.

    What is asked for is left as it is; a cache of ``cache_types`` is tried because somebody named it. Raises as
    :func:`measure`.
    """
    from planner import workflow

    return workflow.tune(_request(model, asked), use=use, budget_s=budget_s, cache_types=cache_types, progress=progress)


def _request(model: str, asked: Mapping[str, object]) -> "EstimateRequest":
    """The request that a model's name and what was asked of it make; what is ``None`` was not asked."""
    from planner import workflow

    given = {name: value for name, value in asked.items() if value is not None}
    for name in given:
        if name not in Asked.__annotations__ and name != "machine":
            close = difflib.get_close_matches(name, Asked.__annotations__, n=1)
            raise UsageError(
                f"there is no setting {name!r}",
                hint=f"did you mean {close[0]}?" if close else "see planner.api.Asked for all of them",
            )
    _check_numbers(given)
    if given.get("mtp") and "draft" in given:
        raise UsageError("mtp and draft are two ways to draft", hint="choose one")
    return _converted({"model": model, **given}, workflow.EstimateRequest)


def _checked_goal(goal: Goal | None) -> Goal:
    """The goal with every value of its right type and in its range; nobody checked a struct that was made by hand."""
    if goal is None:
        return Goal()
    given: dict[str, object] = msgspec.structs.asdict(goal)
    _check_numbers({name: value for name, value in given.items() if value is not None})
    return _converted(given, Goal)


def _converted(given: Mapping[str, object], into: type[_Struct]) -> _Struct:
    try:
        return msgspec.convert(given, into)
    except msgspec.ValidationError as error:
        message, _, place = str(error).partition(" - at ")
        raise UsageError(f"{place.strip('`').removeprefix('$.') or 'argument'}: {message}") from error


def _check_numbers(given: Mapping[str, Any]) -> None:
    for name, value in given.items():
        least = _LEAST.get(name)
        if least is None or isinstance(value, bool) or not isinstance(value, int | float):
            continue
        most = 2**63 - 1 if name.endswith("_bytes") else MOST_TOKENS
        if name == "parallel":
            most = MOST_SEQUENCES
        # Written so that nan, which is neither more nor less than anything, is refused, too.
        if not least <= value <= most:
            raise UsageError(f"{name}={value} is outside {least} to {most}")
    context, parallel = (given.get(name) or 1 for name in ("context_tokens", "parallel"))
    if isinstance(context, int) and isinstance(parallel, int) and context * parallel > MOST_TOKENS:
        raise UsageError(
            f"a context of {context} tokens for each of {parallel} sequences makes {context * parallel} tokens; "
            f"at most {MOST_TOKENS} are possible",
            hint="ask for less context or fewer sequences",
        )
