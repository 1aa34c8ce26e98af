"""The order of candidates; the mistake it prevents is a ranking that depends on who was compared first.

The order is total and depends on nothing but the candidates and the goal. Measured speeds enter through the estimator:
whoever measures evaluates again, and the search puts everything in its new place.
"""

from collections.abc import Iterable

from planner.choose import policy
from planner.choose.evaluation import Evaluation
from planner.types.plan import Candidate, Goal, Verdict

__all__ = ["order_key", "rank", "runners_up", "utility"]

_VERDICTS: dict[Verdict, int] = {"fits": 0, "tight": 0, "too-slow": 1, "too-big": 2, "unsupported": 3}

OrderKey = tuple[int, float, int, str, str, tuple[int, str, str, int, int]]


def utility(candidate: Candidate, goal: Goal) -> float:
    """The score times what the decode speed leaves of it: the number that orders candidates."""
    generate = candidate.speed.generate
    return candidate.score * policy.speed_factor(generate.tokens_per_s if generate else None, goal)


def order_key(candidate: Candidate, goal: Goal) -> OrderKey:
    """The sort key: what meets the goal first, then utility, then fewer bytes, then names and settings."""
    settings = candidate.settings
    return (
        _VERDICTS[candidate.verdict],
        -utility(candidate, goal),
        sum(row.total_bytes for row in candidate.memory),
        candidate.model,
        candidate.quantization,
        (
            -settings.context_tokens,
            settings.cache_type_k,
            settings.load_mode,
            settings.cpu_moe_layers,
            -settings.gpu_layers,
        ),
    )


def rank(candidates: Iterable[Candidate], goal: Goal) -> tuple[Candidate, ...]:
    """Candidates in order, the best first; what does not meet the goal comes last, the least bad first."""
    return tuple(sorted(candidates, key=lambda candidate: order_key(candidate, goal)))


def runners_up(evaluation: Evaluation, most: int = 5) -> tuple[Candidate, ...]:
    """The alternatives worth showing: the best other models, then distinct trade-offs of the winner's own model."""
    others = evaluation.ranked[1 : 1 + most]
    room = max(0, most - len(others))
    return (*others, *evaluation.trade_offs[: max(room, 2)])[: most + 2]
