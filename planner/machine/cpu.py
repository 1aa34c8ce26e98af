"""The processor, and how many threads of it this process should use; prevents asking only for the core count.

Threads that are really usable are the minimum of affinity, CPU quota rounded up, and *physical* cores inside the
affinity mask. Hyperthreads are left out because two threads of one core share its vector units and its path to memory,
which is all that llama.cpp's matrix kernels use; a second thread there adds waiting, not speed. Cores of every kind
count; which of them pay off is for the trial before a measurement to find out.
"""

import math
from typing import NamedTuple

from planner.machine import topology
from planner.machine.answers import Answers, Recorder, natural
from planner.machine.cgroup import Cgroups
from planner.machine.cpulist import cpu_list
from planner.machine.evidence import Evidence
from planner.machine.isa import arm_name, arm_vendor, isa_of, vendor_name
from planner.types.machine import Cpu

__all__ = ["collect", "interpret", "processors"]

CPUINFO = "/proc/cpuinfo"
STATUS = "/proc/self/status"
_DEVICE_TREE = "/proc/device-tree/model"
_MODEL_KEYS = ("model name", "Model Name", "cpu model", "uarch", "cpu")
_NO_TOPOLOGY = "the system tells no core topology"


class _Cores(NamedTuple):
    """Physical cores in all, those that this process may run on, and where that was read."""

    total: int | None
    usable: int | None
    sockets: int | None
    source: str


def collect(ask: Recorder) -> None:
    """Read ``/proc/cpuinfo``, the affinity mask and the topology; macOS answers through ``sysctl`` (see apple)."""
    if ask.host.system().sysname == "Darwin":
        return
    ask.file(CPUINFO)
    ask.lines(STATUS, ("Cpus_allowed_list",))
    ask.file(_DEVICE_TREE)
    topology.collect(ask)


def interpret(raw: Answers, cgroups: Cgroups) -> Cpu:
    """The processor as Linux describes it."""
    evidence = Evidence()
    infos = processors(raw.files.get(CPUINFO, ""))
    online = _online(raw, infos)
    logical = evidence.sure("logical_cpus", max(1, len(infos) or len(online)), CPUINFO)
    allowed = _allowed(raw)
    affinity = len(allowed & online or allowed) if allowed else None
    all_cores = topology.cores(raw, online)
    counted = _count(all_cores, infos, online, allowed)
    kinds, kinds_source = topology.core_kinds(raw, all_cores) if all_cores else ((), "")
    threads, bound = _usable_threads(affinity or logical, cgroups.quota_cpus, counted.usable)
    evidence.sure("usable_threads", threads, f"minimum of affinity, quota and physical cores: {bound}")
    caches, nodes, isa = topology.interpret_caches(raw), topology.numa_nodes(raw), _isa(infos)
    for field, value, source in (
        ("core_kinds", kinds, kinds_source),
        ("isa", isa, f"{CPUINFO} flags that every CPU has"),
        ("caches", caches, f"{topology.CPUS}/cpu*/cache"),
        ("numa_nodes", nodes, topology.NODES),
    ):
        evidence.take(field, value or None, source, "the system does not tell")
    return Cpu(
        model=evidence.take("model", _model(raw, infos), CPUINFO, f"{CPUINFO} names no model"),
        vendor=evidence.take("vendor", _vendor(infos), CPUINFO, f"{CPUINFO} names no vendor"),
        sockets=evidence.take("sockets", counted.sockets, counted.source, _NO_TOPOLOGY),
        physical_cores=evidence.take("physical_cores", counted.total, counted.source, _NO_TOPOLOGY),
        logical_cpus=logical,
        core_kinds=kinds,
        isa=isa,
        caches=caches,
        numa_nodes=nodes,
        affinity_cpus=evidence.take("affinity_cpus", affinity, f"{STATUS} Cpus_allowed_list", "no affinity mask told"),
        quota_cpus=evidence.take("quota_cpus", cgroups.quota_cpus, cgroups.quota_source, "no CPU quota above us"),
        usable_threads=threads,
        sources=evidence.sources,
        notes=evidence.notes,
    )


