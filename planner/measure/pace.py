"""How fast a machine usually is, as its reference phantom told it on several occasions. Pure.

The mistake it prevents: a calibration of one bad minute that is believed for months. On a shared host everything a
guest times is slower by a tenth or a third for minutes at a time, and nothing inside the guest shows it. The same
phantom was timed beside each later measurement, so what it took then says how far that one minute was from the others.
"""

from collections.abc import Sequence
from statistics import median
from typing import NamedTuple

from planner.types.measurement import Reference

__all__ = ["AS_IT_WAS", "Pace", "pace", "usual_pace"]


class Pace(NamedTuple):
    """How many times longer something takes than it took on one occasion: answers, and prompts."""

    answer: float
    prompt: float


AS_IT_WAS = Pace(1.0, 1.0)


def pace(there: Reference, here: Reference) -> Pace:
    """How many times longer the reference took ``there`` than ``here``, by the medians of its runs."""
    return Pace(median(there.generate_ns) / median(here.generate_ns), median(there.prompt_ns) / median(here.prompt_ns))


def usual_pace(own: Reference | None, others: Sequence[Reference]) -> Pace:
    """The median over all occasions, of which ``own`` is one, as a multiple of what the reference took on ``own``."""
    if own is None:
        return AS_IT_WAS
    every = [AS_IT_WAS, *(pace(each, own) for each in others)]
    return Pace(median(each.answer for each in every), median(each.prompt for each in every))
