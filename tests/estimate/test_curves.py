"""Interpolation between known points, and the side on which the truth lies."""

from hypothesis import given
from hypothesis import strategies as st

from planner.estimate.curves import Curve

_POINTS = [256, 512, 1024, 2048, 4096, 8192]
_LINES = st.lists(st.tuples(st.floats(0, 1e9), st.floats(0, 1e6)), min_size=1, max_size=4)


@given(lines=_LINES, at=st.integers(256, 8192))
def test_a_chord_never_lies_below_the_largest_of_several_lines(lines, at):
    """The bound holds for every convex curve, and the likely value never exceeds the bound."""

    def truth(x):
        return max(a + b * x for a, b in lines)

    likely, bound = Curve(_POINTS, [truth(x) for x in _POINTS]).convex(at)
    assert bound >= truth(at) * (1 - 1e-9)
    assert likely <= bound


@given(one=st.tuples(st.floats(0, 1e9), st.floats(0, 1e6)), two=st.tuples(st.floats(0, 1e9), st.floats(0, 1e6)))
def test_one_bend_in_the_middle_is_found_exactly(one, two):
    """With one bend and straight neighbours the likely value is the truth."""
    points = [0, 100, 200, 300]

    def truth(x):
        return max(one[0] + one[1] * x, two[0] + two[1] * x)

    bend = (two[0] - one[0]) / (one[1] - two[1]) if one[1] != two[1] else 150
    if 100 <= bend <= 200:
        likely, _ = Curve(points, [truth(x) for x in points]).convex(150)
        assert abs(likely - truth(150)) <= 1e-6 * max(1.0, truth(150))


@given(window=st.integers(256, 8192), at=st.integers(256, 8192))
def test_a_window_that_is_full_is_never_told_as_less(window, at):
    """A concave curve with one bend lies at or below what is told."""
    told = Curve(_POINTS, [min(x, window) for x in _POINTS]).concave(at)
    assert told >= min(at, window) - 1e-6


@given(values=st.lists(st.floats(0, 1e9), min_size=6, max_size=6), at=st.integers(256, 8192))
def test_between_two_points_the_bound_is_no_less_than_what_was_told_before(values, at):
    """Packing may take less for a longer context and more again for one longer still."""
    if at not in _POINTS:
        _, bound = Curve(_POINTS, values).convex(at)
        assert bound >= max(value for point, value in zip(_POINTS, values, strict=True) if point < at)


def test_known_points_are_told_exactly():
    """No interpolation where there is an answer."""
    curve = Curve([1, 2, 3], [5.0, 1.0, 7.0])
    assert curve.convex(2) == (1.0, 1.0)
    assert curve.concave(3) == 7.0
