"""One measuring session of a plan: what is kept is answered from the store, the rest is timed under the machine's lock.

The lock is taken and the child started by the first question that the store cannot answer, so a second run of the same
plan touches neither. The mistake it prevents: the same candidate measured twice, or two planners timing each other.
"""

import contextlib
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import msgspec

from planner.measure.bench import Bench, OpenChild, Progress, no_progress
from planner.measure.lock import measurement_lock
from planner.measure.store import Effort, MeasurementStore, Question
from planner.measure.suite import Subject, measure_candidate
from planner.measure.threads import KnownThreads, ThreadChoice, choose_threads
from planner.types.measurement import Measurement, Test
from planner.types.model import Layout
from planner.types.settings import Settings

__all__ = ["MeasuringSession", "question"]


class MeasuringSession:
    """Threads and measurements of one machine and engine build; a context manager that frees lock, children, phantoms.

    ``wait_s`` is how long it waits for another measurement to end before it raises :class:`BusyError`. ``folder`` is
    where phantoms go, ``random_weights`` fills them (for GPUs, see :class:`Bench`). ``reference`` makes the small
    phantom that is timed beside every test (see :func:`measure_candidate`).
    """

    def __init__(
        self,
        open_child: OpenChild,
        store: MeasurementStore,
        *,
        effort: Effort = "full",
        progress: Progress = no_progress,
        wait_s: float = 5.0,
        folder: Path | None = None,
        random_weights: bool = False,
        reference: Callable[[], Layout] | None = None,
    ) -> None:
        self._open_child = open_child
        self._store = store
        self._effort: Effort = effort
        self._progress = progress
        self._wait_s = wait_s
        self._folder = folder
        self._random_weights = random_weights
        self._reference = reference
        self._resources = contextlib.ExitStack()
        self._bench: Bench | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._bench = None
        self._resources.close()

    def kept(
        self, subject: Subject, settings: Settings, tests: Sequence[Test], *, whole_tests: bool = False
    ) -> Measurement | None:
        """The measurement that an earlier run kept, without timing anything; ``None`` when there is none."""
        found = self._store.find(question(subject, settings, tests, whole_tests=whole_tests), effort=self._effort)
        # It may have been taken on another model of the very same shape.
        return None if found is None else msgspec.structs.replace(found, model=subject.model)

    def threads(
        self, subject: Subject, settings: Settings, *, trial: Subject, known: KnownThreads, budget_s: float = 10.0
    ) -> ThreadChoice:
        """The ``known`` threads, or those of a new trial of ``trial`` (:func:`choose_threads`), told to ``known``.

        A choice that is not trusted is this run's alone: the next one tries again, and measures again if it finds
        otherwise.
        """
        found = known.known(subject.shape_key, subject.quantization)
        if found is not None:
            return found
        known.trial = choose_threads(
            self._opened(),
            trial,
            settings,
            usable_threads=known.usable_threads,
            store=self._store,
            budget_s=budget_s,
            progress=self._progress,
        )
        return known.trial

    def measure(
        self,
        subject: Subject,
        settings: Settings,
        tests: Sequence[Test],
        *,
        budget_s: float,
        whole_tests: bool = False,
    ) -> Measurement:
        """The kept measurement, or a new one (see :func:`measure_candidate`), which is kept unless it was disturbed."""
        known = self.kept(subject, settings, tests, whole_tests=whole_tests)
        if known is not None:
            return known
        fresh = measure_candidate(
            self._opened(),
            subject,
            settings,
            tests,
            machine_key=self._store.machine_key,
            engine_build=self._store.engine_build,
            budget_s=budget_s,
            effort=self._effort,
            whole_tests=whole_tests,
            reference=None if self._reference is None else self._reference(),
            progress=self._progress,
        )
        self._store.keep(question(subject, settings, tests, whole_tests=whole_tests), fresh, effort=self._effort)
        return fresh

    def _opened(self) -> Bench:
        if self._bench is None:
            self._resources.enter_context(measurement_lock(wait_s=self._wait_s))
            self._bench = self._resources.enter_context(
                Bench(self._open_child, folder=self._folder, random_weights=self._random_weights)
            )
        return self._bench


def question(subject: Subject, settings: Settings, tests: Sequence[Test], *, whole_tests: bool) -> Question:
    """What is asked of the store about a subject; a file's size and time of change are part of it."""
    return Question(
        shape_key=subject.shape_key,
        quantization=subject.quantization,
        settings=settings,
        tests=tuple(tests),
        file=_mark(subject.file),
        whole_tests=whole_tests,
    )


def _mark(file: Path | None) -> str:
    """What tells one file from another and from its own earlier contents."""
    if file is None:
        return ""
    state = file.stat()
    return f"{file.name}:{state.st_size}:{state.st_mtime_ns}"
