"""Measures the leading candidate, learns, and asks again who leads: until the leader is one that was measured.

A prediction that was wrong is corrected by the first measurement of the same kind, so two or three rounds suffice.
The mistake it prevents: a plan whose winner won by a guess, while the runner-up was measured.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Literal, NamedTuple

from planner.choose.evaluation import Evaluation
from planner.engine.child import EngineChild
from planner.errors import EngineError, MeasurementInvalidError
from planner.measure.session import MeasuringSession
from planner.measure.store import MeasurementStore
from planner.measure.suite import Subject, default_tests
from planner.measure.threads import ThreadChoice
from planner.types.machine import Machine
from planner.types.measurement import Measurement
from planner.types.model import Layout
from planner.types.plan import Candidate
from planner.workflow.estimator import CandidateEstimator
from planner.workflow.session import Session

__all__ = ["Effort", "Progress", "Timed", "time_leaders", "untried"]

Effort = Literal["quick", "full"]
Progress = Callable[[str, float, float, str], None]
"""Called with the stage, seconds done, seconds in all, and a few words."""


class _Budget(NamedTuple):
    """Seconds: in all, for the trial of threads, for one candidate; and how many candidates at most."""

    total_s: float
    threads_s: float
    candidate_s: float
    candidates: int


# A default run ends within 120 s and a quick one within 30 s on two cores, detection, search and start included.
_BUDGETS: dict[Effort, _Budget] = {
    "full": _Budget(total_s=100.0, threads_s=12.0, candidate_s=40.0, candidates=3),
    "quick": _Budget(total_s=22.0, threads_s=4.0, candidate_s=15.0, candidates=2),
}
_LEAST_USEFUL_S = 6.0
_SMALLEST_CACHE_BYTES = 8 << 20


class Timed(NamedTuple):
    """What measuring left: the last evaluation, the measurements it rests on, the threads, and warnings in words."""

    evaluation: Evaluation
    measurements: tuple[Measurement, ...]
    threads: ThreadChoice
    warnings: tuple[str, ...]


def time_leaders(
    session: Session,
    estimator: CandidateEstimator,
    store: MeasurementStore,
    evaluation: Evaluation,
    again: Callable[[], Evaluation],
    *,
    effort: Effort,
    progress: Progress,
) -> Timed:
    """Measure leaders until one stays in front; ``again`` searches anew with what was learnt.

    Measurements that are kept from an earlier run cost nothing. Raises :class:`BusyError` when another measurement
    runs on this machine, :class:`EngineDiedError` when the child dies.
    """
    budget = _BUDGETS[effort]
    begin = time.monotonic()
    done: list[Measurement] = []
    warnings: list[str] = []
    too_large: set[tuple[str, str]] = set()
    leader = evaluation.chosen
    subject_told = ""

    def same(each: Candidate | Measurement) -> tuple[str, str]:
        """What a timing is about: models of one shape share it."""
        return estimator.shape_key(session.catalogue.model(each.model)), each.quantization

    def is_done(each: Candidate) -> bool:
        return same(each) in map(same, done)

    def told(stage: str, _done: float, _total_s: float) -> None:
        progress("measure", time.monotonic() - begin, budget.total_s, f"{subject_told}{stage}")

    def child(env: Mapping[str, str]) -> EngineChild:
        return EngineChild(session.engine_python, env=env)

    threads = untried(session.machine)
    # Zeros draw less power and run faster on a GPU: there the phantom is filled with random blocks.
    random = session.oracle.has_gpu
    with MeasuringSession(child, store, effort=effort, progress=told, random_weights=random) as measuring:
        while leader is not None and len(done) < budget.candidates and not is_done(leader):
            subject = _subject(session, estimator, leader)
            subject_told = f"{leader.model} {leader.quantization}: "
            threads = measuring.threads(
                subject,
                leader.settings,
                usable_threads=session.machine.cpu.usable_threads,
                budget_s=budget.threads_s,
            )
            settings = threads.applied(leader.settings)
            tests = default_tests(settings.context_tokens // settings.parallel, quick=effort == "quick")
            left_s = budget.total_s - (time.monotonic() - begin)
            if left_s < _LEAST_USEFUL_S and measuring.kept(subject, settings, tests) is None:
                warnings.append(f"no time was left to measure {leader.model} {leader.quantization}")
                break
            try:
                done.append(measuring.measure(subject, settings, tests, budget_s=min(budget.candidate_s, left_s)))
            except (EngineError, MeasurementInvalidError) as error:
                # The next one that can be timed says something about this one, too.
                warnings.append(f"not measured: {error.message}")
                too_large.add(same(leader))
            else:
                estimator.learn((done[-1],))
                evaluation = again()
            leader = next((each for each in evaluation.ranked if same(each) not in too_large), None)
    chosen = evaluation.chosen
    if chosen is not None and done and not is_done(chosen):
        others = ", ".join(f"{each.model} {each.quantization}" for each in done)
        warnings.append(
            f"{chosen.model} {chosen.quantization} was not measured itself; its speed is predicted from {others}"
        )
    for measurement in done:
        if measurement.conditions.disturbed:
            why = "; ".join(measurement.conditions.disturbed)
            warnings.append(f"the timing of {measurement.model} {measurement.quantization} was disturbed: {why}")
    return Timed(evaluation, tuple(done), threads, tuple(warnings))


def untried(machine: Machine) -> ThreadChoice:
    """The safe threads, for a plan that measures nothing: all usable ones, waiting passively."""
    usable = max(1, machine.cpu.usable_threads)
    return ThreadChoice(
        threads=usable, threads_batch=usable, openmp_wait="passive", basis="all usable threads", trusted=False
    )


def _subject(session: Session, estimator: CandidateEstimator, candidate: Candidate) -> Subject:
    model = session.catalogue.model(candidate.model)
    quantization = session.catalogue.quantization(candidate.quantization)
    key, source = estimator.shape_key(model), estimator.layout_source(model)

    def whole() -> Layout:
        return session.oracle.typed_layout(key, source, quantization)

    def part(layers: Sequence[int]) -> Layout:
        return session.catalogue.layout(model, layers)

    return Subject(
        model=candidate.model,
        quantization=candidate.quantization,
        shape_key=key,
        whole=whole,
        part=part,
        resident_bytes=sum(row.total_bytes for row in candidate.memory),
        usable_bytes=session.machine.memory.usable_bytes,
        cache_bytes=_last_level_cache_bytes(session.machine),
    )


def _last_level_cache_bytes(machine: Machine) -> int:
    caches = [cache for cache in machine.cpu.caches if cache.kind != "instruction"]
    deepest = max((cache.level for cache in caches), default=0)
    sizes = [cache.size_bytes for cache in caches if cache.level == deepest]
    return max([_SMALLEST_CACHE_BYTES, *sizes])
