"""Finds the threads and the OpenMP waiting that are fastest here, by a short interleaved race on a few real layers.

The engine's defaults are poor both ways: half the cores for decoding from Python, all hyper-threads from llama-server.
Active waiting gains up to a half on an idle machine and loses nearly everything on a busy one: two threads that spin
for each other on one free core stand still. So whatever is not *clearly* faster is not taken, and active waiting is
not even considered while others use the CPUs. The mistake it prevents is a setting chosen from one lucky run.
"""

import time
from collections import Counter
from collections.abc import Sequence
from statistics import median
from typing import Literal, NamedTuple

import msgspec

from planner.measure.bench import Bench, Progress, no_progress
from planner.measure.conditions import Watch
from planner.measure.slices import CACHE_MULTIPLE, kinds_of_layers, retyped, weights_bytes
from planner.measure.statistics import clearly_faster
from planner.measure.store import MeasurementStore
from planner.measure.suite import Subject
from planner.types import Report
from planner.types.measurement import Test
from planner.types.model import Layout
from planner.types.settings import Settings

__all__ = ["FACT", "ThreadChoice", "choose_threads", "kept_choice", "thread_counts"]

Waiting = Literal["passive", "active"]

FACT = "threads"
_ROUNDS = 9
_AT_LEAST = 3
_HOPELESS = 1.25
"""A setting whose first two runs both took so many times the best one's time is not run again."""
_ACTIVE_GAIN = 0.05
_THREADS_GAIN = 0.03
_GENERATE = Test(kind="generate", tokens=6)
_PROMPT = Test(kind="prompt", tokens=32)
_DEADLINE_S = 60.0


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


