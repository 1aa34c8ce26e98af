"""From timings to a table of costs: what was timed is solved for, and says where what was not timed probably lies.

The mistake it prevents is a table that trusts itself: a sum of kinds of work is off by more than its parts are, by the
machine's own changes from one minute to the next and by what no kind of work names, and every prediction carries that.
"""

import math
from collections.abc import Iterable, Sequence
from statistics import median

from planner.estimate.costs_attention import NEAR_UNKNOWN, Near
from planner.estimate.costs_fit import Fit, Sample, fit
from planner.estimate.costs_priors import beside, counterpart, guess, prior, relatives
from planner.estimate.costs_table import CostTable, Timing

__all__ = ["MODEL_DOUBT", "learn_costs"]

_SUM_DOUBT = 0.03
"""Relative error of a sample as a sum of kinds of work, beside what its repetitions scatter."""
MODEL_DOUBT = 0.07
"""The same for a whole model that is timed another time."""
_LATER = 0.5
"""What of the scatter of single runs a prediction for another quarter of an hour is off by. With both constants four in
five results lie in their interval (a record of five calibrations and 22 models, on which the first was chosen: 84 % at
the pace of the calibration, and nearly as many at the paces that were known before each was timed)."""
_LEAST_RELATIVES = 3
_LEAST_BESIDE = 0.4
"""Experts that seem to take less of their counterparts' time, or more than the inverse, were not told apart."""


def learn_costs(
    timings: Iterable[Timing],
    *,
    near: Near = NEAR_UNKNOWN,
    model_doubt: float = MODEL_DOUBT,
    unsteadiness: float = 0.0,
) -> CostTable:
    """The costs that explain ``timings``, whose amounts were counted with ``near``.

    ``unsteadiness`` is the relative scatter of single runs of one and the same thing on this machine. Solved twice:
    what the first round finds about the kinds that were timed says where the others probably lie.
    """
    kept = tuple(timings)
    samples = [Sample(each.amounts, each.took_ns, math.hypot(each.doubt, _SUM_DOUBT)) for each in kept]
    names = {name for sample in samples for name in sample.amounts}
    first = fit(samples, {name: prior(name) for name in names})
    factors = _factors(first)
    costs = dict(zip(first.names, first.costs, strict=True))
    found = fit(samples, {name: guess(name, factors, costs) for name in names})
    return CostTable(
        names=found.names,
        costs=tuple(_rounded(each) for each in found.costs),
        covariance=tuple(tuple(_rounded(each) for each in row) for row in found.covariance),
        factors=factors,
        model_doubt=max(math.hypot(model_doubt, _LATER * unsteadiness), _scatter(found.residuals)),
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
    kept = {group: median(each) for group, each in ratios.items() if len(each) >= _LEAST_RELATIVES}
    return kept | {group: median(each) for group, each in _beside(found).items()}


def _beside(found: Fit) -> dict[str, list[float]]:
    """By group of experts: how many times their counterparts those that were timed take."""
    costs = dict(zip(found.names, found.costs, strict=True))
    ratios: dict[str, list[float]] = {}
    for name, cost in costs.items():
        alike = costs.get(counterpart(name) or "", 0.0)
        if alike > 0 and cost > 0:
            for group in beside(name):
                ratios.setdefault(group, []).append(min(max(cost / alike, _LEAST_BESIDE), 1 / _LEAST_BESIDE))
    return ratios


def _scatter(residuals: Sequence[float]) -> float:
    """Robust standard deviation of relative residuals."""
    return 1.4826 * median(abs(each) for each in residuals) if residuals else 0.0


def _rounded(value: float) -> float:
    return float(f"{value:.6g}")
