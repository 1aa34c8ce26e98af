"""How fast a machine usually reads prompts, as its reference phantom told it on several occasions. Pure.

The mistake it prevents: a calibration of one bad minute that is believed for months. On a shared host everything a
guest computes is slower by a tenth or a third for minutes at a time, and nothing inside the guest shows it. The same
phantom was timed beside each later measurement, so what it took then says how far that one minute was from the others.

Answers are left as they were calibrated: they wait for RAM, which changes within seconds, and what the reference's
answers took says little about those of others. Of 22 models prompts were 26 % off in the median as calibrated and 7.5 %
at the usual pace (bench/results/speed.json); decode became worse by it, 10.8 % instead of 6.0 % with calibrations of
the same models that are not kept.
"""

from collections.abc import Sequence
from statistics import median

from planner.types.measurement import Reference

__all__ = ["prompt_pace", "usual_prompt_pace"]


def prompt_pace(there: Reference, here: Reference) -> float:
    """How many times longer a prompt of the reference took ``there`` than ``here``, by the medians of its runs."""
    return median(there.prompt_ns) / median(here.prompt_ns)


def usual_prompt_pace(own: Reference | None, others: Sequence[Reference]) -> float:
    """The median over all occasions, of which ``own`` is one, as a multiple of what the reference took on ``own``."""
    return 1.0 if own is None else median([1.0, *(prompt_pace(each, own) for each in others)])
