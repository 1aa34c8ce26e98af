"""The track on which real setups race: children of the engine, one for each way a process is started, and their models.

A setup that differs in threads alone shares a loaded model; another load mode or cache needs the model again, another
way of waiting, pinning or paging another child. The mistakes it prevents: a challenger that is timed while its anchor
is being loaded, a race judged although the machine was busy, and models of setups that left long ago.
"""

import math
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple, Self

from msgspec.structs import replace

from planner.engine.child import EngineChild
from planner.engine.process import waiting_environment
from planner.errors import EngineDiedError, EngineError
from planner.measure.bench import Bench, Progress, no_progress
from planner.measure.conditions import Watch
from planner.measure.racing import UnusableError
from planner.measure.slices import CACHE_MULTIPLE, kinds_of_layers, outside_bytes, retyped, weights_bytes
from planner.measure.statistics import is_warm
from planner.measure.suite import Subject
from planner.types.measurement import Conditions, Test, TestKind
from planner.types.model import Layout
from planner.types.settings import Settings
from planner.types.tuning import Setup

__all__ = ["BenchTrack", "Lengths", "OpenBench", "bench_of", "child_environment", "trial_layout"]

OpenBench = Callable[[Setup], Bench]
"""Makes the bench whose child is started as a setup says."""

_DEADLINE_S = 120.0
_RUN_S = 2.0
"""No run takes longer, whatever its threads do to each other."""
_WARM_UP_S = 1.5
_MOST_DISTURBED = 0.25
_HUGE_PAGES = "glibc.malloc.hugetlb=1"
_BARE = Settings(context_tokens=0)


class Lengths(NamedTuple):
    """Tokens of one run: written at a depth for decoding, read for prompts."""

    generate: int = 8
    prompt: int = 64
    depth: int = 0

    @property
    def tests(self) -> dict[TestKind, Test]:
        """The two runs as tests."""
        return {
            "generate": Test(kind="generate", tokens=self.generate, depth=self.depth),
            "prompt": Test(kind="prompt", tokens=self.prompt),
        }


def child_environment(setup: Setup) -> dict[str, str]:
    """The variables that a setup's process is started with, besides those it has anyway."""
    waiting = setup.settings.openmp_wait
    variables: dict[str, str] = {} if waiting == "default" else {"OMP_WAIT_POLICY": waiting}
    if setup.huge_pages:
        # GNU's C library then asks for transparent huge pages (glibc manual, "Memory Allocation Tunables").
        variables["GLIBC_TUNABLES"] = _HUGE_PAGES
    return variables


def bench_of(setup: Setup, python: str | None, *, folder: Path | None = None, random_weights: bool = False) -> Bench:
    """A bench with one child that is started as ``setup`` says."""

    def child(_waiting: Mapping[str, str]) -> EngineChild:
        variables = {**child_environment(setup), **waiting_environment(setup.settings.openmp_wait)}
        made = EngineChild(python, env=variables)
        if setup.cpus or setup.numa != "off":
            made.ask("place", {"cpus": setup.cpus, "numa": setup.numa})
        return made

    return Bench(child, folder=folder, random_weights=random_weights)


