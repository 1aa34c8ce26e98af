"""Laws of how a time budget is spent."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner.measure.budget import EFFORTS, TokenCost, allot
from planner.types.measurement import Test as Timed

TESTS = (
    Timed(kind="prompt", tokens=512),
    Timed(kind="generate", tokens=128),
    Timed(kind="generate", tokens=128, depth=4096),
)
per_token = st.tuples(*[st.floats(min_value=1e-7, max_value=5.0)] * 3)
budgets = st.floats(min_value=0.5, max_value=600)


def costs_of(seconds: tuple[float, ...]) -> list[TokenCost]:
    """What a pilot would have said."""
    return [TokenCost(test, each, 0.01) for test, each in zip(TESTS, seconds, strict=True)]


@given(per_token, budgets, st.sampled_from(["quick", "full"]))
def test_never_more_tokens_than_the_test_has_nor_fewer_than_make_a_test(
    seconds: tuple[float, ...], budget_s: float, effort: str
) -> None:
    """Tokens stay between the minimum and the test's own number, repetitions between their limits."""
    limits = EFFORTS[effort]
    found = allot(costs_of(seconds), budget_s, limits)
    for tokens, test in zip(found.tokens, TESTS, strict=True):
        fewest = limits.prompt_tokens if test.kind == "prompt" else limits.generate_tokens
        assert min(fewest, test.tokens) <= tokens <= test.tokens
    assert limits.at_least <= found.repetitions <= limits.repetitions


@given(per_token, budgets)
def test_the_budget_is_kept_unless_the_minimum_exceeds_it(seconds: tuple[float, ...], budget_s: float) -> None:
    """Longer than the budget only when the fewest tokens and repetitions already are."""
    limits = EFFORTS["full"]
    found = allot(costs_of(seconds), budget_s, limits)
    least = limits.at_least * sum(
        0.01 + each * (limits.prompt_tokens if test.kind == "prompt" else limits.generate_tokens)
        for each, test in zip(seconds, TESTS, strict=True)
    )
    # A test that needs its minimum may push the others over their share by as much.
    assert found.total_s <= max(budget_s, 0) + least + 1e-6


def test_a_fast_machine_runs_the_whole_tests_five_times() -> None:
    """Nothing is shortened when there is time."""
    found = allot(costs_of((0.001, 0.01, 0.012)), 60.0, EFFORTS["full"])
    assert (found.tokens, found.repetitions) == ((512, 128, 128), 5)


@given(per_token, budgets)
def test_more_time_never_means_less_timing(seconds: tuple[float, ...], budget_s: float) -> None:
    """Repetitions do not fall with a larger budget, nor do tokens at equal repetitions."""
    less, more = (allot(costs_of(seconds), budget, EFFORTS["full"]) for budget in (budget_s, 2 * budget_s))
    assert more.repetitions >= less.repetitions
    if more.repetitions == less.repetitions:
        assert all(a <= b for a, b in zip(less.tokens, more.tokens, strict=True))


def test_what_a_fast_test_leaves_goes_to_the_slow_ones() -> None:
    """A prompt that costs nothing gives its third of the time to the two others."""
    found = allot(costs_of((1e-6, 0.1, 0.1)), 50.0, EFFORTS["full"])
    assert found.tokens[0] == 512
    assert found.tokens[1] == pytest.approx(50 / 5 / 2 / 0.1, abs=1)
