"""Measures the leading candidate, learns, and asks again who leads: until the leader is one that was measured.

A prediction that was wrong is corrected by the first measurement of the same kind, so two or three rounds suffice.
The mistake it prevents: a plan whose winner won by a guess, while the runner-up was measured.
"""

import re
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from planner.choose.evaluation import Evaluation
from planner.engine.child import EngineChild
from planner.errors import EngineDiedError, EngineError, MeasurementInvalidError
from planner.measure.calibration_design import reference_layout
from planner.measure.session import MeasuringSession
from planner.measure.store import MeasurementStore
from planner.measure.suite import Subject, default_tests
from planner.measure.threads import KnownThreads
from planner.types.machine import Machine
from planner.types.measurement import Described, Measurement
from planner.types.model import Layout, Model, Quantization
from planner.types.plan import Candidate, DeviceMemory
from planner.workflow.estimator import CandidateEstimator
from planner.workflow.session import Session

__all__ = [
    "Effort",
    "Progress",
    "Timed",
    "core_cache_bytes",
    "last_level_cache_bytes",
    "reference_of",
    "subject_of",
    "time_leaders",
    "trial_of",
]

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
    "quick": _Budget(total_s=19.0, threads_s=8.0, candidate_s=15.0, candidates=2),
}
_LEAST_USEFUL_S = 6.0
_HOST, _GPUS = ("cpu", "accel"), ("gpu", "igpu")
_SMALLEST_CACHE_BYTES = 8 << 20
_TRIAL_MODEL, _TRIAL_QUANTIZATION = "qwen3-0.6b", "Q8_0"
_ABOUT_EQUAL = 0.96
"""A timed candidate is preferred to a predicted one of up to 4 % more score, which is within the doubt of an index."""
_MOST_SET_ASIDE = 8


class Timed(NamedTuple):
    """What measuring left: the last evaluation, the measurements it rests on, and warnings in words."""

    evaluation: Evaluation
    measurements: tuple[Measurement, ...]
    warnings: tuple[str, ...]


def time_leaders(
    session: Session,
    estimator: CandidateEstimator,
    store: MeasurementStore,
    evaluation: Evaluation,
    again: Callable[[], Evaluation],
    *,
    threads: KnownThreads,
    effort: Effort,
    progress: Progress,
) -> Timed:
    """Measure leaders until one stays in front; ``again`` searches anew with what was learnt.

    Measurements that are kept from an earlier run cost nothing; a candidate over which the engine dies is left out and
    named in the warnings. Raises :class:`BusyError` when another measurement runs on this machine.
    """
    rounds = _Rounds(session, estimator, threads, effort, progress)

    def child(env: Mapping[str, str]) -> EngineChild:
        return EngineChild(session.engine_python, env=env)

    # Zeros draw less power and run faster on a GPU: there the phantom is filled with random blocks.
    random = session.oracle.has_gpu
    with MeasuringSession(
        child, store, effort=effort, progress=rounds.told, random_weights=random, reference=reference_of(session)
    ) as measuring:
        leader = evaluation.chosen
        while leader is not None and rounds.is_wanted(leader):
            measurement = rounds.measure(measuring, leader)
            if measurement is not None:
                estimator.learn((measurement,))
                evaluation = again()
            leader = rounds.next_of(evaluation)
    evaluation = rounds.settled(evaluation, again)
    return Timed(evaluation, tuple(rounds.done), rounds.warnings(evaluation.chosen))


