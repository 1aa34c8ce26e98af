"""The usual pace of a machine: one bad occasion among several changes nothing; the unit is the occasion asked for."""

from hypothesis import given
from hypothesis import strategies as st

from planner.measure.pace import AS_IT_WAS, pace, usual_pace
from planner.types.measurement import Reference

times = st.lists(st.floats(1.0, 1e9), min_size=1, max_size=9).map(tuple)
references = st.builds(Reference, generate_ns=times, prompt_ns=times)


@given(references)
def test_without_other_occasions_or_without_a_reference_the_pace_is_that_of_the_calibration(own):
    """Nothing is known, nothing changes."""
    assert usual_pace(own, ()) == usual_pace(None, (own,)) == AS_IT_WAS


@given(references, references)
def test_two_paces_are_each_others_inverse(one, other):
    """How much longer it takes there than here is one over how much longer here than there."""
    for there, back in zip(pace(one, other), pace(other, one), strict=True):
        assert abs(there * back - 1) < 1e-9


@given(references, st.floats(1.0, 100.0), st.integers(2, 9))
def test_one_slow_occasion_among_many_is_not_the_usual_one(own, slower, others):
    """The median does not follow a single hour, not even the one of the calibration itself."""
    slow = Reference(generate_ns=own.generate_ns, prompt_ns=tuple(slower * each for each in own.prompt_ns))
    assert usual_pace(own, (own,) * others + (slow,)).prompt == 1.0
    assert usual_pace(slow, (own,) * others).prompt == pace(own, slow).prompt <= 1.0


@given(references, st.floats(1.0, 100.0))
def test_models_follow_the_reference_in_part(own, slower):
    """Slower than the calibration says, but less than the reference became, and answers less than prompts."""
    steady = Reference(generate_ns=own.generate_ns[:1], prompt_ns=own.prompt_ns[:1])
    slow = Reference(generate_ns=(slower * steady.generate_ns[0],), prompt_ns=(slower * steady.prompt_ns[0],))
    assert pace(steady, steady) == AS_IT_WAS
    then = pace(slow, steady)
    assert 1.0 <= then.generate <= then.prompt * (1 + 1e-9) <= slower * (1 + 1e-9)
    assert usual_pace(steady, (steady, steady, slow)) == AS_IT_WAS
