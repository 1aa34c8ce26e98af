"""The turns in which a calibration times the tests of the phantoms that are open together.

The mistakes it prevents: a first touch of weights that counts as a time, a test that is only ever timed after the same
other one, and a long prompt that is repeated until the budget of everything else is gone.
"""

import time
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from planner.errors import MeasurementInvalidError
from planner.measure.bench import Bench
from planner.measure.calibration_design import Probe
from planner.measure.reference import Glance, ReferenceRuns
from planner.types.measurement import Test

__all__ = ["ProbeRun", "timed_rounds"]

_ROUNDS = 9
_LONG_S = 0.25
"""A test that takes longer is repeated only as often as it must be."""
_DEADLINE_S = 60.0


class ProbeRun(NamedTuple):
    """One test of one phantom, and the nanoseconds of each micro-batch, run by run."""

    probe: Probe
    test: Test
    took_ns: list[float]


def timed_rounds(
    bench: Bench, reference: ReferenceRuns | None, runs: Sequence[ProbeRun], until: float, *, at_least: int
) -> list[Glance]:
    """Every test ``at_least`` so often (once where the time is over), quick ones again as long as there is time.

    Returns what the reference took, once in each round.
    """
    for run in _first_of_each(runs):
        # What is touched for the first time is slow: this one does not count.
        _once(bench, run, tokens=1 if run.test.kind == "generate" else run.test.tokens)
        if time.monotonic() < until:
            run.took_ns.clear()
    glances: list[Glance] = []
    for number in range(_ROUNDS):
        if reference is not None:
            glances.append(reference.glance())
        for run in runs if number % 2 == 0 else reversed(runs):
            if time.monotonic() > until and run.took_ns:
                continue
            if number < at_least or run.took_ns[-1] * run.test.tokens < _LONG_S * 1e9:
                _once(bench, run)
        if time.monotonic() > until:
            break
    return glances


def _first_of_each(runs: Sequence[ProbeRun]) -> Iterator[ProbeRun]:
    """Of each phantom the runs that touch all of it: its longest prompt, most answers, a token behind each depth."""
    for label in dict.fromkeys(run.probe.label for run in runs):
        own = [run for run in runs if run.probe.label == label]
        prompts = [run for run in own if run.test.kind == "prompt"]
        if prompts:
            yield max(prompts, key=lambda run: (run.test.tokens, run.test.depth))
        deep = [run for run in own if run.test.kind == "generate" and run.test.depth]
        answers = [run for run in own if run.test.kind == "generate" and not run.test.depth]
        if answers and not deep:
            yield max(answers, key=lambda run: run.test.sequences)
        yield from deep


def _once(bench: Bench, run: ProbeRun, *, tokens: int | None = None) -> None:
    answer = bench.run(run.probe.label, run.test, tokens=tokens or run.test.tokens, deadline_s=_DEADLINE_S)
    if not answer.samples_ns:
        raise MeasurementInvalidError(
            f"{run.probe.label}: {run.test.label} could not be timed", hint="try again when the machine is idle"
        )
    # A prompt is one micro-batch, an answer one for each token.
    batches = 1 if run.test.kind == "prompt" else answer.tokens_timed
    run.took_ns.append(min(answer.samples_ns) / batches)
