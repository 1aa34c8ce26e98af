"""Costs of kinds of work from timed samples: least squares on relative errors around prior costs, none negative. Pure.

A few dozen samples cannot tell two hundred costs apart, and need not: where they are silent a cost stays at what is
known of kernels like it, with the doubt that belongs to such a guess, and whatever is predicted with it carries that
doubt along (the posterior covariance of a linear model with Gaussian priors). The mistakes it prevents: a cost that a
single noisy sample makes negative or huge, and an interval that is as narrow far from the samples as beside them.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from planner.estimate.costs_priors import Prior

__all__ = ["Fit", "Sample", "fit"]

_Floats = NDArray[np.float64]

_ROUNDS = 2
_CLAMPS = 12
_HUBER = 1.5  # standard deviations beyond which a sample counts less
_AT_ZERO = 1e6  # the precision that holds a cost at zero once it wanted to be negative


class Sample(NamedTuple):
    """One timing: the amounts of work, what it took in nanoseconds, and its relative standard error."""

    amounts: Mapping[str, float]
    took_ns: float
    doubt: float


class Fit(NamedTuple):
    """Costs in nanoseconds for the kinds that samples contain, their covariance, and relative residuals by sample."""

    names: tuple[str, ...]
    costs: tuple[float, ...]
    covariance: tuple[tuple[float, ...], ...]
    residuals: tuple[float, ...]


def fit(samples: Sequence[Sample], priors: Mapping[str, Prior]) -> Fit:
    """The costs that explain ``samples`` best; every kind in them needs a prior with a positive cost.

    Minimises Σ((A·x − t) / (doubt·t))² + Σ((x − prior) / (doubt·prior))² with x ≥ 0, samples far off counting less
    (Huber's weights, a few rounds).
    """
    names = tuple(sorted({name for sample in samples for name in sample.amounts}))
    places = {name: place for place, name in enumerate(names)}
    scale = np.array([priors[name].cost_ns for name in names])
    precision = np.array([priors[name].doubt ** -2 for name in names])
    # In units of the prior cost every unknown is about one, which keeps the system well conditioned.
    rows = np.zeros((len(samples), len(names)))
    for row, sample in zip(rows, samples, strict=True):
        for name, amount in sample.amounts.items():
            row[places[name]] = amount / sample.took_ns
    rows *= scale
    doubts = np.array([sample.doubt for sample in samples])
    weights = doubts**-2
    units, inverse = _bounded(rows, weights, precision)
    for _ in range(_ROUNDS):
        off = np.abs(rows @ units - 1)
        robust = weights * np.minimum(1.0, _HUBER * doubts / np.maximum(off, 1e-12))
        units, inverse = _bounded(rows, robust, precision)
    return Fit(
        names=names,
        costs=tuple((units * scale).tolist()),
        covariance=tuple(map(tuple, (inverse * np.outer(scale, scale)).tolist())),
        residuals=tuple((rows @ units - 1).tolist()),
    )


def _bounded(rows: _Floats, weights: _Floats, precision: _Floats) -> tuple[_Floats, _Floats]:
    """The minimum with no unknown below zero, and the inverse of the system: those that want to go below stay at 0."""
    matrix = np.diag(precision) + rows.T @ (weights[:, None] * rows)
    right = precision + rows.T @ weights  # the prior of every unknown is one
    held = np.zeros(len(precision), dtype=bool)
    inverse = units = np.zeros(0)
    for _ in range(_CLAMPS):
        inverse = np.linalg.inv(matrix + np.diag(np.where(held, _AT_ZERO * precision, 0.0)))
        units = inverse @ right
        below = (units < 0) & ~held
        if not below.any():
            break
        held |= below
    return np.maximum(units, 0.0), inverse
