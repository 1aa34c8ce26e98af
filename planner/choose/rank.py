"""The order of candidates; the mistake it prevents is a ranking that depends on who was compared first.

The order is total and depends on nothing but the candidates and the goal. Measured speeds enter through the estimator:
whoever measures evaluates again, and the search puts everything in its new place.
"""

from collections.abc import Iterable

from planner.types.plan import Candidate, Verdict

__all__ = ["order_key", "pareto", "rank"]

_VERDICTS: dict[Verdict, int] = {"fits": 0, "tight": 0, "too-slow": 1, "too-big": 2, "unsupported": 3}

OrderKey = tuple[int, float, int, str, str, tuple[int, str, str, int, int]]


def order_key(candidate: Candidate) -> OrderKey:
    """The sort key: what meets the goal first, then the score, then fewer bytes, then names and settings."""
    settings = candidate.settings
    return (
        _VERDICTS[candidate.verdict],
        -candidate.score,
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


def rank(candidates: Iterable[Candidate]) -> tuple[Candidate, ...]:
    """Candidates in order, the best first; what does not meet the goal comes last, the least bad first."""
    return tuple(sorted(candidates, key=order_key))


def pareto(candidates: Iterable[Candidate], most: int, *, winner: Candidate) -> tuple[Candidate, ...]:
    """The winner, and what no other beats in index, speed and memory at once; the best index first, at most ``most``.

    The winner stays even where a near equal is a hair better in all three. Of more than ``most`` those go that differ
    least from their neighbour in index; the ends always stay.
    """
    pool = rank(candidates)
    front: list[Candidate] = [winner]
    for each in pool:
        mine = _merits(each)
        if not any(_beats(_merits(other), mine) for other in pool) and mine not in map(_merits, front):
            front.append(each)
    front.sort(key=lambda each: (-_merits(each)[0], order_key(each)))
    while len(front) > max(3, most):
        inner = [i for i in range(1, len(front) - 1) if front[i] is not winner]
        gaps = {i: _merits(front[i - 1])[0] - _merits(front[i])[0] for i in inner}
        del front[min(gaps, key=lambda i: (gaps[i], -i))]
    return tuple(front)


def _merits(candidate: Candidate) -> tuple[float, float, int]:
    """Index, speed, and memory as a number that is better when larger."""
    generate = candidate.speed.generate
    return (
        candidate.index.value if candidate.index is not None else 0.0,
        generate.tokens_per_s if generate is not None else 0.0,
        -sum(row.total_bytes for row in candidate.memory),
    )


def _beats(one: tuple[float, float, int], other: tuple[float, float, int]) -> bool:
    return one != other and all(mine >= theirs for mine, theirs in zip(one, other, strict=True))
