"""Costs of one machine, engine build and setting: what is kept of a calibration, and times predicted from it.

The mistake it prevents is a number without its doubt: each prediction carries the doubt of every cost it used, so it
widens with the distance from what was timed, and beyond a limit there is no prediction at all.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from statistics import median
from typing import NamedTuple

from planner.estimate.costs import NEAR_UNKNOWN, Near
from planner.estimate.costs_fit import Fit, Prior, Sample, fit
from planner.estimate.costs_priors import prior, relatives
from planner.types import Report

__all__ = ["CostTable", "Timing", "Took", "learn_costs"]

_QUANTILE_80 = 1.2816
_LARGEST_DOUBT = 0.5
"""Half of an interval may be this share of the prediction; beyond it nothing is said."""
_MODEL_DOUBT = 0.03
"""Relative error of a sum of kinds of work itself, however well its parts are known."""
_LEAST_RELATIVES = 3


class Timing(Report, frozen=True, kw_only=True):
    """What was timed once: ``amounts`` of work took ``took_ns``, with a relative standard error of ``doubt``."""

    label: str
    amounts: dict[str, float]
    took_ns: float
    doubt: float


class Took(NamedTuple):
    """Predicted nanoseconds, and the 80 % interval around them."""

    middle_ns: float
    low_ns: float
    high_ns: float


class CostTable(Report, frozen=True, kw_only=True):
    """Costs in nanoseconds by kind of work, with their covariance where they were timed together.

    ``timings`` are what they rest on. ``factors`` say by group of relatives where kinds lie that nothing contained;
    ``near_bytes`` is the cache of each of the ``cores`` that compute.
    """

    names: tuple[str, ...]
    costs: tuple[float, ...]
    covariance: tuple[tuple[float, ...], ...]
    factors: dict[str, float]
    model_doubt: float
    timings: tuple[Timing, ...]
    near_bytes: int = 0
    cores: int = 1

    @property
    def near(self) -> Near:
        """The caches that amounts of work were counted with, and must be counted with."""
        return Near(self.near_bytes, self.cores)

    def took(self, amounts: Mapping[str, float]) -> Took | None:
        """How long this work takes; ``None`` where too little of it is known."""
        places = {name: place for place, name in enumerate(self.names)}
        known = [(places[name], amount) for name, amount in amounts.items() if name in places]
        middle = sum(self.costs[place] * amount for place, amount in known)
        variance = sum(a * b * self.covariance[i][j] for i, a in known for j, b in known)
        for name, amount in amounts.items():
            if name not in places:
                guess = _guess(name, self.factors)
                middle += guess.cost_ns * amount
                variance += (guess.cost_ns * amount * guess.doubt) ** 2
        if middle <= 0:
            return None
        doubt = math.sqrt(max(variance, 0.0) / middle**2 + self.model_doubt**2)
        if _QUANTILE_80 * doubt > _LARGEST_DOUBT:
            return None
        # A factor as likely too small as too large: the interval of a time is not symmetric when it is wide.
        factor = math.exp(_QUANTILE_80 * doubt)
        return Took(middle, middle / factor, middle * factor)


def learn_costs(timings: Iterable[Timing], *, near: Near = NEAR_UNKNOWN) -> CostTable:
    """The costs that explain ``timings``, whose amounts were counted with ``near``.

    Twice: what the first round finds about the kinds that were timed says where the others probably lie.
    """
    kept = tuple(timings)
    samples = [Sample(each.amounts, each.took_ns, math.hypot(each.doubt, _MODEL_DOUBT)) for each in kept]
    names = {name for sample in samples for name in sample.amounts}
    first = fit(samples, {name: prior(name) for name in names})
    factors = _factors(first)
    found = fit(samples, {name: _guess(name, factors) for name in names})
    return CostTable(
        names=found.names,
        costs=tuple(_rounded(each) for each in found.costs),
        covariance=tuple(tuple(_rounded(each) for each in row) for row in found.covariance),
        factors=factors,
        model_doubt=max(_MODEL_DOUBT, _scatter(found.residuals)),
        timings=kept,
        near_bytes=near.bytes_per_core,
        cores=near.cores,
    )


def _factors(found: Fit) -> dict[str, float]:
    """By group of relatives: how many times its prior cost a kind of work takes here, where enough were timed well."""
    ratios: dict[str, list[float]] = {}
    for place, name in enumerate(found.names):
        expected = prior(name)
        spread = math.sqrt(max(found.covariance[place][place], 0.0)) / expected.cost_ns
        if spread < expected.doubt / 2 and found.costs[place] > 0:
            for group in relatives(name):
                ratios.setdefault(group, []).append(found.costs[place] / expected.cost_ns)
    return {group: median(each) for group, each in ratios.items() if len(each) >= _LEAST_RELATIVES}


def _guess(name: str, factors: Mapping[str, float]) -> Prior:
    """The prior of a kind of work, moved to where its relatives lie on this machine."""
    expected = prior(name)
    for group in relatives(name):
        if group in factors:
            return Prior(expected.cost_ns * factors[group], expected.doubt * 0.6)
    return expected


def _scatter(residuals: Sequence[float]) -> float:
    """Robust standard deviation of relative residuals."""
    return 1.4826 * median(abs(each) for each in residuals) if residuals else 0.0


def _rounded(value: float) -> float:
    return float(f"{value:.6g}")
