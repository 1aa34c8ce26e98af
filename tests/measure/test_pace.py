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
    assert abs(pace(one, other) * pace(other, one) - 1) < 1e-9


@given(references, st.floats(1.0, 100.0), st.integers(2, 9))
def test_one_slow_occasion_among_many_is_not_the_usual_one(own, slower, others):
    """The median does not follow a single hour, not even the one of the calibration itself."""
    slow = Reference(generate_ns=own.generate_ns, prompt_ns=tuple(slower * each for each in own.prompt_ns))
    assert usual_pace(own, (own,) * others + (slow,)) == 1.0
    assert usual_pace(slow, (own,) * others) == pace(own, slow) <= 1.0


@given(references, st.floats(1.0, 100.0), st.floats(1.0, 100.0))
def test_models_follow_the_reference_in_part_and_both_of_its_times(own, answers, prompts):
    """Slower where either is, slower still where both are, and less than the slower of them became."""
    steady = Reference(generate_ns=own.generate_ns[:1], prompt_ns=own.prompt_ns[:1])

    def then(answers: float, prompts: float) -> float:
        slow = Reference(generate_ns=(answers * steady.generate_ns[0],), prompt_ns=(prompts * steady.prompt_ns[0],))
        return pace(slow, steady)

    assert then(1.0, 1.0) == AS_IT_WAS
    assert 1 - 1e-9 <= max(then(answers, 1.0), then(1.0, prompts)) <= then(answers, prompts) * (1 + 1e-9)
    assert then(answers, prompts) <= max(answers, prompts) * (1 + 1e-9)
