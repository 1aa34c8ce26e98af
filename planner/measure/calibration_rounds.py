"""The turns in which a calibration times the tests of its phantoms.

What is important stays open from the beginning to the end and is timed again and again, one test after the other, so
that its few runs lie many seconds apart: a neighbour on the host keeps a machine slow for seconds, and runs that
follow one another say the same wrong thing twice. The mistakes it prevents besides: a first touch of weights that
counts as a time, a test that is only ever timed after the same other one, and a long prompt that is repeated until
the budget of everything else is gone.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import msgspec

from planner.engine.graphs import Graph
from planner.errors import EngineError, MeasurementInvalidError
from planner.measure.bench import Bench
from planner.measure.calibration_design import Probe
from planner.measure.reference import Glance, ReferenceRuns
from planner.types.measurement import Test
from planner.types.model import Layout
from planner.types.settings import Settings

__all__ = ["GraphsOf", "ProbeRun", "Sitting"]

_LONG_S = 0.15
"""A test that takes longer has every second turn only."""
_TWICE_UP_TO = 4
"""Of what passes by, tests of phantoms up to this rank are timed twice."""
_GLANCE_EVERY_S = 2.0
_DEADLINE_S = 60.0

GraphsOf = Callable[[Probe, Settings], Sequence[Graph]]
"""Asks the engine for the graph of one micro-batch of each test of a probe."""


class ProbeRun(NamedTuple):
    """One test of one phantom with its graph; of each run, nanoseconds of a micro-batch and when it ended.

    The second is in monotonic seconds.
    """

    probe: Probe
    test: Test
    graph: Graph
    took_ns: list[float]
    ended_s: list[float]

    def once(self, bench: Bench) -> None:
        """Time it once more."""
        self.took_ns.append(self._run(bench, self.test.tokens))
        self.ended_s.append(time.monotonic())

    def touch(self, bench: Bench) -> None:
        """One run that does not count: what is touched for the first time is slow."""
        self._run(bench, 1 if self.test.kind == "generate" else self.test.tokens)

    @property
    def long(self) -> bool:
        """Whether the last run took so long that the next turn is for others."""
        batches = 1 if self.test.kind == "prompt" else self.test.tokens
        return self.took_ns[-1] * batches > _LONG_S * 1e9

    def _run(self, bench: Bench, tokens: int) -> float:
        answer = bench.run(self.probe.label, self.test, tokens=tokens, deadline_s=_DEADLINE_S)
        if not answer.samples_ns:
            raise MeasurementInvalidError(
                f"{self.probe.label}: {self.test.label} could not be timed", hint="try again when the machine is idle"
            )
        # A prompt is one micro-batch, an answer one for each token.
        return min(answer.samples_ns) / (1 if self.test.kind == "prompt" else answer.tokens_timed)


def _probe_settings(probe: Probe, settings: Settings) -> Settings:
    """``settings`` as a phantom of the calibration is opened with them."""
    return msgspec.structs.replace(
        settings,
        context_tokens=probe.context_tokens,
        parallel=probe.parallel,
        # One cache for all: a graph of fewer sequences than the context was made for can be asked for.
        kv_unified=probe.parallel > 1,
        cache_type_k=probe.cache_type,
        cache_type_v=probe.cache_type,
        batch=512,
        ubatch=512,
        load_mode="mmap",
    )


class Sitting:
    """Phantoms that stay open and have their turns, phantoms that pass by, and the reference beside them.

    ``runs`` are the tests that were timed, ``glances`` what the reference took every two seconds, ``notes`` what the
    engine refused.
    """

    def __init__(self, bench: Bench, settings: Settings, graphs_of: GraphsOf, reference: Layout) -> None:
        self._bench = bench
        self._settings = settings
        self._graphs_of = graphs_of
        self._reference = ReferenceRuns(bench, reference, settings)
        self._staying: list[ProbeRun] = []
        self._coming: Iterator[ProbeRun] = iter(())
        self._rounds = 0
        self._glanced_s = time.monotonic()
        self.runs: list[ProbeRun] = []
        self.glances: list[Glance] = []
        self.notes: list[str] = []

    def keep_open(self, group: Sequence[Probe]) -> None:
        """Open these, time each test once; they have their turns from now on."""
        runs = self._opened(group)
        self._once(runs)
        self._staying += runs

    def pass_by(self, group: Sequence[Probe], until_s: float) -> None:
        """Open these, time each test once and, if it is important and before that second, once more, and close them."""
        runs = self._opened(group)
        self._once(runs)
        for run in reversed(runs):
            if run.probe.rank <= _TWICE_UP_TO and not run.long and time.monotonic() < until_s:
                self._glance()
                run.once(self._bench)
        self._bench.close(_labels(runs))

    def go_on(self, until_s: float) -> None:
        """Give turns to what stays open until then, beginning where the last time ended."""
        while self._staying and time.monotonic() < until_s:
            run = next(self._coming, None)
            if run is None:
                self._coming = self._round()
                continue
            self._glance()
            run.once(self._bench)

    def end(self) -> None:
        """Close what stays open."""
        self._bench.close(_labels(self._staying))

    def _opened(self, group: Sequence[Probe]) -> list[ProbeRun]:
        runs: list[ProbeRun] = []
        for probe in group:
            settings = _probe_settings(probe, self._settings)
            try:
                self._bench.open(probe.layout, settings, probe.label)
            except EngineError as error:
                self.notes.append(f"{probe.label}: {error.message}")
                continue
            graphs = self._graphs_of(probe, settings)
            runs += [ProbeRun(probe, test, graph, [], []) for test, graph in zip(probe.tests, graphs, strict=True)]
        self.runs += runs
        return runs

    def _once(self, runs: Sequence[ProbeRun]) -> None:
        for run in _first_of_each(runs):
            run.touch(self._bench)
        for run in runs:
            self._glance()
            run.once(self._bench)

    def _round(self) -> Iterator[ProbeRun]:
        self._rounds += 1
        back = self._rounds % 2 == 1
        return iter([run for run in reversed(self._staying) if not run.long] if back else self._staying)

    def _glance(self) -> None:
        first = not self.glances
        if first:
            self._reference.glance()  # touches everything
        if first or time.monotonic() - self._glanced_s > _GLANCE_EVERY_S:
            self.glances.append(self._reference.glance())
            self._glanced_s = time.monotonic()


def _labels(runs: Sequence[ProbeRun]) -> list[str]:
    return list(dict.fromkeys(run.probe.label for run in runs))


def _first_of_each(runs: Sequence[ProbeRun]) -> Iterator[ProbeRun]:
    """Of each phantom the runs that touch all of it: its longest prompt, most answers, a token behind each depth."""
    for label in _labels(runs):
        own = [run for run in runs if run.probe.label == label]
        prompts = [run for run in own if run.test.kind == "prompt"]
        if prompts:
            yield max(prompts, key=lambda run: (run.test.tokens, run.test.depth))
        deep = [run for run in own if run.test.kind == "generate" and run.test.depth]
        answers = [run for run in own if run.test.kind == "generate" and not run.test.depth]
        if answers and not deep:
            yield max(answers, key=lambda run: run.test.sequences)
        yield from deep
