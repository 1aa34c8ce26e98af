"""Says whether two runs differ in speed, or whether chance and the machine explain what is between them.

A difference is claimed only where three things hold, so that two runs of the same thing seldom differ. Both runs are
valid. An exact test of ranks (Mann and Whitney, Ann. Math. Stat. 18, 1947, with ties shared) gives at most 1 %: with
five repetitions each that is "every one of these is faster than every one of those", and fewer than five can claim
nothing. And the medians lie further apart than a computer wanders between two runs: 5 %, or the spread of both runs
where that is more, and by as much more as the machine itself moved in between, told by the reference that both runs
timed beside their tests. The mistake it prevents is a benchmark that finds a winner in its own noise. Pure.
"""

import math
from collections import Counter
from collections.abc import Sequence
from statistics import NormalDist, median
from typing import NamedTuple

from planner.measure.statistics import median_absolute_deviation, robust_deviation
from planner.types.measurement import Measurement, Reference, Test

__all__ = [
    "LEAST_CHANGE",
    "LEVEL",
    "Difference",
    "compare_runs",
    "differences",
    "machine_moved",
    "machine_scatter",
    "rank_sum_probability",
]

LEVEL = 0.01
"""Probability of so different ranks by chance up to which a difference may be claimed."""

LEAST_CHANGE = 0.05
"""Relative change of the median below which nothing is claimed.

A machine that wanders by 1.5 % (standard deviation) from run to run then claims a difference in 3 % of A/A
comparisons, with 3 % as the limit it would be 16 %; a change of 10 % is still found in 97 % (simulated;
``bench/aa.py`` measures it)."""

_SCATTERS = 1.0
"""Standard deviations of a single run of the reference by which two medians may differ."""
_MOST_EXACT = 24


class Difference(NamedTuple):
    """``speed_ratio`` is the second run's speed as a multiple of the first's, ``least`` the change that would count.

    ``probability`` is that of the ranks by chance; ``claimed`` whether the runs differ. ``why_not`` says in words why
    nothing could be claimed, and is empty where the runs simply agree.
    """

    test: Test | None
    speed_ratio: float
    probability: float
    least: float
    claimed: bool
    why_not: str = ""


def rank_sum_probability(first: Sequence[float], second: Sequence[float]) -> float:
    """Two-sided probability of ranks at least so far apart if both come from one distribution; exact up to 24 values.

    Ties share their ranks. Beyond that the normal approximation without correction for ties, which is the safe side.
    """
    pooled = sorted([*first, *second])
    places: dict[float, list[int]] = {}
    for place, value in enumerate(pooled, 1):
        places.setdefault(value, []).append(place)
    # Doubled, so that shared ranks are whole numbers.
    doubled = {value: min(at) + max(at) for value, at in places.items()}
    size, total = len(first), len(pooled)
    seen = sum(doubled[value] for value in first)
    expected = size * (total + 1)
    if total > _MOST_EXACT:
        deviation = 2 * math.sqrt(size * len(second) * (total + 1) / 12)
        return 2 * (1 - NormalDist().cdf(abs(seen - expected) / deviation))
    sums = _sums([doubled[value] for value in pooled], size)
    extreme = sum(count for rank, count in sums.items() if abs(rank - expected) >= abs(seen - expected))
    return extreme / math.comb(total, size)


def _sums(ranks: Sequence[int], size: int) -> Counter[int]:
    """How many choices of ``size`` ranks have each sum."""
    ways: list[Counter[int]] = [Counter() for _ in range(size + 1)]
    ways[0][0] = 1
    for rank in ranks:
        for chosen in range(size, 0, -1):
            for so_far, count in ways[chosen - 1].items():
                ways[chosen][so_far + rank] += count
    return ways[size]


def machine_moved(first: Reference | None, second: Reference | None, test: Test) -> float:
    """How far the machine itself moved between two runs of ``test``: the logarithm of its change in speed, 0 or more.

    A mixed test moves with the kind that moved further. Where one of the runs has no reference nothing is known: 0.
    """
    if first is None or second is None:
        return 0.0
    pairs = []
    if test.kind != "prompt":
        pairs.append((first.generate_ns, second.generate_ns))
    if test.kind != "generate":
        pairs.append((first.prompt_ns, second.prompt_ns))
    return max(abs(math.log(median(before) / median(after))) for before, after in pairs)


def machine_scatter(reference: Reference | None) -> float:
    """Relative scatter of single runs of the reference, the larger of its two kinds; 0 where there is none."""
    if reference is None:
        return 0.0
    return max(robust_deviation(each) / median(each) for each in (reference.generate_ns, reference.prompt_ns))


def compare_runs(
    first_ns: Sequence[float],
    second_ns: Sequence[float],
    *,
    test: Test | None = None,
    moved: float = 0.0,
    scatter: float = 0.0,
) -> Difference:
    """Whether the times of two runs of as much work differ (see the module).

    ``moved`` is by how much the machine itself changed in between (a logarithm), ``scatter`` the relative deviation of
    single runs of one thing on it.
    """
    before, after = median(first_ns), median(second_ns)
    wander = [median_absolute_deviation(times) / median(times) for times in (first_ns, second_ns)]
    least = max(LEAST_CHANGE, sum(wander), _SCATTERS * scatter)
    probability = rank_sum_probability(first_ns, second_ns)
    change = abs(math.log(before / after))
    apart = change > math.log1p(least) + moved
    possible = 2 / math.comb(len(first_ns) + len(second_ns), len(first_ns)) <= LEVEL
    return Difference(
        test=test,
        speed_ratio=before / after,
        probability=probability,
        least=least,
        claimed=apart and probability <= LEVEL,
        why_not=_why_not(possible=possible, moved=moved if not apart and change > math.log1p(least) else 0.0),
    )


def _why_not(*, possible: bool, moved: float) -> str:
    if not possible:
        return "too few repetitions to tell"
    return f"the machine itself changed by {math.expm1(moved):.0%} between the runs" if moved else ""


def differences(first: Measurement, second: Measurement) -> tuple[Difference, ...]:
    """For each test that both runs timed at the same length: whether it differs. A disturbed run claims nothing."""
    disturbed = "a run was disturbed" if first.conditions.disturbed or second.conditions.disturbed else ""
    scatter = max(machine_scatter(first.reference), machine_scatter(second.reference))
    known = {(result.test, result.tokens_timed): result for result in first.results}
    found: list[Difference] = []
    for result in second.results:
        before = known.get((result.test, result.tokens_timed))
        if before is None:
            continue
        told = compare_runs(
            before.samples_ns,
            result.samples_ns,
            test=result.test,
            moved=machine_moved(first.reference, second.reference, result.test),
            scatter=scatter,
        )
        found.append(told._replace(claimed=False, why_not=disturbed) if disturbed else told)
    return tuple(found)
