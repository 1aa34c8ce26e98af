"""The questions that choose nothing: what is this machine, which models are there, what would this one hold."""

import msgspec

from planner import catalogue, machine
from planner.choose.appraisal import Appraiser
from planner.choose.verdict import judge
from planner.engine.child import EngineChild
from planner.engine.holdings import holdings
from planner.engine.oracle import Oracle
from planner.errors import EngineDiedError, EngineError, EngineMissingError
from planner.estimate.explain import explain as taken_apart
from planner.types.estimate import Refusal
from planner.types.explanation import Explanation
from planner.types.machine import Machine
from planner.types.model import Model, Quantization
from planner.types.plan import Candidate, Goal, Reason
from planner.workflow.costing import kept_costing
from planner.workflow.drifting import drift_warnings
from planner.workflow.estimator import CandidateEstimator
from planner.workflow.requests import EstimateRequest, companions_in, named_files, requested_settings, subject_in
from planner.workflow.session import (
    Session,
    described_engine,
    models_folder,
    open_session,
    remembered,
    the_machine,
    threads_here,
)

__all__ = ["capture", "detect", "estimate", "explain", "models"]


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
    known = catalogue.load()
    files = named_files(known, request)
    with open_session(known, request.machine, request.engine_python) as session:
        return _estimated(session, request, subject_in(session, request, files))


def explain(request: EstimateRequest) -> Explanation:
    """The same estimate taken apart: every part on every device, adding up to the byte; raises as :func:`estimate`."""
    known = catalogue.load()
    files = named_files(known, request)
    with open_session(known, request.machine, request.engine_python) as session:
        model, quantization, context = subject_in(session, request, files)
        candidate = _estimated(session, request, (model, quantization, context))
        key, source = session.sources.shape_key(model, quantization), session.sources.layout_source(model, quantization)
        held = holdings(session.oracle, key, source, quantization, candidate.settings)
        (full,) = session.oracle.buffers(key, source, [candidate.settings], quantization)
        return taken_apart(candidate, held, full)


def _estimated(session: Session, request: EstimateRequest, subject: tuple[Model, Quantization, int]) -> Candidate:
    model, quantization, context = subject
    settings = requested_settings(request, session.machine, context)
    companions = companions_in(session, request)
    costing = kept_costing(session)
    estimator = CandidateEstimator(
        session.oracle,
        session.sources,
        session.machine,
        companions,
        costing=costing,
        threads=threads_here(session, asked_threads=request.threads),
        if_memory=request.if_memory,
    )
    estimator.learn(remembered(session).all() if session.local else ())
    answer = estimator(model, quantization, settings)
    estimator.flush()
    if isinstance(answer, Refusal):
        raise EngineError(f"{model.id} {quantization.name}: {answer.text}", hint="change the setting it names")
    goal = Goal(context_tokens=context, parallel=request.parallel, min_tokens_per_s=0.0)
    judged = judge(goal, session.machine, answer)
    generate = answer.speed.generate
    worth = Appraiser(goal, session.quality).appraise(
        model,
        quantization,
        context,
        settings.cache_type_k,
        tokens_per_s=generate.tokens_per_s if generate is not None else None,
        memory=judged.memory,
    )
    return Candidate(
        model=model.id,
        quantization=quantization.name,
        settings=settings,
        file_bytes=answer.file_bytes,
        memory=judged.memory,
        speed=answer.speed,
        verdict=judged.verdict,
        score=worth.score,
        index=worth.quality,
        thinking=worth.thinking,
        answer_seconds=worth.answer_seconds,
        reasons=(
            judged.reason,
            *(Reason(code="engine-changed", text=warning) for warning in drift_warnings(session)),
        ),
    )


def _matched(found: Machine, oracle: Oracle) -> Machine:
    return machine.match_engine(found, described_engine(oracle))
