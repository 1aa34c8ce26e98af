"""Costs of one machine, engine build and setting: what is kept of a calibration, and times predicted from it.

The mistake it prevents is a number without its doubt: each prediction carries the doubt of every cost it used, so it
widens with the distance from what was timed, and beyond a limit there is no prediction at all.
"""

import math
from collections.abc import Mapping
from typing import NamedTuple

from planner.estimate.costs_attention import Near
from planner.estimate.costs_priors import guess
from planner.types import Report

__all__ = ["CostTable", "Timing", "Took"]

_QUANTILE_80 = 1.2816
_LARGEST_DOUBT = 0.5
"""Half of an interval may be this share of the prediction; beyond it nothing is said."""


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
        unknown = {name: amount for name, amount in amounts.items() if name not in places}
        costs = dict(zip(self.names, self.costs, strict=True)) if unknown else {}
        for name, amount in unknown.items():
            supposed = guess(name, self.factors, costs)
            middle += supposed.cost_ns * amount
            variance += (supposed.cost_ns * amount * supposed.doubt) ** 2
        if middle <= 0:
            return None
        doubt = math.sqrt(max(variance, 0.0) / middle**2 + self.model_doubt**2)
        if _QUANTILE_80 * doubt > _LARGEST_DOUBT:
            return None
        # A factor as likely too small as too large: the interval of a time is not symmetric when it is wide.
        factor = math.exp(_QUANTILE_80 * doubt)
        return Took(middle, middle / factor, middle * factor)
