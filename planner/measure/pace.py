"""How fast a machine usually is, as its reference phantom told it on several occasions. Pure.

The mistake it prevents: a calibration of one bad minute that is believed for months. On a shared host everything a
guest computes is slower by a tenth or a third for minutes at a time, and nothing inside the guest shows it. The same
phantom was timed beside each later measurement, so what it took then says how far that one minute was from the others.

Prompts follow the reference fully, answers in part: they wait for RAM, which one small phantom feels more than most
models do. The costs of a calibration are of times a little below the median, so that is what its own reference is
taken at for answers; with its median instead, what is usual was told some 8 % too fast.
"""

import math
from collections.abc import Sequence
from statistics import median

from planner.measure.statistics import TYPICAL_SHARE, quantile
from planner.types.measurement import Reference

__all__ = ["answer_pace", "prompt_pace", "usual_answer_pace", "usual_prompt_pace"]

_ANSWERS_FOLLOW = 0.7
"""The power with which answers follow the reference's. Of 0, 0.5, 0.7 and 1 it is the best on two days of calibrations:
four with passive waiting (decode 8.0 % off in the median, 6.1 % with it) and eight with active (their common factor
11 %, 6 % with it)."""


def prompt_pace(there: Reference, here: Reference) -> float:
    """How many times longer a prompt of the reference took ``there`` than ``here``, by the medians of its runs."""
    return median(there.prompt_ns) / median(here.prompt_ns)


def usual_prompt_pace(own: Reference | None, others: Sequence[Reference]) -> float:
    """The median over all occasions, of which ``own`` is one, as a multiple of what the reference took on ``own``."""
    return 1.0 if own is None else median([1.0, *(prompt_pace(each, own) for each in others)])


def answer_pace(there: Reference, here: Reference) -> float:
    """How many times longer answers take ``there`` than a calibration ``here`` says, by what the reference took."""
    return math.pow(median(there.generate_ns) / quantile(here.generate_ns, TYPICAL_SHARE), _ANSWERS_FOLLOW)


def usual_answer_pace(own: Reference | None, others: Sequence[Reference]) -> float:
    """The median over all occasions, of which ``own`` is one, as a multiple of what a calibration says on ``own``.

    Without another occasion nothing is known of what is usual: 1.
    """
    return 1.0 if own is None or not others else median(answer_pace(each, own) for each in (own, *others))
