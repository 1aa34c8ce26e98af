"""What each of many things takes that were timed in turns, on a machine whose pace changes from moment to moment.

Runs that lie within seconds of one another are slow or fast together, whatever they are runs of: a neighbour on the
host, a clock, a page being moved. So the run of one thing tells something about the moment in which another one was
timed. The mistakes it prevents: a thing that was timed once, in a bad second, and is called slow for months; and a
doubt that counts three runs of one bad second as three.

The logarithm of a run is that of what the thing takes, plus the pace of the moment (a Gaussian process of mean zero
whose covariance falls with the time between two runs), plus what is the run's own. What things take is the best linear
unbiased estimate of that (generalised least squares; Rasmussen and Williams, Gaussian Processes for Machine Learning,
2006, section 2.7), with Huber's weights for runs that are far off. Pure: numbers in, numbers out.
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from planner.measure.statistics import NORMAL_MAD

__all__ = ["Taken", "taken"]

_Floats = NDArray[np.floating[Any]]

_SHARED = 0.5
"""Of the variance of single runs, what the moment does to all things alike. In five calibrations on two cores of a
shared host runs of different things, answers and prompts alike, correlated by 0.45 to 0.6 within half a second, by 0.3
to 0.45 within two, by 0.2 within eight and by 0.1 within sixteen."""
_SHORT_S, _LONG_S, _SHORT_SHARE = 1.5, 15.0, 0.4
"""How long a pace lasts: of its variance this share for about the short time, the rest for about the long one."""
_USUAL_SCATTER = 0.12
"""Relative standard deviation of single runs where too few were repeated to tell."""
_LEAST_SCATTER = 0.02
_LEAST_REPEATED = 12
"""Runs beyond the first ones of their things from which on their own scatter is told."""
_HUBER = 1.5
_ROUNDS = 4


class Taken(NamedTuple):
    """What one thing takes at the usual pace, in the unit of its runs, and the relative standard error of that."""

    typical: float
    doubt: float


def taken(runs: Sequence[Sequence[tuple[float, float]]]) -> list[Taken]:
    """What each thing takes; of each the runs as (when in seconds, how long it took), at least one.

    All runs together should be a few hundred: the effort grows with the cube of their number.
    """
    if not runs:
        return []
    thing = np.repeat(np.arange(len(runs)), [len(each) for each in runs])
    at_s = np.array([at for each in runs for at, _ in each])
    took: _Floats = np.log(np.array([value for each in runs for _, value in each]))
    members = np.zeros((len(took), len(runs)))
    members[np.arange(len(took)), thing] = 1.0
    variance = _scatter(took, thing) ** 2
    shared = _SHARED * variance * _alike(at_s)
    own = (1 - _SHARED) * variance
    weights: _Floats = np.ones(len(took))
    middle: _Floats = np.zeros(0)
    covariance: _Floats = np.zeros((0, 0))
    for _ in range(_ROUNDS):
        inverse = np.linalg.inv(shared + np.diag(own / weights))
        covariance = np.linalg.inv(members.T @ inverse @ members)
        middle = covariance @ (members.T @ (inverse @ took))
        left = took - members @ middle
        left -= shared @ (inverse @ left)
        weights = np.minimum(1.0, _HUBER * math.sqrt(own) / np.maximum(np.abs(left), 1e-12))
    doubts = np.sqrt(np.diag(covariance))
    return [Taken(float(math.exp(value)), float(doubt)) for value, doubt in zip(middle, doubts, strict=True)]


def _alike(at_s: _Floats) -> _Floats:
    """Correlation of the paces of two moments."""
    apart = np.abs(at_s[:, None] - at_s[None, :])
    found: _Floats = _SHORT_SHARE * np.exp(-apart / _SHORT_S) + (1 - _SHORT_SHARE) * np.exp(-apart / _LONG_S)
    return found


def _scatter(took: _Floats, thing: NDArray[np.intp]) -> float:
    """Robust standard deviation of the logarithms of single runs, over all things that were timed more than once."""
    off: list[float] = []
    for each in np.unique(thing):
        own = took[thing == each]
        if len(own) > 1:
            # Distances from a median of so few are too short.
            off.extend((np.abs(own - np.median(own)) * math.sqrt(len(own) / (len(own) - 1))).tolist())
    if len(off) < _LEAST_REPEATED:
        return _USUAL_SCATTER
    return max(_LEAST_SCATTER, NORMAL_MAD * float(np.median(off)))
