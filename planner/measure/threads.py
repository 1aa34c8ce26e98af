"""Finds the threads and the OpenMP waiting that are fastest here, by a short interleaved race on a few real layers.

The engine's defaults are poor both ways: half the cores for decoding from Python, all hyper-threads from llama-server.
Spinning gains up to a half on an idle machine and loses nearly everything on a busy one: two threads that spin for each
other on one free core stand still (0.6B in Q8_0 on two cores, milliseconds for a token: 25 where threads spin and 43
where they sleep; 1,300 and 34 with one core taken). Threads that spin a few milliseconds, as GNU's runtime has them do
by itself, gain what those that spin for minutes do, and leave the cores alone when the answer is written. So whatever
is not *clearly* faster is not taken, and what a trial that others disturb found is not taken at all. The mistake it
prevents is a setting chosen from one lucky run.
"""

import hashlib
import time

import msgspec

from planner.measure.bench import Bench, Progress, no_progress
from planner.measure.racing import Found, Workload, search
from planner.measure.racing_bench import BenchTrack, Lengths, trial_layout
from planner.measure.racing_space import SPINNING_GAIN, thread_changes
from planner.measure.store import MeasurementStore
from planner.measure.suite import Subject
from planner.types import Report
from planner.types.settings import Settings, Waiting
from planner.types.tuning import Setup

__all__ = ["FACT", "KnownThreads", "ThreadChoice", "choose_threads", "kept_choice", "tuned_fact"]

FACT = "threads-and-waiting"
_LENGTHS = Lengths(generate=6, prompt=32)
_TYPICAL = Workload(prompt_tokens=400, answer_tokens=400)


class ThreadChoice(Report, frozen=True, kw_only=True):
    """Threads for decoding and for prompts, how they wait, and in words what that rests on.

    ``trusted`` is False when the trial was disturbed or cut short; such a choice is the safe one and is not kept.
    """

    threads: int
    threads_batch: int
    openmp_wait: Waiting
    basis: str
    trusted: bool = True

    def applied(self, settings: Settings) -> Settings:
        """``settings`` with this choice."""
        return msgspec.structs.replace(
            settings, threads=self.threads, threads_batch=self.threads_batch, openmp_wait=self.openmp_wait
        )

    def is_of(self, settings: Settings) -> bool:
        """Whether ``settings`` run with this choice."""
        return self.applied(settings) == settings


def kept_choice(store: MeasurementStore, usable_threads: int, *, fact: str = FACT) -> ThreadChoice | None:
    """The choice of an earlier trial on this machine and engine build, trusted and within the threads we may use.

    ``fact`` names that of one model (:func:`tuned_fact`) in the place of the machine's.
    """
    kept = store.find_fact(fact, ThreadChoice)
    if kept is None or not kept.trusted:
        return None
    return kept if max(kept.threads, kept.threads_batch) <= usable_threads else None


def tuned_fact(shape_key: str, quantization: str) -> str:
    """The name under which the threads that ``planner tune`` found for one model are kept."""
    return f"{FACT}-{hashlib.sha256(f'{shape_key} {quantization}'.encode()).hexdigest()[:16]}"


