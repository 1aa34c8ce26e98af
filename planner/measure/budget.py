"""Spends a time budget: how many tokens and repetitions each test gets, from what a pilot says a token costs. Pure.

The mistake it prevents is the fixed suite: pp512 five times takes a second on one machine and ten minutes on another.
A shortened test says how many tokens it really timed; what it never does is drop below three repetitions.
"""

from collections.abc import Sequence
from typing import NamedTuple

from planner.measure.store import Effort
from planner.types.measurement import Test

__all__ = ["EFFORTS", "Allotment", "Effort", "Limits", "TokenCost", "allot"]


class Limits(NamedTuple):
    """What an effort asks for: repetitions wanted and at least, and the fewest tokens that still are a test."""

    repetitions: int
    at_least: int
    most: int
    generate_tokens: int
    prompt_tokens: int


EFFORTS: dict[Effort, Limits] = {
    "full": Limits(repetitions=5, at_least=3, most=9, generate_tokens=8, prompt_tokens=64),
    "quick": Limits(repetitions=3, at_least=3, most=5, generate_tokens=4, prompt_tokens=32),
}


class TokenCost(NamedTuple):
    """What the pilot learnt of one test, summed over the slices it runs on: seconds a token, and around each run."""

    test: Test
    per_token_s: float
    around_s: float = 0.0


class Allotment(NamedTuple):
    """Tokens of each test, in order, repetitions of all, and how long that will take."""

    tokens: tuple[int, ...]
    repetitions: int
    total_s: float


def allot(costs: Sequence[TokenCost], budget_s: float, limits: Limits) -> Allotment:
    """The most tokens and repetitions for ``budget_s``; the minimum of both even when that takes longer.

    Repetitions come first (a spread needs them), then tokens: what a fast test leaves of its share goes to the slow.
    """
    least = [min(cost.test.tokens, _fewest(cost.test, limits)) for cost in costs]
    round_s = sum(cost.around_s + tokens * cost.per_token_s for cost, tokens in zip(costs, least, strict=True))
    repetitions = limits.repetitions
    while repetitions > limits.at_least and repetitions * round_s > budget_s:
        repetitions -= 1
    left_s = budget_s / repetitions - sum(cost.around_s for cost in costs)
    tokens = list(least)
    # Cheapest whole test first: an equal share of what is left is then never too much for those before.
    order = sorted(range(len(costs)), key=lambda at: costs[at].test.tokens * costs[at].per_token_s)
    for place, at in enumerate(order):
        share_s = left_s / (len(order) - place)
        affordable = int(share_s / costs[at].per_token_s) if costs[at].per_token_s > 0 else costs[at].test.tokens
        tokens[at] = max(least[at], min(costs[at].test.tokens, affordable))
        left_s -= tokens[at] * costs[at].per_token_s
    total_s = repetitions * sum(
        cost.around_s + count * cost.per_token_s for cost, count in zip(costs, tokens, strict=True)
    )
    return Allotment(tuple(tokens), repetitions, total_s)


def _fewest(test: Test, limits: Limits) -> int:
    if test.kind == "mixed":
        # Enough of a prompt for whole batches of a kernel, and enough of an answer to be one.
        written = test.tokens - test.prompt_tokens
        return max(limits.prompt_tokens, -(-limits.generate_tokens * test.tokens // written))
    return limits.generate_tokens if test.kind == "generate" else limits.prompt_tokens
