"""Tells this process where its threads may run: a mask of CPUs, and llama.cpp's strategy for NUMA nodes.

Asked before the engine computes anything: threads that OpenMP has started keep the mask they were born with. The
mistake it prevents is a pinned timing whose threads ran elsewhere, so the mask is read back.

Runs in the child: standard library and ``llama_cpp`` only, Python 3.9 or newer.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from errors import Refused
from llama import engine

__all__ = ["place"]

# ggml_numa_strategy of ggml-cpu.h
_NUMA = {"off": 0, "distribute": 1, "isolate": 2}


def place(args: dict[str, Any], _emit: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
    """Confine this process to the CPUs ``cpus`` (empty: as it is) and set ``numa``; answers the ``cpus`` it may use."""
    cpus = {int(each) for each in args.get("cpus") or ()}
    numa = str(args.get("numa", "off"))
    if cpus and not hasattr(os, "sched_setaffinity"):
        raise Refused("this system confines no process to CPUs")
    if cpus:
        try:
            os.sched_setaffinity(0, cpus)
        except OSError as error:
            raise Refused(f"the system refuses the CPUs {sorted(cpus)}: {error.strerror}") from error
        if os.sched_getaffinity(0) != cpus:
            raise Refused(f"of the CPUs {sorted(cpus)} only {sorted(os.sched_getaffinity(0))} were given")
    if numa not in _NUMA:
        raise Refused(f"unknown strategy for NUMA nodes: {numa}")
    if numa != "off":
        engine().api.llama_numa_init(_NUMA[numa])
    return {"cpus": sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []}