def thread_counts(usable: int) -> tuple[int, ...]:
    """Counts worth a trial, the safe one first: all usable threads, three quarters, half, a quarter of them."""
    shares = [usable, -(-3 * usable // 4), -(-usable // 2), -(-usable // 4)]
    return tuple(count for count in dict.fromkeys(shares) if count >= 1)


def kept_choice(store: MeasurementStore, usable_threads: int) -> ThreadChoice | None:
    """The choice of an earlier trial on this machine and engine build, if it still fits the threads we may use."""
    kept = store.find_fact(FACT, ThreadChoice)
    return kept if kept is not None and max(kept.threads, kept.threads_batch) <= usable_threads else None


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
    safe = ThreadChoice(
        threads=usable_threads,
        threads_batch=usable_threads,
        openmp_wait="passive",
        basis="all usable threads, passive waiting",
    )
    if usable_threads <= 1:
        return safe
    kept = kept_choice(store, usable_threads) if store is not None else None
    if kept is not None:
        return kept
    layout = _trial_layout(subject)
    begin = time.monotonic()
    labels: dict[Waiting, str] = {"passive": "trial-passive", "active": "trial-active"}
    base = msgspec.structs.replace(settings, context_tokens=512, parallel=1, batch=512)
    try:
        for waiting, label in labels.items():
            waits = msgspec.structs.replace(base, openmp_wait=waiting)
            bench.open(layout, waits, label, usable_bytes=subject.usable_bytes, progress=progress)
        left_s = max(budget_s - (time.monotonic() - begin), 0.4 * budget_s)
        choice = _choose(bench, labels, safe, left_s, progress)
    finally:
        bench.close(list(labels.values()))
    if store is not None and choice.trusted:
        store.keep_fact(FACT, choice)
    return choice


def _choose(
    bench: Bench, labels: dict[Waiting, str], safe: ThreadChoice, budget_s: float, progress: Progress
) -> ThreadChoice:
    """Passive first: if others disturb that, active waiting is out of the question."""
    counts = thread_counts(safe.threads)
    watch = Watch(bench.pids, threads=safe.threads)
    passive = _Heat(bench, [_Lane(labels["passive"], "passive", count) for count in counts], _GENERATE)
    passive.race(budget_s * 0.25, rounds=_AT_LEAST)
    if watch.finish().disturbed:
        why = "; ".join(watch.finish().disturbed)
        return msgspec.structs.replace(safe, basis=f"{safe.basis}: the trial was disturbed ({why})", trusted=False)
    progress("trying threads", 0.25, budget_s)
    lanes = [_Lane(labels[waiting], waiting, count) for waiting in labels for count in counts]
    heat = _Heat(bench, lanes, _GENERATE)
    heat.race(budget_s * 0.45, rounds=_ROUNDS)
    progress("trying threads", 0.7, budget_s)
    best = heat.winner(_Lane(labels["passive"], "passive", safe.threads))
    prompt = _Heat(bench, [_Lane(labels[best.waiting], best.waiting, count) for count in counts], _PROMPT)
    prompt.race(budget_s * 0.3, rounds=_ROUNDS)
    progress("trying threads", 1.0, budget_s)
    batch = prompt.winner(_Lane(labels[best.waiting], best.waiting, safe.threads))
    disturbed = watch.finish().disturbed
    if disturbed:
        why = "; ".join(disturbed)
        return msgspec.structs.replace(safe, basis=f"{safe.basis}: the trial was disturbed ({why})", trusted=False)
    return ThreadChoice(
        threads=best.threads,
        threads_batch=batch.threads,
        openmp_wait=best.waiting,
        basis=f"fastest of {len(lanes)} settings on a slice, {heat.rounds} interleaved rounds",
        trusted=heat.rounds >= _AT_LEAST,
    )


class _Lane(NamedTuple):
    label: str
    waiting: Waiting
    threads: int


class _Heat:
    """One test on several settings, round by round; times of one round are comparable with each other."""

    def __init__(self, bench: Bench, lanes: Sequence[_Lane], test: Test) -> None:
        self._bench = bench
        self._test = test
        self.times: dict[_Lane, list[float]] = {lane: [] for lane in lanes}
        self.rounds = 0

    def race(self, budget_s: float, *, rounds: int) -> None:
        """Run ``rounds`` rounds or as many as ``budget_s`` allows (one at least), dropping hopeless settings."""
        begin = time.monotonic()
        tokens = self._test.tokens
        while self.rounds < rounds:
            alive = [lane for lane, times in self.times.items() if len(times) == self.rounds]
            for lane in alive if self.rounds % 2 == 0 else reversed(alive):
                run = self._bench.run(
                    lane.label,
                    self._test,
                    tokens=tokens,
                    deadline_s=_DEADLINE_S + 10 * budget_s,
                    budget_s=budget_s / (len(alive) * 2),
                    threads=(lane.threads, lane.threads),
                )
                self.times[lane].append(run.ns_per_token)
            self.rounds += 1
            self._drop_hopeless()
            spent_s = time.monotonic() - begin
            if spent_s * (self.rounds + 1) / self.rounds > budget_s:
                return

    def winner(self, holder: _Lane) -> _Lane:
        """``holder``, or the fastest of those that beat it clearly; active waiting must gain more to be taken."""
        mine = self.times[holder]
        challengers = sorted(
            (lane for lane, times in self.times.items() if lane != holder and len(times) >= _AT_LEAST),
            key=lambda lane: median(self.times[lane]),
        )
        for lane in challengers:
            theirs = self.times[lane]
            gain = _ACTIVE_GAIN if lane.waiting != holder.waiting else _THREADS_GAIN
            if clearly_faster(theirs, mine[: len(theirs)], by=gain):
                return lane
        return holder

    def _drop_hopeless(self) -> None:
        """Take settings out of the race that were far behind twice; the holder's own times are never dropped."""
        if self.rounds != 2:
            return
        best = min(max(times) for times in self.times.values())
        first = next(iter(self.times))
        for lane, times in self.times.items():
            if lane != first and min(times) > _HOPELESS * best:
                # A list that is shorter than the number of rounds is not run again.
                times.pop()


def _trial_layout(subject: Subject) -> Layout:
    """The first layers, as many as make a slice several times the last-level cache and hold every frequent structure.

    From the start, and whole: a hybrid's engine tells attention from recurrent layers by their place, and aborts over a
    slice without any attention.
    """
    whole = subject.whole()
    total = len(whole.layers)
    layer_bytes = max(1, (weights_bytes(whole) - weights_bytes(_outside_layers(whole))) // total)
    wanted = max(2, -(-CACHE_MULTIPLE * subject.cache_bytes // layer_bytes))
    count = min(total, max(wanted, _layers_until_all_are_seen(whole)))
    return retyped(subject.part(range(count)), whole)


def _layers_until_all_are_seen(whole: Layout) -> int:
    """How many layers from the first on hold one of each structure (types aside) that a tenth of all layers have."""
    structures = [tuple((suffix, dims) for suffix, dims, _ in kind) for kind in kinds_of_layers(whole)]
    frequent = {each for each, times in Counter(structures).items() if 10 * times >= len(structures)}
    return max(structures.index(each) for each in frequent) + 1 if frequent else 1


def _outside_layers(layout: Layout) -> Layout:
    """What of ``layout`` belongs to no layer."""
    outside = tuple(tensor for tensor in layout.tensors if not tensor.name.startswith("blk."))
    return msgspec.structs.replace(layout, tensors=outside)