class _Rounds:
    """The measurements of one plan so far, the time they took, and what could not be measured."""

    def __init__(
        self,
        session: Session,
        estimator: CandidateEstimator,
        threads: KnownThreads,
        effort: Effort,
        progress: Progress,
    ) -> None:
        self._session = session
        self._estimator = estimator
        self._threads = threads
        self._effort: Effort = effort
        self._progress = progress
        self._budget = _BUDGETS[effort]
        self._begin = time.monotonic()
        self._about = ""
        self._out_of_time = False
        self._out_of_reach: set[tuple[str, str]] = set()
        self._warnings: list[str] = []
        self.done: list[Measurement] = []

    def told(self, stage: str, _done: float, _total_s: float) -> None:
        """Pass a stage of the measuring room on, with the time of the whole."""
        elapsed_s = time.monotonic() - self._begin
        self._progress("measure", elapsed_s, self._budget.total_s, f"{self._about}{stage}")

    def is_wanted(self, leader: Candidate) -> bool:
        """Whether there is a round left for ``leader`` and it was not measured yet."""
        rounds_left = not self._out_of_time and len(self.done) < self._budget.candidates
        return rounds_left and not self._is_done(leader)

    def next_of(self, evaluation: Evaluation) -> Candidate | None:
        """Who leads of those that can be timed: what one of them teaches holds for the others, too."""
        return next((each for each in evaluation.ranked if self._same(each) not in self._out_of_reach), None)

    def measure(self, measuring: MeasuringSession, leader: Candidate) -> Measurement | None:
        """Time ``leader``, or note why not."""
        self._about = f"{leader.model} {leader.quantization}: "
        try:
            return self._timed(measuring, leader)
        except (EngineError, EngineDiedError, MeasurementInvalidError) as error:
            # One model that the engine cannot run must not cost the plan; its child starts anew by itself.
            self._out_of_reach.add(self._same(leader))
            self._warnings.append(f"not measured: {leader.model} {leader.quantization}: {error.message}")
            return None

    def _timed(self, measuring: MeasuringSession, leader: Candidate) -> Measurement | None:
        subject = subject_of(self._session, *_named(self._session, leader), leader.memory)
        trial = trial_of(self._session, subject)
        choice = measuring.threads(
            subject, leader.settings, trial=trial, known=self._threads, budget_s=self._budget.threads_s
        )
        settings = choice.applied(leader.settings)
        tests = default_tests(settings.context_tokens // settings.parallel, quick=self._effort == "quick")
        left_s = self._budget.total_s - (time.monotonic() - self._begin)
        if left_s < _LEAST_USEFUL_S and measuring.kept(subject, settings, tests) is None:
            self._out_of_time = True
            self._warnings.append(f"no time was left to measure {leader.model} {leader.quantization}")
            return None
        budget_s = min(self._budget.candidate_s, left_s)
        self.done.append(measuring.measure(subject, settings, tests, budget_s=budget_s))
        return self.done[-1]

    def settled(self, evaluation: Evaluation, again: Callable[[], Evaluation]) -> Evaluation:
        """The evaluation with a winner that was timed, where one of about equal score was.

        A prediction is no reason to prefer a candidate to one whose speed is known; only a clearly better one may win
        unmeasured, and the plan then says so.
        """
        first = evaluation.chosen
        if first is None or not self.done:
            return evaluation
        found = evaluation
        for _ in range(_MOST_SET_ASIDE):
            chosen = found.chosen
            if chosen is None or chosen.score < _ABOUT_EQUAL * first.score:
                break
            if self._is_timed(chosen):
                return found
            model, quantization = _named(self._session, chosen)
            self._estimator.set_aside(model, quantization, "its speed could not be timed in the time there was")
            found = again()
        self._estimator.take_back()
        return evaluation

    def warnings(self, chosen: Candidate | None) -> tuple[str, ...]:
        """What a reader of the plan must know about its speeds."""
        found = list(self._warnings)
        if chosen is not None and self.done and not self._is_timed(chosen):
            name = f"{chosen.model} {chosen.quantization}"
            others = ", ".join(f"{each.model} {each.quantization}" for each in self.done)
            found.append(
                f"decoding with {name} could not be told from noise in the time there was; that speed is predicted"
                if self._is_done(chosen)
                else f"{name} was not measured itself; its speed is predicted, after measuring {others}"
            )
        for each in self.done:
            if each.conditions.disturbed:
                why = "; ".join(each.conditions.disturbed)
                found.append(f"the timing of {each.model} {each.quantization} was disturbed: {why}")
        return tuple(found)

    def _is_done(self, each: Candidate) -> bool:
        return self._same(each) in map(self._same, self.done)

    def _is_timed(self, each: Candidate) -> bool:
        """Whether decoding at depth 0 was timed: a measurement may leave out what the noise swallowed."""
        return any(
            self._same(each) == self._same(measurement)
            and any(
                result.test.kind == "generate" and result.test.depth == 0 and result.test.plain
                for result in measurement.results
            )
            for measurement in self.done
        )

    def _same(self, each: Candidate | Measurement) -> tuple[str, str]:
        """What a timing is about: models of one shape share it."""
        return self._session.sources.shape_key(*_named(self._session, each)), each.quantization


def _named(session: Session, each: Candidate | Measurement) -> tuple[Model, Quantization]:
    return session.sources.model(each.model), session.sources.quantization(each.model, each.quantization)


def reference_of(session: Session) -> Callable[[], Layout] | None:
    """What makes the small phantom that is timed beside everything else; ``None`` with a GPU: it runs on CPUs."""
    if session.oracle.has_gpu:
        return None
    known, cache_bytes = session.sources.catalogue, last_level_cache_bytes(session.machine)
    return lambda: reference_layout(known, cache_bytes=cache_bytes)


def trial_of(session: Session, subject: Subject | None = None) -> Subject:
    """What races for threads and their waiting: a small model, for what is found holds for all models of this machine.

    A few layers of a large one take so long that a race ends undecided, and the plan then waited passively, half as
    fast. With a GPU it is ``subject`` itself: what is left to the CPU is another part of each model.
    """
    if subject is not None and session.oracle.has_gpu:
        return subject
    known = session.sources.catalogue
    return subject_of(session, known.model(_TRIAL_MODEL), known.quantization(_TRIAL_QUANTIZATION), ())


def subject_of(
    session: Session,
    model: Model,
    quantization: Quantization,
    memory: Sequence[DeviceMemory],
    *,
    file: Path | None = None,
) -> Subject:
    """What measuring needs to know: the whole layout with types, slices of it, and the bytes that it holds.

    ``file`` is the model's own file, whose contents are to be timed in the place of a phantom's.
    """
    sources = session.sources
    key, source = sources.shape_key(model, quantization), sources.layout_source(model, quantization)

    def whole() -> Layout:
        return session.oracle.typed_layout(key, source, quantization)

    def part(layers: Sequence[int]) -> Layout:
        return sources.layout(model, quantization, layers)

    return Subject(
        model=model.id,
        quantization=quantization.name,
        shape_key=key,
        whole=whole,
        part=part,
        resident_bytes=sum(row.total_bytes for row in memory),
        usable_bytes=session.machine.memory.usable_bytes,
        cache_bytes=last_level_cache_bytes(session.machine),
        file=file,
        described=_described(session, file),
    )


def _described(session: Session, file: Path | None) -> Described:
    """Engine and machine in llama-bench's words; the number of the build is in no library."""
    told = session.oracle.system()
    names = {kind: [each.description for each in told.devices if each.kind in kind] for kind in (_HOST, _GPUS)}
    # ggml calls a device by its backend and a number, CUDA0.
    backends = dict.fromkeys(re.sub(r"\d+$", "", each.name) for each in told.devices if each.kind in _GPUS)
    return Described(
        build_commit=told.llama_cpp,
        cpu_info=", ".join(names[_HOST]),
        gpu_info=", ".join(names[_GPUS]),
        backends=",".join(backends) or "CPU",
        model_filename=None if file is None else str(file),
    )


def core_cache_bytes(machine: Machine) -> int:
    """The second-level cache of one core, 0 where nobody tells."""
    sizes = [cache.size_bytes for cache in machine.cpu.caches if cache.level == 2 and cache.kind != "instruction"]
    return min(sizes, default=0)


def last_level_cache_bytes(machine: Machine) -> int:
    """The size of the deepest data cache of one socket, 8 MiB where nobody tells."""
    caches = [cache for cache in machine.cpu.caches if cache.kind != "instruction"]
    deepest = max((cache.level for cache in caches), default=0)
    sizes = [cache.size_bytes for cache in caches if cache.level == deepest]
    return max([_SMALLEST_CACHE_BYTES, *sizes])
