"""Which CPUs a process should be confined to, and whether it gets huge pages when it asks: what tuning needs to know.

The mistake it prevents: a number of threads equal to the cores, two of which then share one core while another idles.
"""

import os
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from planner.machine import topology
from planner.machine.answers import Answers, Recorder
from planner.machine.cpulist import cpu_list
from planner.machine.host import Host

__all__ = ["Places", "interpret", "places"]

_THP = "/sys/kernel/mm/transparent_hugepage/enabled"
_PERFORMANCE = "/sys/devices/cpu_core/cpus"
_NEAR_THE_TOP = 0.85
"""Cores whose capacity or top frequency reaches this share of the best one's are of the strongest kind."""


class Places(NamedTuple):
    """CPU numbers: the first of each core that is allowed, and of each of the strongest kind.

    Either is empty where it is all that is allowed anyway. ``huge_pages_on_request`` is whether the kernel gives
    transparent huge pages to those who ask and to nobody else.
    """

    one_per_core: tuple[int, ...] = ()
    performance: tuple[int, ...] = ()
    huge_pages_on_request: bool = False


def places() -> Places:
    """Those of this machine and process; nothing where the system does not tell (anything but Linux)."""
    if not hasattr(os, "sched_getaffinity"):
        return Places()
    ask = Recorder(Host())
    topology.collect(ask)
    ask.file(_THP)
    return interpret(ask.answers(), frozenset(os.sched_getaffinity(0)))


def interpret(raw: Answers, allowed: frozenset[int]) -> Places:
    """The places that recorded answers tell; pure."""
    cores = [core for core in topology.cores(raw, allowed) if core.cpus]
    first = tuple(sorted(min(core.cpus) for core in cores))
    strong = tuple(sorted(min(core.cpus) for core in _strongest(raw, cores)))
    return Places(
        one_per_core=first if 0 < len(first) < len(allowed) else (),
        performance=strong if 0 < len(strong) < len(first) else (),
        huge_pages_on_request="[madvise]" in (raw.text(_THP) or ""),
    )


def _strongest(raw: Answers, cores: Sequence[topology.Core]) -> Iterable[topology.Core]:
    """Intel names its performance cores; elsewhere the capacity or the top frequency tells."""
    named = cpu_list(raw.text(_PERFORMANCE))
    if named:
        return [core for core in cores if core.cpus & named]
    for key in ("capacity", "max_khz"):
        rated = [(getattr(core, key), core) for core in cores]
        if rated and all(value for value, _ in rated):
            top = max(value for value, _ in rated)
            strong = [core for value, core in rated if value >= _NEAR_THE_TOP * top]
            if len(strong) < len(cores):
                return strong
    return cores
