"""Times one model with one set of settings, as ``planner measure`` asks for it.

It goes the way of a plan's measurements: the same subject, session, store and lock. The mistake it prevents is a second
stopwatch that says something else about the same machine.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import msgspec

from planner import catalogue
from planner.engine.child import EngineChild
from planner.errors import EngineError, UsageError
from planner.measure.llama_bench_run import find_llama_bench
from planner.measure.session import MeasuringSession
from planner.measure.suite import Subject, default_tests
from planner.types.estimate import Refusal
from planner.types.measurement import Measurement, Test
from planner.types.settings import Settings
from planner.workflow.estimator import CandidateEstimator
from planner.workflow.foreign import run_llama_bench
from planner.workflow.requests import (
    DEFAULT_CONTEXT_TOKENS,
    EstimateRequest,
    named_files,
    requested_settings,
    subject_in,
)
from planner.workflow.session import Session, open_session, remembered, threads_here
from planner.workflow.timing import Progress, reference_of, subject_of, trial_of

__all__ = ["measure", "own_file"]

_BUDGET_S: dict[Literal["quick", "full"], float] = {"quick": 20.0, "full": 90.0}
_THREADS_S = 10.0


def measure(
    request: EstimateRequest,
    *,
    effort: Literal["quick", "full"] = "full",
    tests: Sequence[Test] = (),
    llama_bench: Path | None = None,
    progress: Progress | None = None,
) -> Measurement:
    """The speed of one model under the settings asked for, timed now or kept from an earlier run of the same.

    ``tests`` empty are those of a plan, shortened to the time there is; tests that are named are timed at full length.
    The context grows to hold them where the request names none. A file that is on this disk is timed itself, anything
    else as a phantom. ``llama_bench`` is an executable to time with in the place of llama-cpp-python. Raises
    :class:`UsageError` for a context that cannot hold the tests and for a machine that is not this one,
    :class:`EngineError` when the engine refuses or the model cannot be loaded in the time, :class:`BusyError` when
    another measurement runs.
    """
    if request.machine is not None:
        raise UsageError("only this machine can be measured", hint="leave out --machine, or use planner estimate")
    request = _with_room(request, tests)
    known = catalogue.load()
    files = named_files(known, request)
    program = None if llama_bench is None else find_llama_bench(llama_bench)
    with open_session(known, None, request.engine_python) as session:
        model, quantization, context = subject_in(session, request, files)
        settings = requested_settings(request, session.machine, context)
        estimator = CandidateEstimator(session.oracle, session.sources, session.machine)
        answer = estimator(model, quantization, settings)
        if isinstance(answer, Refusal):
            raise EngineError(f"{model.id} {quantization.name}: {answer.text}", hint="change the setting it names")
        file = own_file(session, model.id, quantization.name)
        subject = subject_of(session, model, quantization, answer.memory, file=file)
        if program is not None:
            return run_llama_bench(
                session,
                program,
                subject,
                settings,
                tests,
                budget_s=_BUDGET_S[effort],
                effort=effort,
                progress=progress,
            )
        return _timed(session, subject, settings, request, effort, tuple(tests), progress)


def own_file(session: Session, model: str, quantization: str) -> Path | None:
    """The model's file on this disk (of a split set, the first); ``None`` where only its header was read."""
    artifact = session.sources.artifact(model, quantization)
    if artifact is None or not artifact.on_disk:
        return None
    local = artifact.parts[0].local_path
    return None if local is None else Path(local)


def _with_room(request: EstimateRequest, tests: Sequence[Test]) -> EstimateRequest:
    """The request with a context that holds the longest test, depth included."""
    if not tests:
        return request
    longest = max(tests, key=lambda test: test.depth + test.tokens)
    needed = longest.depth + longest.tokens
    if request.context_tokens is None:
        # Up to the default the model itself decides: some have less.
        return msgspec.structs.replace(request, context_tokens=needed if needed > DEFAULT_CONTEXT_TOKENS else None)
    if request.context_tokens < needed:
        raise UsageError(
            f"{longest.label} takes {needed} tokens and the context holds {request.context_tokens}",
            hint=f"ask for --context {needed} or more, or for less --depth",
            code="impossible-context",
        )
    return request


def _timed(
    session: Session,
    subject: Subject,
    settings: Settings,
    request: EstimateRequest,
    effort: Literal["quick", "full"],
    tests: tuple[Test, ...],
    progress: Progress | None,
) -> Measurement:
    def child(env: Mapping[str, str]) -> EngineChild:
        return EngineChild(session.engine_python, env=env)

    def told(stage: str, done: float, total: float) -> None:
        if progress is not None:
            progress("measure", done, total, f"{subject.model} {subject.quantization}: {stage}")

    random = session.oracle.has_gpu
    with MeasuringSession(
        child,
        remembered(session),
        effort=effort,
        progress=told,
        random_weights=random,
        reference=reference_of(session),
    ) as measuring:
        if request.threads is None:
            trial = trial_of(session, subject)
            choice = measuring.threads(subject, settings, trial=trial, known=threads_here(session), budget_s=_THREADS_S)
            settings = choice.applied(settings)
        wanted = tests or default_tests(settings.context_tokens // settings.parallel, quick=effort == "quick")
        measured = measuring.measure(subject, settings, wanted, budget_s=_BUDGET_S[effort], whole_tests=bool(tests))
        return msgspec.structs.replace(measured, model=subject.model)
