"""Cores, kinds of cores, caches, NUMA nodes from ``/sys/devices/system``; prevents counting hyperthreads as cores."""

import re
from typing import TYPE_CHECKING, Literal, NamedTuple

from planner.machine.answers import Answers, Recorder, natural
from planner.machine.cpulist import cpu_list
from planner.machine.memory import meminfo
from planner.types.machine import Cache, CoreKind, NumaNode

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["Core", "collect", "core_kinds", "cores", "interpret_caches", "numa_nodes"]

CPUS = "/sys/devices/system/cpu"
NODES = "/sys/devices/system/node"
_TYPED = {
    "performance": "/sys/devices/cpu_core/cpus",
    "efficiency": "/sys/devices/cpu_atom/cpus",
    "low-power": "/sys/devices/cpu_lowpower/cpus",
}
_CACHE_KINDS: dict[str, Literal["data", "instruction", "unified"]] = {
    "Data": "data",
    "Instruction": "instruction",
    "Unified": "unified",
}


class Core(NamedTuple):
    """One physical core: its package, its logical CPUs, what it can do."""

    package: int
    cpus: frozenset[int]
    max_khz: int | None
    capacity: int | None


def collect(ask: Recorder) -> None:
    """Read topology, top frequencies, caches (of one thread a core), core types and NUMA nodes."""
    for name in ("online", "possible"):
        ask.file(f"{CPUS}/{name}")
    for path in _TYPED.values():
        ask.file(path)
    for folder in _numbered(ask.listing(CPUS), "cpu"):
        siblings = _siblings(ask, f"{CPUS}/{folder}")
        first = not siblings or min(siblings) == int(folder.removeprefix("cpu"))
        _collect_cpu(ask, f"{CPUS}/{folder}", with_caches=first)
    for folder in _numbered(ask.listing(NODES), "node"):
        ask.file(f"{NODES}/{folder}/cpulist")
        ask.lines(f"{NODES}/{folder}/meminfo", ("MemTotal",))


def _siblings(ask: Recorder, folder: str) -> frozenset[int]:
    """Logical CPUs of the same core; the newer file name first."""
    for name in ("core_cpus_list", "thread_siblings_list"):
        if (text := ask.file(f"{folder}/topology/{name}")) is not None:
            return cpu_list(text)
    return frozenset()


def _collect_cpu(ask: Recorder, folder: str, *, with_caches: bool) -> None:
    for name in ("topology/physical_package_id", "topology/core_id", "cpufreq/cpuinfo_max_freq", "cpu_capacity"):
        ask.file(f"{folder}/{name}")
    if with_caches:
        for index in _numbered(ask.listing(f"{folder}/cache"), "index"):
            for name in ("level", "type", "size", "shared_cpu_list"):
                ask.file(f"{folder}/cache/{index}/{name}")


def cores(raw: Answers, online: frozenset[int]) -> tuple[Core, ...]:
    """Physical cores with at least one online CPU; empty when the system tells no topology."""
    found: dict[tuple[int, ...], Core] = {}
    for folder in _numbered(raw.folder(CPUS), "cpu"):
        number = int(folder.removeprefix("cpu"))
        base = f"{CPUS}/{folder}"
        siblings = raw.text(f"{base}/topology/core_cpus_list") or raw.text(f"{base}/topology/thread_siblings_list")
        cpus = cpu_list(siblings) & online
        if number not in cpus:
            continue
        package = raw.number(f"{base}/topology/physical_package_id") or 0
        core = Core(package, cpus, raw.number(f"{base}/cpufreq/cpuinfo_max_freq"), raw.number(f"{base}/cpu_capacity"))
        found.setdefault(tuple(sorted(cpus)), core)
    return tuple(found.values())


def core_kinds(raw: Answers, all_cores: tuple[Core, ...]) -> tuple[tuple[CoreKind, ...], str]:
    """Groups of equal cores, strongest first, and where that was read.

    Intel names its kinds; Arm tells a capacity per core (largest 1024); AMD's dense cores show in their top frequency.
    """
    typed = {name: cpu_list(raw.text(path)) for name, path in _TYPED.items()}
    if sum(1 for cpus in typed.values() if cpus) > 1:
        groups = {name: [core for core in all_cores if core.cpus & cpus] for name, cpus in typed.items()}
        return _kinds(_split_low_power(raw, groups)), "/sys/devices/cpu_core and cpu_atom"
    for key, ratio, source in (("capacity", 0.9, "cpu_capacity"), ("max_khz", 0.8, "cpufreq/cpuinfo_max_freq")):
        tiers = _tiers(all_cores, key, ratio)
        if len(tiers) > 1:
            names = (
                "performance",
                *["efficiency"] * (len(tiers) - 2),
                "efficiency" if len(tiers) == 2 else "low-power",
            )
            merged: dict[str, list[Core]] = {}
            for name, tier in zip(names, tiers, strict=True):
                merged.setdefault(name, []).extend(tier)
            return _kinds(merged), f"{CPUS}/cpu*/{source}"
    return _kinds({"uniform": list(all_cores)}), f"{CPUS}/cpu*/topology"


