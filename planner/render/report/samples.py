"""What was really timed for a plan: every repetition of every test, beside what disturbed it.

The mistake it prevents is a speed whose spread nobody sees, or a predicted one that looks as if it had been timed.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from planner import units
from planner.render.report.tables import Table
from planner.render.style import PLAIN
from planner.types.measurement import Measurement, TestResult
from planner.types.plan import Plan

__all__ = ["Timed", "measured_table", "sample_rates", "timed"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Timed:
    """One test of one measurement; ``rates`` are the tokens per second of each repetition over all sequences."""

    name: str
    result: TestResult
    rates: tuple[float, ...]
    measurement: Measurement


def sample_rates(result: TestResult) -> tuple[float, ...]:
    """Tokens per second of each repetition, over all sequences; a sample of no time has no rate."""
    tokens = result.tokens_timed * result.test.sequences
    return tuple(tokens * 1e9 / sample for sample in result.samples_ns if sample > 0)


def timed(plan: Plan) -> tuple[Timed, ...]:
    """Every test of every measurement in the plan."""
    return tuple(
        Timed(
            name=f"{result.test.words}, {each.model}:{each.quantization}",
            result=result,
            rates=sample_rates(result),
            measurement=each,
        )
        for each in plan.measurements
        for result in each.results
    )


def measured_table(plan: Plan) -> tuple[Table | None, tuple[str, ...]]:
    """The tests with median, interval and repetitions, and in sentences what to think of them."""
    if not plan.measurements:
        return None, (_nothing_timed(plan),)
    header = ("model", "test", "tokens/s", "interval", "repetitions", "what ran", "taken at")
    rows = tuple(_row(each) for each in timed(plan))
    table = Table(caption="What was timed for this plan", header=header, rows=rows, right=(2, 4))
    return table, tuple(note for each in plan.measurements for note in _notes(each))


def _nothing_timed(plan: Plan) -> str:
    if plan.machine.kind != "detected":
        return "Nothing was timed: the plan is for a machine other than the one that it was made on."
    return "Nothing was timed for this plan; planner plan without --no-measure times the leaders."


def _row(each: Timed) -> tuple[str, ...]:
    told, result = each.measurement, each.result
    spread = result.tokens_per_s
    low, high = units.rate(spread.low), units.rate(spread.high)
    return (
        f"{told.model}:{told.quantization}",
        result.test.words,
        units.rate(spread.median),
        f"{low}{PLAIN.dash}{high}" if low != high else low,
        str(len(result.samples_ns)),
        _what_ran(told, result),
        told.taken_at,
    )


def _what_ran(told: Measurement, result: TestResult) -> str:
    if result.origin != "measured":
        return f"slices of {told.layers_timed} of {told.layers_total} layers"
    what = "the file itself" if told.contents == "file" else "a phantom of the whole model"
    shortened = f", {result.tokens_timed} of {result.test.tokens} tokens" if _shortened(result) else ""
    return what + shortened


def _shortened(result: TestResult) -> bool:
    return result.tokens_timed < result.test.tokens


def _notes(told: Measurement) -> Iterator[str]:
    """What made the run doubtful, and what the run itself noted."""
    name = f"{told.model}:{told.quantization}"
    for disturbed in told.conditions.disturbed:
        yield f"{name} was disturbed, its numbers are not to be used: {disturbed}."
    for note in told.notes:
        yield f"{name}: {note}"