def processors(text: str) -> list[dict[str, str]]:
    """``/proc/cpuinfo`` as one dictionary per processor; lines outside one are shared by all."""
    blocks: list[dict[str, str]] = []
    shared: dict[str, str] = {}
    for line in text.splitlines():
        key, colon, value = line.partition(":")
        key = key.strip()
        if not colon:
            continue
        if key == "processor" and natural(value) is not None:
            blocks.append({})
        (blocks[-1] if blocks else shared)[key] = value.strip()
    return [{**shared, **block} for block in blocks]


def _online(raw: Answers, infos: list[dict[str, str]]) -> frozenset[int]:
    online = cpu_list(raw.text(f"{topology.CPUS}/online"))
    return online or frozenset(number for info in infos if (number := natural(info["processor"])) is not None)


def _allowed(raw: Answers) -> frozenset[int]:
    for line in raw.files.get(STATUS, "").splitlines():
        name, _, value = line.partition(":")
        if name == "Cpus_allowed_list":
            return cpu_list(value)
    return frozenset()


def _count(
    all_cores: tuple[topology.Core, ...],
    infos: list[dict[str, str]],
    online: frozenset[int],
    allowed: frozenset[int],
) -> _Cores:
    """Physical cores from sysfs, else from ``/proc/cpuinfo`` (x86), else unknown.

    Inside LXC the mask counts the host's CPUs while ``/proc`` and ``/sys`` are renumbered: then it selects nothing.
    """
    if all_cores:
        usable = [core for core in all_cores if core.cpus & allowed] if allowed & online else list(all_cores)
        return _Cores(
            len(all_cores), len(usable), len({core.package for core in all_cores}), f"{topology.CPUS}/cpu*/topology"
        )
    ids = {
        natural(info.get("processor")): (info.get("physical id"), info["core id"])
        for info in infos
        if "core id" in info
    }
    if not ids or len(ids) != len(infos):
        return _Cores(None, None, None, "")
    here = {core for number, core in ids.items() if number in allowed} or set(ids.values())
    return _Cores(len(set(ids.values())), len(here), len({package for package, _ in ids.values()}), CPUINFO)


def _usable_threads(affinity: int, quota: float | None, cores: int | None) -> tuple[int, str]:
    bounds = {"affinity": affinity}
    if quota is not None:
        bounds["CPU quota"] = math.ceil(min(quota, 65536.0))
    if cores is not None:
        bounds["physical cores"] = cores
    tightest = min(bounds, key=lambda name: bounds[name])
    return max(1, bounds[tightest]), tightest


def _isa(infos: list[dict[str, str]]) -> tuple[str, ...]:
    """Instruction sets that every processor has: a thread may be moved to any of them."""
    common: set[str] | None = None
    for info in infos:
        flags = _flags(info)
        common = flags if common is None else common & flags
    return isa_of(common or ())


def _flags(info: dict[str, str]) -> set[str]:
    flags = set((info.get("flags") or info.get("Features") or info.get("features") or "").split())
    letters = info.get("isa", "").split("_")[0].removeprefix("rv64").removeprefix("rv32")
    if info.get("isa", "").startswith("rv") and "v" in letters:
        flags.add("riscv_v")
    if info.get("cpu", "").startswith("POWER") and "altivec" in info["cpu"]:
        flags.add("vsx")
    return flags


def _model(raw: Answers, infos: list[dict[str, str]]) -> str | None:
    for key in _MODEL_KEYS:
        # 32-bit Arm writes "ARMv7 Processor rev 4 (v7l)" as a model name: the part number says more.
        names = [info[key] for info in infos if info.get(key) and not info[key].startswith("ARMv")]
        if names:
            return " + ".join(dict.fromkeys(names))
    names = [name for info in infos if (name := _arm_core(info))]
    board = raw.text(_DEVICE_TREE)
    if names:
        joined = " + ".join(dict.fromkeys(names))
        return f"{joined} ({board})" if board else joined
    return board


def _arm_core(info: dict[str, str]) -> str | None:
    implementer, part = natural(info.get("CPU implementer")), natural(info.get("CPU part"))
    if implementer is None or part is None:
        return None
    maker = arm_vendor(implementer) or f"implementer {implementer:#x}"
    return arm_name(implementer, part) or f"{maker} part {part:#x}"


def _vendor(infos: list[dict[str, str]]) -> str | None:
    for info in infos:
        if name := info.get("vendor_id") or info.get("mvendorid"):
            return vendor_name(name)
        implementer = natural(info.get("CPU implementer"))
        if implementer is not None:
            return arm_vendor(implementer)
    return None