def _split_low_power(raw: Answers, groups: dict[str, list[Core]]) -> dict[str, list[Core]]:
    """Meteor Lake's low-power cores call themselves ``cpu_atom`` too; they are the ones outside the level-3 cache."""
    shared: set[int] = set()
    for path in raw.files:
        if path.startswith(CPUS) and path.endswith("/level") and raw.number(path) == 3:
            shared |= cpu_list(raw.text(path.removesuffix("level") + "shared_cpu_list"))
    inside = [core for core in groups["efficiency"] if core.cpus & shared]
    outside = [core for core in groups["efficiency"] if not core.cpus & shared]
    if not inside or not outside:
        return groups
    return {**groups, "efficiency": inside, "low-power": [*groups["low-power"], *outside]}


def _tiers(all_cores: tuple[Core, ...], key: str, ratio: float) -> list[list[Core]]:
    """Cores in descending groups; a group ends where the next value falls below ``ratio`` of its neighbour."""
    rated = [(value, core) for core in all_cores if (value := getattr(core, key))]
    if len(rated) != len(all_cores):
        return []
    tiers: list[list[Core]] = []
    previous = 0
    for value, core in sorted(rated, key=lambda pair: -pair[0]):
        if not tiers or value < previous * ratio:
            tiers.append([])
        tiers[-1].append(core)
        previous = value
    return tiers


def _kinds(groups: dict[str, list[Core]]) -> tuple[CoreKind, ...]:
    return tuple(
        CoreKind(name=name, cores=len(members), max_mhz=_top_mhz(members))
        for name, members in groups.items()
        if members
    )


def _top_mhz(members: list[Core]) -> int | None:
    known = [core.max_khz for core in members if core.max_khz]
    return max(known) // 1000 if known else None


def interpret_caches(raw: Answers) -> tuple[Cache, ...]:
    """Each kind of cache with how many there are: an instance is a distinct set of CPUs that share it."""
    sharers: dict[tuple[int, str, int], set[str]] = {}
    for path in raw.files:
        if not (path.startswith(CPUS) and path.endswith("/level")):
            continue
        base = path.removesuffix("level")
        level, size = raw.number(path), _size(raw.text(base + "size"))
        kind = _CACHE_KINDS.get(raw.text(base + "type") or "")
        if level is not None and size and kind is not None:
            sharers.setdefault((level, kind, size), set()).add(raw.text(base + "shared_cpu_list") or base)
    return tuple(
        Cache(level=level, kind=_CACHE_KINDS[kind.capitalize()], size_bytes=size, instances=len(sets))
        for (level, kind, size), sets in sorted(sharers.items())
    )


def numa_nodes(raw: Answers) -> tuple[NumaNode, ...]:
    """NUMA nodes with their memory; nodes without CPUs (memory expanders) are kept."""
    nodes = []
    for folder in _numbered(raw.folder(NODES), "node"):
        cpus = cpu_list(raw.text(f"{NODES}/{folder}/cpulist"))
        text = re.sub(r"(?m)^Node \d+ ", "", raw.files.get(f"{NODES}/{folder}/meminfo", ""))
        number = int(folder.removeprefix("node"))
        nodes.append(NumaNode(node=number, memory_total_bytes=meminfo(text).get("MemTotal"), logical_cpus=len(cpus)))
    return tuple(nodes)


def _numbered(names: "Iterable[str]", prefix: str) -> list[str]:
    """``cpu0``, ``cpu1`` … in numeric order, without ``cpufreq`` and the like."""
    chosen = [name for name in names if natural(name.removeprefix(prefix)) is not None and name.startswith(prefix)]
    chosen = [name for name in chosen if name.removeprefix(prefix).isascii() and name.removeprefix(prefix).isdigit()]
    return sorted(chosen, key=lambda name: int(name.removeprefix(prefix)))


def _size(text: str | None) -> int | None:
    """A cache size as the kernel writes it: ``32K``, ``1024K``, ``32M``."""
    value = natural((text or "").rstrip("KMG"))
    unit = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30}.get((text or " ")[-1], 1)
    return None if value is None or value >= 1 << 32 else value * unit
