"""When two runs may be said to differ: seldom by chance, always when they do, never when something was wrong."""

import itertools
import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner.measure.difference import (
    LEAST_CHANGE,
    LEVEL,
    compare_runs,
    differences,
    machine_moved,
    machine_scatter,
    rank_sum_probability,
)
from planner.types.measurement import Conditions, Measurement, Reference, Spread
from planner.types.measurement import Test as Timed
from planner.types.measurement import TestResult as Result
from planner.types.settings import Settings

TIMES = st.lists(st.integers(min_value=1, max_value=12), min_size=1, max_size=5)


def measurement(
    *times: tuple[int, ...], tokens: int = 8, disturbed: tuple[str, ...] = (), reference: Reference | None = None
) -> Measurement:
    """A measurement of one test for each tuple of nanoseconds."""
    speed = Spread(median=1.0, low=1.0, high=1.0, relative_mad=0.0)
    return Measurement(
        model="m",
        quantization="q",
        settings=Settings(context_tokens=64),
        engine_build="b",
        machine_key="k",
        taken_at="2026-01-01T00:00:00+00:00",
        layers_timed=1,
        layers_total=1,
        results=tuple(
            Result(
                test=Timed(kind="generate", tokens=8, depth=at),
                tokens_timed=tokens,
                samples_ns=each,
                tokens_per_s=speed,
            )
            for at, each in enumerate(times)
        ),
        conditions=Conditions(load_1min=None, steal_ratio=None, on_battery=None, disturbed=disturbed),
        reference=reference,
    )


@given(TIMES, TIMES)
def test_the_probability_is_that_of_all_ways_to_share_the_ranks(first: list[int], second: list[int]) -> None:
    """Against the definition: every way to choose the first run's ranks, ties sharing theirs."""
    pooled = [*first, *second]
    ranks = [sum(x < y for x in pooled) + (pooled.count(y) + 1) / 2 for y in pooled]
    middle = len(first) * (len(pooled) + 1) / 2
    seen = abs(sum(ranks[: len(first)]) - middle)
    ways = [abs(sum(each) - middle) for each in itertools.combinations(ranks, len(first))]
    expected = sum(each >= seen - 1e-9 for each in ways) / len(ways)
    assert rank_sum_probability(first, second) == pytest.approx(expected)


def test_large_samples_are_judged_alike() -> None:
    """Where the exact test ends and the approximation begins, both say nearly the same."""
    draw = random.Random(3)  # noqa: S311 - a simulation
    first = [draw.gauss(100, 3) for _ in range(12)]
    second = [draw.gauss(101, 3) for _ in range(12)]
    exact = rank_sum_probability(first, second)
    near = rank_sum_probability([*first, draw.gauss(100, 3)], [*second, draw.gauss(101, 3)])
    assert near == pytest.approx(exact, abs=0.25)
    assert rank_sum_probability(range(50), range(100, 150)) < 1e-6


@pytest.mark.parametrize("deviation", [0.005, 0.02, 0.06])
@pytest.mark.parametrize("count", [5, 9])
def test_runs_of_the_same_thing_seldom_differ(deviation: float, count: int) -> None:
    """At most 5 % of a thousand A/A comparisons with a long upper tail, on a machine that wanders by 1.5 %."""
    draw = random.Random(f"{deviation} {count}")  # noqa: S311 - a simulation

    def run() -> list[float]:
        wander = draw.gauss(1.0, 0.015)
        return [wander * (1 + abs(draw.gauss(0, deviation))) for _ in range(count)]

    claims = sum(compare_runs(run(), run()).claimed for _ in range(1000))
    assert claims <= 50


def test_what_is_faster_is_found() -> None:
    """15 % on a machine with 1 % of noise, in every trial and in the right direction."""
    draw = random.Random(1)  # noqa: S311 - a simulation
    for _ in range(100):
        slow = [1.15 * draw.gauss(100, 1) for _ in range(5)]
        fast = [draw.gauss(100, 1) for _ in range(5)]
        told = compare_runs(slow, fast)
        assert told.claimed
        assert told.speed_ratio > 1.05


def test_a_small_change_or_few_repetitions_claim_nothing() -> None:
    """However clear the order is: 4 % is what a machine wanders, and three against three can happen by chance."""
    small = compare_runs([100, 101, 102, 103, 104, 105], [99, 98, 98, 99, 98, 99.9])
    assert small.probability <= LEVEL
    assert small.least >= LEAST_CHANGE
    assert not small.claimed
    few = compare_runs([100, 101, 102], [200, 201, 202])
    assert not few.claimed
    assert "too few" in few.why_not


def test_only_tests_of_the_same_length_are_compared_and_a_disturbed_run_claims_nothing() -> None:
    """A shortened test is another test; a verdict of the machine stands above the ranks."""
    slow, fast = (200, 201, 202, 203, 204), (100, 101, 102, 103, 104)
    (told,) = differences(measurement(slow), measurement(fast, fast))
    assert told.claimed
    assert told.test == Timed(kind="generate", tokens=8)
    assert differences(measurement(slow), measurement(fast, tokens=4)) == ()
    (other,) = differences(measurement(slow), measurement(fast, disturbed=("battery",)))
    assert not other.claimed
    assert other.why_not == "a run was disturbed"


def paced(*generate_ns: float, prompt_ns: float = 5.0) -> Reference:
    """A reference whose answers took so long, and whose prompts never change."""
    return Reference(generate_ns=generate_ns, prompt_ns=(prompt_ns,) * len(generate_ns))


def test_a_difference_that_the_machine_itself_made_is_not_claimed() -> None:
    """A third slower in every repetition, and so is the reference: nothing is said of what was timed."""
    slow, fast = (300, 301, 302, 303, 304), (200, 201, 202, 203, 204)
    before, after = paced(30, 30, 30, 30, 30), paced(20, 20, 20, 20, 20)
    (alone,) = differences(measurement(slow), measurement(fast))
    (beside,) = differences(measurement(slow, reference=before), measurement(fast, reference=after))
    (steady,) = differences(measurement(slow, reference=before), measurement(fast, reference=before))
    assert alone.claimed
    assert steady.claimed
    assert not beside.claimed
    assert "the machine itself changed by 50%" in beside.why_not


def test_on_a_machine_whose_runs_scatter_more_is_needed_for_a_claim() -> None:
    """As much as single runs of the reference differ by; a run without a reference is judged by its own times."""
    slow, fast = (220, 221, 222, 223, 224), (200, 201, 202, 203, 204)
    wild = paced(20, 24, 16, 22, 18)
    (calm,) = differences(measurement(slow), measurement(fast))
    (told,) = differences(measurement(slow, reference=wild), measurement(fast, reference=wild))
    assert calm.claimed
    assert told.least == pytest.approx(machine_scatter(wild))
    assert not told.claimed


def test_a_test_moves_with_the_part_of_the_reference_that_does_the_same_work() -> None:
    """Answers with answers, prompts with prompts, a mixed test with whichever moved further."""
    before, after = paced(20, 20), paced(30, 30, prompt_ns=6.0)
    answer, prompt, mixed = (Timed(kind=kind, tokens=8, prompt_tokens=4) for kind in ("generate", "prompt", "mixed"))
    assert machine_moved(before, after, answer) == machine_moved(before, after, mixed) == pytest.approx(math.log(1.5))
    assert machine_moved(after, before, prompt) == pytest.approx(math.log(1.2))
    assert machine_moved(None, after, answer) == 0
