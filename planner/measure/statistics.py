"""Says what a handful of repetitions is worth: median, spread, drift, and whether one setting is really faster.

Timings of a busy computer have a long upper tail: one repetition that shared its core with a cron job is no sample of
the machine. So everything here is of ranks and medians, never of means and variances; the mistake it prevents is a
"± standard deviation" of five numbers that one bad one rules. Pure: numbers in, numbers out.
"""

import itertools
import math
from collections.abc import Sequence
from statistics import NormalDist, median

from planner.types.measurement import Spread

__all__ = [
    "MAX_RELATIVE_MAD",
    "MAX_SLOPE",
    "MAX_WARM_UPS",
    "NORMAL_MAD",
    "disturbances",
    "drifts",
    "is_warm",
    "median_absolute_deviation",
    "median_error",
    "noise_note",
    "outlier_note",
    "quantile",
    "rates",
    "relative_mad",
    "robust_deviation",
    "spread",
    "student_quantile",
    "theil_sen_slope",
]

NOISY_MAD = 0.05
"""From this share of the median on a run is called noisy; pyperf warns at a deviation of 10 % of the mean, and
1.4826 × 5 % is 7.4 % (https://pyperf.readthedocs.io/en/latest/run_benchmark.html). Its interval says how far to trust
it: virtual machines reach 5 to 15 % with nothing else running."""

MAX_RELATIVE_MAD = 0.20
"""A run whose MAD exceeds this share of its median is not believed at all."""

MAX_SLOPE = 0.05
"""Drift for each repetition, as a share of the median, from which on a run counts as heating up or throttled."""

MAX_WARM_UPS = 6

NORMAL_MAD = 1.4826
"""Standard deviation ÷ MAD of normal data: 1 ÷ Φ⁻¹(¾) (Rousseeuw and Croux, JASA 88, 1993, p. 1273)."""

_WARM_RATIO = 0.05
# What the MAD of so few normal values must be multiplied with to be unbiased (Croux and Rousseeuw, COMPSTAT 1992).
_MAD_FACTORS = {2: 1.196, 3: 1.495, 4: 1.363, 5: 1.206, 6: 1.200, 7: 1.140, 8: 1.129, 9: 1.107}
_FEW_SAMPLES = 9


def median_absolute_deviation(values: Sequence[float]) -> float:
    """The median distance from the median, in the unit of ``values``."""
    middle = median(values)
    return median(abs(value - middle) for value in values)


def relative_mad(values: Sequence[float]) -> float:
    """MAD ÷ median of positive values; 0 for one sample, which says nothing about spread."""
    return median_absolute_deviation(values) / median(values)


