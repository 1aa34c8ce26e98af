"""Between two depths the time of a token grows evenly; at a known depth the speed is the known one."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from planner.render.report.charts.depth import at_depths, between_depths, known_depths

SPEEDS = st.floats(0.1, 1e4)


@given(st.lists(st.tuples(st.integers(1, 10_000), SPEEDS), min_size=1, max_size=4))
def test_known_depths_keep_their_speeds(steps):
    """Whatever is drawn between them."""
    depths = [sum(step for step, _ in steps[:place]) for place in range(len(steps))]
    speeds = [speed for _, speed in steps]
    assert at_depths(depths, speeds, depths) == pytest.approx(speeds)
    between = between_depths(depths)
    assert between == sorted(between)
    assert set(depths) <= {round(depth, 6) for depth in between}


@given(SPEEDS, SPEEDS)
def test_half_way_is_the_mean_time(first, second):
    """The harmonic mean of the speeds, never above the middle of a straight line."""
    (middle,) = at_depths([0, 100], [first, second], [50.0])
    assert 1 / middle == pytest.approx((1 / first + 1 / second) / 2)
    assert middle <= (first + second) / 2 * (1 + 1e-9)


def test_a_depth_that_is_told_twice_is_one(sample):
    """A plan may name depth 0 twice; the depths come in order, absurd ones not at all."""
    speeds = sample.chosen.speed
    told = replace(speeds, generate_full=replace(speeds.generate, at_context_tokens=8192, tokens_per_s=8.0, low=7.0))
    assert [each.at_context_tokens for each in known_depths(told)] == [0, 4096, 8192]
    broken = replace(told, generate_at_depth=replace(speeds.generate, tokens_per_s=float("inf"), at_context_tokens=9))
    assert [each.at_context_tokens for each in known_depths(broken)] == [0, 8192]