class BenchTrack:
    """Times setups of one model: ``layout`` as a phantom, or ``file`` where one is given.

    A context manager that ends the benches it opened; ``open_bench`` may hand out one bench again and again, which is
    then left to its owner (``owned`` False). ``now_s`` is the monotonic clock.
    """

    def __init__(
        self,
        open_bench: OpenBench,
        layout: Layout,
        *,
        lengths: Lengths,
        file: Path | None = None,
        owned: bool = True,
        usable_bytes: int = 0,
        progress: Progress = no_progress,
    ) -> None:
        self._open_bench = open_bench
        self._layout, self._file = layout, file
        self.lengths = lengths
        self._owned, self._usable_bytes = owned, usable_bytes
        self._progress = progress
        self._benches: dict[Setup, Bench] = {}
        self._open: dict[Setup, str] = {}
        self._made = 0
        self._watch: Watch | None = None
        self._watched: list[tuple[float, Conditions]] = []
        self._began_s = 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def end(self) -> None:
        """Close every model, and every bench that is ours."""
        if self._owned:
            for bench in self._benches.values():
                bench.end()
        else:
            for model in list(self._open):
                self._close(model)
        self._benches.clear()
        self._open.clear()

    def enter(self, setups: Sequence[Setup]) -> None:
        """Open what is not open yet, warm it up, close all others, and watch the machine from here on."""
        wanted, staying = {_model(setup) for setup in setups}, {_process(setup) for setup in setups}
        for model in [each for each in self._open if each not in wanted]:
            self._close(model)
        if self._owned:
            # A child that idles still holds memory.
            for start in [each for each in self._benches if each not in staying]:
                self._benches.pop(start).end()
        for setup in setups:
            if _model(setup) not in self._open:
                self._load(setup)
        pids = [pid for bench in self._benches.values() for pid in bench.pids]
        threads = max(max(setup.settings.threads, setup.settings.threads_batch) for setup in setups)
        self._watch, self._began_s = Watch(pids, threads=threads), time.monotonic()

    def time_s(self, setup: Setup, kind: TestKind) -> float:
        """Seconds for one token."""
        return self._run(setup, kind)

    def leave(self) -> bool:
        """Whether nothing disturbed the machine since :meth:`enter`."""
        if self._watch is None:
            return False
        conditions = self._watch.finish()
        self._watched.append((time.monotonic() - self._began_s, conditions))
        self._watch = None
        return not conditions.disturbed

    def now_s(self) -> float:
        """Seconds of the monotonic clock."""
        return time.monotonic()

    @property
    def conditions(self) -> Conditions:
        """Those of the last race; what disturbed it, and all others where it took more than a quarter of the time."""
        if not self._watched:
            return Conditions(load_1min=None, steal_ratio=None, on_battery=None)
        last = self._watched[-1][1]
        bad = [(seconds, each) for seconds, each in self._watched if each.disturbed]
        all_s = sum(seconds for seconds, _ in self._watched)
        share = sum(seconds for seconds, _ in bad) / all_s if all_s > 0 else 0.0
        if last.disturbed or share <= _MOST_DISTURBED:
            return last
        why = tuple(dict.fromkeys(sentence for _, each in bad for sentence in each.disturbed))
        return replace(last, disturbed=(f"{share:.0%} of the time was disturbed", *why[:3]))

    def _load(self, setup: Setup) -> None:
        start, model = _process(setup), _model(setup)
        self._made += 1
        label = f"setup-{self._made}"
        try:
            if start not in self._benches:
                self._benches[start] = self._open_bench(start)
            bench = self._benches[start]
            size = weights_bytes(self._layout)
            if self._file is not None:
                bench.open_file(self._file, setup.settings, label, size_bytes=size)
            else:
                bench.open(
                    self._layout, setup.settings, label, usable_bytes=self._usable_bytes, progress=self._progress
                )
            self._open[model] = label
            for kind in self.lengths.tests:
                self._warm_up(setup, kind)
        except (EngineError, EngineDiedError) as error:
            self._forget(start, model)
            raise UnusableError(error.message) from error

    def _warm_up(self, setup: Setup, kind: TestKind) -> None:
        begin, seen = time.monotonic(), list[float]()
        while not (seen and (is_warm(seen) or time.monotonic() - begin > _WARM_UP_S)):
            seen.append(self._run(setup, kind))

    def _run(self, setup: Setup, kind: TestKind) -> float:
        test, start, model = self.lengths.tests[kind], _process(setup), _model(setup)
        settings = setup.settings
        try:
            run = self._benches[start].run(
                self._open[model],
                test,
                tokens=test.tokens,
                deadline_s=_DEADLINE_S,
                budget_s=_RUN_S,
                threads=(settings.threads, settings.threads_batch),
            )
        except (EngineError, EngineDiedError) as error:
            self._forget(start, model)
            raise UnusableError(error.message) from error
        if not run.samples_ns:
            raise UnusableError(f"a depth of {test.depth} tokens is not reached in time")
        return run.ns_per_token / 1e9

    def _close(self, model: Setup) -> None:
        label, start = self._open.pop(model), _process(model)
        with suppress(EngineError, EngineDiedError):
            self._benches[start].close([label])

    def _forget(self, start: Setup, model: Setup) -> None:
        """After a refusal or a death: what the child held is gone, and others are loaded anew when they are wanted."""
        for each in [each for each in self._open if _process(each) == start]:
            label = self._open.pop(each)
            with suppress(EngineError, EngineDiedError, KeyError):
                self._benches[start].close([label])
        self._open.pop(model, None)
        if self._owned and start in self._benches:
            self._benches.pop(start).end()


def _model(setup: Setup) -> Setup:
    """What needs a load of its own: everything but the threads, which each run is told."""
    return replace(setup, settings=replace(setup.settings, threads=1, threads_batch=1))


def _process(setup: Setup) -> Setup:
    """What needs a process of its own: all that is no setting but the surroundings, with any settings in it."""
    settings = replace(_BARE, openmp_wait=setup.settings.openmp_wait)
    return replace(setup, settings=settings)


def trial_layout(subject: Subject) -> Layout:
    """The first layers, as many as make a slice several times the last-level cache and hold every frequent structure.

    From the start, and whole: a hybrid's engine tells attention from recurrent layers by their place, and aborts over a
    slice without any attention.
    """
    whole = subject.whole()
    total = len(whole.layers)
    layer_bytes = max(1, (weights_bytes(whole) - outside_bytes(whole)) // total)
    wanted = max(2, math.ceil(CACHE_MULTIPLE * subject.cache_bytes / layer_bytes))
    count = min(total, max(wanted, _layers_until_all_are_seen(whole)))
    return retyped(subject.part(range(count)), whole)


def _layers_until_all_are_seen(whole: Layout) -> int:
    """How many layers from the first on hold one of each structure (types aside) that a tenth of all layers have."""
    structures = [tuple((suffix, dims) for suffix, dims, _ in kind) for kind in kinds_of_layers(whole)]
    frequent = {each for each, times in Counter(structures).items() if 10 * times >= len(structures)}
    return max(structures.index(each) for each in frequent) + 1 if frequent else 1
