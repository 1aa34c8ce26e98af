"""How fast a machine usually is, as its reference phantom told it on several occasions. Pure.

The mistake it prevents: a calibration of one bad minute that is believed for months. On a shared host everything a
guest computes is slower by a tenth or a third for minutes at a time, and nothing inside the guest shows it. The same
phantom was timed beside each later measurement, so what it took then says how far that one minute was from the others.

Prompts follow the reference fully, answers in part: they wait for RAM, which one small phantom feels more than most
models do. The costs of a calibration are of times a little below the median, so that is what its own reference is
taken at for answers; with its median instead, what is usual was told too fast.
"""

import math
from collections.abc import Sequence
from statistics import median
from typing import NamedTuple

from planner.measure.statistics import TYPICAL_SHARE, quantile
from planner.types.measurement import Reference

__all__ = ["AS_IT_WAS", "Pace", "pace", "usual_pace"]

_ANSWERS_FOLLOW = 0.7
"""The power with which answers follow the reference's. Of 0, 0.5, 0.7 and 1 it is the best on two days of calibrations:
four with passive waiting (decode 8.0 % off in the median, 6.1 % with it) and eight with active (their common factor
11 %, 6 % with it)."""


class Pace(NamedTuple):
    """How many times longer answers and prompts take than a calibration says."""

    generate: float
    prompt: float


AS_IT_WAS = Pace(1.0, 1.0)
"""The pace of the calibration itself."""


def pace(there: Reference, here: Reference) -> Pace:
    """How many times longer models take ``there`` than a calibration ``here`` says, by what the reference took."""
    generate = median(there.generate_ns) / quantile(here.generate_ns, TYPICAL_SHARE)
    return Pace(math.pow(generate, _ANSWERS_FOLLOW), median(there.prompt_ns) / median(here.prompt_ns))


def usual_pace(own: Reference | None, others: Sequence[Reference]) -> Pace:
    """The medians over all occasions, of which ``own``, the calibration's, is one.

    Without another occasion nothing is known of what is usual: as it was.
    """
    if own is None or not others:
        return AS_IT_WAS
    paces = [pace(each, own) for each in (own, *others)]
    return Pace(median(each.generate for each in paces), median(each.prompt for each in paces))
