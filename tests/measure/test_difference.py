"""When two runs may be said to differ: seldom by chance, always when they do, never when something was wrong."""

import itertools
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner.measure.difference import LEAST_CHANGE, LEVEL, compare_runs, differences, rank_sum_probability
from planner.types.measurement import Conditions, Measurement, Spread
from planner.types.measurement import Test as Timed
from planner.types.measurement import TestResult as Result
from planner.types.settings import Settings

TIMES = st.lists(st.integers(min_value=1, max_value=12), min_size=1, max_size=5)


def measurement(*times: tuple[int, ...], tokens: int = 8, disturbed: tuple[str, ...] = ()) -> Measurement:
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
