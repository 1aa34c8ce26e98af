"""The questions that choose nothing: what is this machine, which models are there, what would this one hold."""

import msgspec

from planner import catalogue, machine
from planner.choose import policy
from planner.choose.verdict import judge
from planner.engine.child import EngineChild
from planner.engine.oracle import Oracle
from planner.errors import EngineDiedError, EngineError, EngineMissingError, UsageError
from planner.measure.store import MeasurementStore
from planner.types import Report
from planner.types.estimate import Refusal
from planner.types.machine import Machine
from planner.types.model import Model, Quantization
from planner.types.plan import Candidate, Goal
from planner.types.settings import CacheType, FlashAttention, LoadMode, Settings
from planner.workflow.estimator import CandidateEstimator
from planner.workflow.session import Session, described_engine, models_folder, open_session, the_machine

__all__ = ["EstimateRequest", "capture", "check_context", "detect", "estimate", "models", "remembered"]

_DEFAULT_QUANTIZATION = "Q4_K_M"
_DEFAULT_CONTEXT_TOKENS = 8192


class EstimateRequest(Report, frozen=True, kw_only=True):
    """One model and the settings that were asked for; what is ``None`` takes llama.cpp's default.

    ``context_tokens`` is per sequence, as in a goal. ``machine`` is a shipped name or a file; ``None`` is this one.
    """

    model: str
    quantization: str | None = None
    context_tokens: int | None = None
    parallel: int = 1
    cache_type_k: CacheType | None = None
    cache_type_v: CacheType | None = None
    load_mode: LoadMode | None = None
    ubatch: int | None = None
    batch: int | None = None
    flash_attention: FlashAttention | None = None
    repack: bool | None = None
    gpu_layers: int | None = None
    cpu_moe_layers: int | None = None
    threads: int | None = None
    machine: str | None = None
    engine_python: str | None = None


def detect(
    *, machine: str | None = None, engine_python: str | None = None, with_engine: bool = True
) -> tuple[Machine, tuple[str, ...]]:
    """The machine with the engine's own view of it, and notes on what could not be asked.

    A missing or dying engine costs its part of the answer and a note, never the rest.
    """
    found, local = the_machine(machine)
    if not (local and with_engine):
        return found, ()
    try:
        with EngineChild(engine_python) as child:
            return _matched(found, Oracle(child)), ()
    except EngineMissingError as error:
        return found, (f"the engine was not asked: {error.message}; {error.hint}",)
    except EngineDiedError as error:
        return found, (f"the engine was not asked: {error.message}",)


def capture() -> bytes:
    """The raw answers of this machine as JSON, scrubbed: what ``--machine FILE`` reads elsewhere."""
    raw = machine.collect(machine.Host(), models_folder())
    return msgspec.json.format(msgspec.json.encode(raw), indent=1) + b"\n"


def models() -> catalogue.Catalogue:
    """The catalogue: models and quantizations."""
    return catalogue.load()


def estimate(request: EstimateRequest) -> Candidate:
    """Memory and predicted speed of one model under the settings asked for, with the verdict on its machine.

    Raises :class:`UsageError` for an unknown name or a context that the model does not have, :class:`EngineError`
    with the engine's words when it refuses the settings.
    """
    # Names first: a typing slip is answered at once, without an engine and without starting one.
    known = catalogue.load()
    model = known.model(request.model)
    quantization = known.quantization(request.quantization or _DEFAULT_QUANTIZATION)
    context = request.context_tokens or min(_DEFAULT_CONTEXT_TOKENS, model.context_native)
    check_context(model, context)
    with open_session(known, request.machine, request.engine_python) as session:
        settings = _settings(request, session.machine, context)
        estimator = CandidateEstimator(session.oracle, session.catalogue, session.machine)
        estimator.learn(remembered(session).all() if session.local else ())
        answer = estimator(model, quantization, settings)
    if isinstance(answer, Refusal):
        raise EngineError(f"{model.id} {quantization.name}: {answer.text}", hint="change the setting it names")
    goal = Goal(context_tokens=context, parallel=request.parallel, min_tokens_per_s=0.0)
    judged = judge(goal, session.machine, answer)
    return Candidate(
        model=model.id,
        quantization=quantization.name,
        settings=settings,
        file_bytes=answer.file_bytes,
        memory=judged.memory,
        speed=answer.speed,
        verdict=judged.verdict,
        score=_score(goal, model, quantization, settings),
        reasons=(judged.reason,),
    )


def check_context(model: Model, context_tokens: int) -> None:
    """Raise :class:`UsageError` (``impossible-context``) for a context that the model was never made for."""
    longest = max(model.context_native, model.context_extended or 0)
    if context_tokens > longest:
        raise UsageError(
            f"{model.id} has a context of {model.context_native} tokens"
            + (f" ({longest} with YaRN)" if longest > model.context_native else "")
            + f", {context_tokens} were asked for",
            hint=f"ask for at most --context {longest}",
            code="impossible-context",
        )


def remembered(session: Session) -> MeasurementStore:
    """The measurements of this machine with this engine build."""
    return MeasurementStore(machine.machine_key(session.machine), session.oracle.system().build)


def _matched(found: Machine, oracle: Oracle) -> Machine:
    return machine.match_engine(found, described_engine(oracle))


def _settings(request: EstimateRequest, found: Machine, context: int) -> Settings:
    threads = request.threads or max(1, found.cpu.usable_threads)
    asked = {
        name: value
        for name in (
            "cache_type_k", "cache_type_v", "load_mode", "ubatch", "batch",
            "flash_attention", "repack", "gpu_layers", "cpu_moe_layers",
        )
        if (value := getattr(request, name)) is not None
    }  # fmt: skip
    return Settings(
        context_tokens=context * request.parallel,
        parallel=request.parallel,
        threads=threads,
        threads_batch=threads,
        **asked,
    )


def _score(goal: Goal, model: Model, quantization: Quantization, settings: Settings) -> float:
    context = settings.context_tokens // settings.parallel
    return policy.factors(goal, model, quantization, context, settings.cache_type_k).score