def quantile(values: Sequence[float], share: float) -> float:
    """The ``share`` quantile by linear interpolation between ranks (type 7 of Hyndman and Fan, 1996)."""
    ordered = sorted(values)
    place = share * (len(ordered) - 1)
    below = math.floor(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (place - below) * (ordered[above] - ordered[below])


def spread(values: Sequence[float]) -> Spread:
    """Median and spread of measured ``values``: minimum and maximum of up to nine, from ten on 10 % and 90 % quantiles.

    Of n exchangeable samples the next one falls between minimum and maximum with probability (n − 1) ÷ (n + 1):
    67 % for five, 80 % for nine. From ten on the quantiles keep it at 80 % instead of letting one outlier widen it.
    """
    middle = float(median(values))
    if len(values) <= _FEW_SAMPLES:
        low, high = min(values), max(values)
    else:
        low, high = quantile(values, 0.1), quantile(values, 0.9)
    return Spread(median=middle, low=float(low), high=float(high), relative_mad=relative_mad(values))


def rates(tokens: int, samples_ns: Sequence[int]) -> tuple[float, ...]:
    """Tokens per second of each repetition of ``tokens`` tokens."""
    return tuple(tokens * 1e9 / sample for sample in samples_ns)


def is_warm(samples: Sequence[float]) -> bool:
    """Whether warming up may end: the last two repetitions differ by less than 5 %, or six were spent.

    llama-bench warms up once; a case where four were needed stands in
    https://github.com/ggml-org/llama.cpp/issues/21282 (68 % deviation before, 0.6 % after).
    """
    if len(samples) >= MAX_WARM_UPS:
        return True
    if len(samples) < 2:
        return False
    before, last = samples[-2], samples[-1]
    return abs(last - before) < _WARM_RATIO * min(before, last)


def theil_sen_slope(values: Sequence[float]) -> float:
    """Change for each repetition as a share of the median: the median of all pairwise slopes (Sen, JASA 63, 1968).

    Zero for fewer than three values, of which no drift can be told.
    """
    if len(values) < 3:
        return 0.0
    slopes = [(values[j] - values[i]) / (j - i) for i, j in itertools.combinations(range(len(values)), 2)]
    return median(slopes) / median(values)


def drifts(values: Sequence[float]) -> bool:
    """Whether repetitions slow down or speed up steadily: slope above 5 % and a trend that chance seldom makes.

    The trend is Mann's test on ranks (Econometrica 13, 1945): nine pairs in ten must point the same way, so
    that three noisy samples in rising order are not yet "heating". Needs five values.
    """
    if len(values) < 5:
        return False
    slope = theil_sen_slope(values)
    signs = [math.copysign(1, b - a) for a, b in itertools.combinations(values, 2) if a != b]
    agreeing = sum(1 for sign in signs if sign == math.copysign(1, slope))
    return abs(slope) > MAX_SLOPE and agreeing >= 0.9 * len(signs)


def disturbances(samples_ns: Sequence[int]) -> tuple[str, ...]:
    """In words, why these repetitions of one test must not be used; empty when they may."""
    found: list[str] = []
    if len(samples_ns) >= 3 and relative_mad(samples_ns) > MAX_RELATIVE_MAD:
        mad = f"MAD {relative_mad(samples_ns):.0%} of the median, {MAX_RELATIVE_MAD:.0%} allowed"
        found.append(f"repetitions scatter: {mad}")
    if drifts(samples_ns):
        found.append(f"repetitions drift by {theil_sen_slope(samples_ns):+.0%} each (heat, or another load)")
    return tuple(found)


def noise_note(samples_ns: Sequence[int]) -> str | None:
    """A sentence about repetitions that scatter more than on a quiet machine, yet not too much to be used."""
    if len(samples_ns) < 3 or not NOISY_MAD < relative_mad(samples_ns) <= MAX_RELATIVE_MAD:
        return None
    return f"noisy: MAD {relative_mad(samples_ns):.0%} of the median"


def outlier_note(samples_ns: Sequence[int]) -> str | None:
    """A sentence about repetitions far outside the others, or ``None``; the median is not moved by them.

    Far means a modified z-score above 3.5 (Iglewicz and Hoaglin, How to Detect and Handle Outliers, 1993) and more
    than 10 % off, so that a very quiet machine does not report microseconds.
    """
    if len(samples_ns) < 5:
        return None
    middle = median(samples_ns)
    limit = max(3.5 * NORMAL_MAD * median_absolute_deviation(samples_ns), 0.1 * middle)
    far = [sample for sample in samples_ns if abs(sample - middle) > limit]
    if not far:
        return None
    worst = max(far, key=lambda sample: abs(sample - middle))
    return (
        f"{len(far)} of {len(samples_ns)} repetitions are outliers, the farthest {worst / middle:.2f} × the median time"
    )


def robust_deviation(values: Sequence[float]) -> float:
    """Standard deviation of nearly normal ``values`` from their MAD, unbiased for few of them; 0 for a single one."""
    count = len(values)
    if count < 2:
        return 0.0
    factor = _MAD_FACTORS.get(count, count / (count - 0.8))
    return NORMAL_MAD * factor * median_absolute_deviation(values)


def median_error(deviation: float, count: int) -> float:
    """Standard error of the median of ``count`` normal values: √(π/2) · σ ÷ √n (Kendall and Stuart, vol. 1).

    Exact for many, up to 8 % too wide for three to ten, which is the safe side.
    """
    return math.sqrt(math.pi / 2) * deviation / math.sqrt(count)


def student_quantile(share: float, freedom: int) -> float:
    """The ``share`` quantile of Student's t with ``freedom`` degrees (Abramowitz and Stegun 26.7.5, three terms).

    Within 1 % for 80 % intervals from three degrees on.
    """
    z = NormalDist().inv_cdf(share)
    first = (z**3 + z) / 4
    second = (5 * z**5 + 16 * z**3 + 3 * z) / 96
    third = (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384
    return z + first / freedom + second / freedom**2 + third / freedom**3
