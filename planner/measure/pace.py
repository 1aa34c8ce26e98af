"""How fast a machine usually is, as its reference phantom told it on several occasions. Pure.

The mistake it prevents: a calibration of one bad minute that is believed for months. On a shared host everything a
guest computes is slower by a tenth or a third for minutes at a time, and nothing inside the guest shows it. The same
phantom was timed beside each later measurement, so what it took then says how far that one minute was from the others.

Every model follows the reference alike, answers and prompts, and what it does in both tells more of a pace than either:
its answer waits for RAM, its prompt computes, and a neighbour slows down the one or the other.
"""

import math
from collections.abc import Sequence
from statistics import median

from planner.types.measurement import Reference

__all__ = ["AS_IT_WAS", "pace", "usual_pace"]

_BY_ANSWERS, _BY_PROMPTS = 0.4, 0.45
"""The powers with which times follow the reference's answer and its prompt. In 22 calibrations of two days the factor
that all predictions of a calibration shared followed them with 0.2 to 0.7 and 0.2 to 0.6, whatever was predicted; what
it varied by fell with these two from 5.7 to 3.0 % in answers, from 6.7 to 3.6 % in prompts, from 7.9 to 4.0 % for eight
sequences and from 8.3 to 5.8 % at depth. The answer alone left 4.0, 6.3, 6.3 and 7.1 %."""

AS_IT_WAS = 1.0
"""The pace of the calibration itself."""


def pace(there: Reference, here: Reference) -> float:
    """How many times longer models take ``there`` than ``here``, by the medians of what the reference took."""
    answers = median(there.generate_ns) / median(here.generate_ns)
    prompts = median(there.prompt_ns) / median(here.prompt_ns)
    return math.pow(answers, _BY_ANSWERS) * math.pow(prompts, _BY_PROMPTS)


def usual_pace(own: Reference | None, others: Sequence[Reference]) -> float:
    """The median over all occasions, of which ``own``, the calibration's, is one.

    Without another occasion nothing is known of what is usual: as it was.
    """
    if own is None or not others:
        return AS_IT_WAS
    return median(pace(each, own) for each in (own, *others))
