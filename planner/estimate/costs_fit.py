"""Costs of kinds of work from timed samples: least squares on relative errors around prior costs, none negative. Pure.

A few dozen samples cannot tell two hundred costs apart, and need not: where they are silent a cost stays at what is
known of kernels like it, with the doubt that belongs to such a guess, and whatever is predicted with it carries that
doubt along (the posterior covariance of a linear model with Gaussian priors). The mistakes it prevents: a cost that a
single noisy sample makes negative or huge, and an interval that is as narrow far from the samples as beside them.
"""

from collections.abc import Mapping, Sequence
from operator import mul
from typing import NamedTuple

__all__ = ["Fit", "Prior", "Sample", "fit"]

_ROUNDS = 2
_CLAMPS = 12
_HUBER = 1.5  # standard deviations beyond which a sample counts less
_AT_ZERO = 1e6  # the precision that holds a cost at zero once it wanted to be negative


class Sample(NamedTuple):
    """One timing: the amounts of work, what it took in nanoseconds, and its relative standard error."""

    amounts: Mapping[str, float]
    took_ns: float
    doubt: float


class Prior(NamedTuple):
    """What a unit of a kind of work costs before anything is timed, in nanoseconds, and how far that may be off.

    ``doubt`` is a relative standard deviation; ``measured`` says that it rests on timings of this machine.
    """

    cost_ns: float
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
    scale = [priors[name].cost_ns for name in names]
    precision = [priors[name].doubt ** -2 for name in names]
    # In units of the prior cost every unknown is about one, which keeps the system well conditioned.
    rows = [
        {places[name]: amount * scale[places[name]] / sample.took_ns for name, amount in sample.amounts.items()}
        for sample in samples
    ]
    weights = [sample.doubt**-2 for sample in samples]
    units, inverse = _bounded(rows, weights, precision)
    for _ in range(_ROUNDS):
        found = [sum(value * units[place] for place, value in row.items()) - 1 for row in rows]
        robust = [
            weight * min(1.0, _HUBER * sample.doubt / abs(error)) if error else weight
            for weight, sample, error in zip((s.doubt**-2 for s in samples), samples, found, strict=True)
        ]
        units, inverse = _bounded(rows, robust, precision)
    residuals = tuple(sum(value * units[place] for place, value in row.items()) - 1 for row in rows)
    return Fit(
        names=names,
        costs=tuple(map(mul, units, scale)),
        covariance=tuple(
            tuple(value * scale[i] * scale[j] for j, value in enumerate(line)) for i, line in enumerate(inverse)
        ),
        residuals=residuals,
    )


def _bounded(
    rows: Sequence[Mapping[int, float]], weights: Sequence[float], precision: Sequence[float]
) -> tuple[list[float], list[list[float]]]:
    """The minimum with no unknown below zero, and the inverse of the system: those that want to go below stay at 0."""
    size = len(precision)
    matrix = [[0.0] * size for _ in range(size)]
    right = list(precision)  # the prior of every unknown is one
    for i in range(size):
        matrix[i][i] = precision[i]
    for row, weight in zip(rows, weights, strict=True):
        for i, a in row.items():
            right[i] += weight * a
            line = matrix[i]
            for j, b in row.items():
                line[j] += weight * a * b
    held: set[int] = set()
    for _ in range(_CLAMPS):
        inverse = _inverse(matrix)
        units = [sum(map(mul, line, right)) for line in inverse]
        below = {i for i, value in enumerate(units) if value < 0} - held
        if not below:
            break
        for i in below:
            matrix[i][i] += _AT_ZERO * precision[i]
        held |= below
    return [max(0.0, value) for value in units], inverse


def _inverse(matrix: Sequence[Sequence[float]]) -> list[list[float]]:
    """The inverse of a symmetric positive definite matrix, by its Cholesky factor."""
    size = len(matrix)
    factor: list[list[float]] = []
    for i in range(size):
        line: list[float] = []
        for j in range(i):
            line.append((matrix[i][j] - sum(map(mul, line, factor[j]))) / factor[j][j])
        line.append(max(matrix[i][i] - sum(map(mul, line, line)), 1e-12 * matrix[i][i]) ** 0.5)
        factor.append(line)
    # Rows of the factor's inverse, then the product of its transpose with it.
    columns: list[list[float]] = []
    for j in range(size):
        column = [0.0] * j + [1.0 / factor[j][j]]
        for i in range(j + 1, size):
            column.append(-sum(map(mul, factor[i][j:i], column[j:i])) / factor[i][i])
        columns.append(column)
    return [[sum(map(mul, columns[i][max(i, j) :], columns[j][max(i, j) :])) for j in range(size)] for i in range(size)]