class KnownThreads:
    """The threads each model runs with: what it was tuned to, else what a trial found, else all usable ones.

    The mistake it prevents: a speed that was measured with some threads, or some waiting, told of a plan with others.
    Without a ``store`` nothing was tried; ``asked_threads`` is what somebody named, and only the waiting is looked up.
    """

    def __init__(
        self, usable_threads: int, store: MeasurementStore | None = None, *, asked_threads: int | None = None
    ) -> None:
        self.usable_threads = max(1, usable_threads)
        self.trial: ThreadChoice | None = None
        """What this run's own trial found: where it is not trusted, nobody else gets it."""
        self._store = store
        self._asked_threads = asked_threads
        self._read: dict[str, ThreadChoice | None] = {}

    def known(self, shape_key: str, quantization: str) -> ThreadChoice | None:
        """What was found for this model or on this machine; ``None`` before a trial."""
        return self._kept(tuned_fact(shape_key, quantization)) or self.trial or self._kept(FACT)

    def of(self, shape_key: str, quantization: str) -> ThreadChoice:
        """The same, or the safe threads, which wait passively, before a trial."""
        found = self.known(shape_key, quantization) or _safe(self.usable_threads)
        if self._asked_threads is None:
            return found
        return msgspec.structs.replace(found, threads=self._asked_threads, threads_batch=self._asked_threads)

    def _kept(self, fact: str) -> ThreadChoice | None:
        """What stands in the store, read once: a plan asks for each of its candidates."""
        if self._store is not None and fact not in self._read:
            self._read[fact] = kept_choice(self._store, self.usable_threads, fact=fact)
        return self._read.get(fact)


def _safe(usable_threads: int) -> ThreadChoice:
    """All usable threads, which sleep while they wait: half the best speed at worst, beside other programs too."""
    return ThreadChoice(
        threads=usable_threads,
        threads_batch=usable_threads,
        openmp_wait="passive",
        basis="all usable threads, passive waiting",
    )


def choose_threads(
    bench: Bench,
    subject: Subject,
    settings: Settings,
    *,
    usable_threads: int,
    store: MeasurementStore | None = None,
    budget_s: float = 10.0,
    progress: Progress = no_progress,
) -> ThreadChoice:
    """The fastest threads and waiting for models like ``subject``, within about ``budget_s``.

    Kept in ``store`` for this machine and engine build, and then answered at once. On a machine with one usable
    thread there is nothing to try.
    """
    safe = _safe(usable_threads)
    if usable_threads <= 1:
        return safe
    kept = kept_choice(store, usable_threads) if store is not None else None
    if kept is not None:
        return kept
    base = msgspec.structs.replace(settings, context_tokens=512, parallel=1, batch=512)
    default = Setup(settings=safe.applied(base))
    begin = time.monotonic()
    told = _Told(progress, budget_s)
    with BenchTrack(
        lambda _setup: bench,
        trial_layout(subject),
        lengths=_LENGTHS,
        owned=False,
        usable_bytes=subject.usable_bytes,
        progress=told.stage,
    ) as track:
        # Loading at a crawl must not leave a race of nothing.
        left_s = max(budget_s - (time.monotonic() - begin), 0.4 * budget_s)
        changes = thread_changes(usable_threads, ("default", "passive"), spinning_gain=SPINNING_GAIN)
        found = search(track, default, changes, _TYPICAL, budget_s=left_s)
        disturbed = track.conditions.disturbed
    if disturbed:
        why = "; ".join(disturbed)
        return msgspec.structs.replace(safe, basis=f"{safe.basis}: the trial was disturbed ({why})", trusted=False)
    choice = _choice(found)
    if store is not None and choice.trusted:
        store.keep_fact(FACT, choice)
    return choice


class _Told:
    """Passes stages of the track on as one trial."""

    def __init__(self, progress: Progress, budget_s: float) -> None:
        self._progress, self._budget_s = progress, budget_s

    def stage(self, _stage: str, done: float, _total_s: float) -> None:
        """Tell that threads are tried."""
        self._progress("trying threads", done, self._budget_s)


def _choice(found: Found[Setup]) -> ThreadChoice:
    """The winner as a choice; trusted where every setting had its race, and the winner its last one, to the end."""
    won, pairs = found.winner.settings, sum(len(raced.total) for raced in found.races)
    return ThreadChoice(
        threads=won.threads,
        threads_batch=won.threads_batch,
        openmp_wait=won.openmp_wait,
        basis=f"fastest of {len(found.races) + 1} settings on a slice, {pairs} interleaved pairs of runs",
        trusted=bool(found.races) and not found.cut_short,
    )
