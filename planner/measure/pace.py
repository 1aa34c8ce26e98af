"""How fast a machine usually is, as its reference phantom told it on several occasions. Pure.

The mistake it prevents: a calibration of one bad minute that is believed for months. On a shared host everything a
guest computes is slower by a tenth or a third for minutes at a time, and nothing inside the guest shows it. The same
phantom was timed beside each later measurement, so what it took then says how far that one minute was from the others.

Other models follow the reference in part, answers less than prompts: each kernel waits for other things, and one
short run of the reference scatters by itself.
"""

import math
from collections.abc import Sequence
from statistics import median
from typing import NamedTuple

from planner.types.measurement import Reference

__all__ = ["AS_IT_WAS", "Pace", "pace", "usual_pace"]

_ANSWERS_FOLLOW, _PROMPTS_FOLLOW = 0.5, 0.6
"""The powers with which answers and prompts follow the reference's. Of five calibrations of one afternoon, times of one
phantom in the same turn of two of them follow the reference's with a slope of 0.40 (2,088 pairs of answers) and 0.58
(1,014 of prompts); of 0, 0.3, 0.5, 0.7 and 1 for answers 0.5 predicted the full models of the record best."""


class Pace(NamedTuple):
    """How many times longer answers and prompts take than a calibration says."""

    generate: float
    prompt: float


AS_IT_WAS = Pace(1.0, 1.0)
"""The pace of the calibration itself."""


def pace(there: Reference, here: Reference) -> Pace:
    """How many times longer models take ``there`` than ``here``, by the medians of what the reference took."""
    return Pace(
        math.pow(median(there.generate_ns) / median(here.generate_ns), _ANSWERS_FOLLOW),
        math.pow(median(there.prompt_ns) / median(here.prompt_ns), _PROMPTS_FOLLOW),
    )


def usual_pace(own: Reference | None, others: Sequence[Reference]) -> Pace:
    """The medians over all occasions, of which ``own``, the calibration's, is one.

    Without another occasion nothing is known of what is usual: as it was.
    """
    if own is None or not others:
        return AS_IT_WAS
    paces = [pace(each, own) for each in (own, *others)]
    return Pace(median(each.generate for each in paces), median(each.prompt for each in paces))
