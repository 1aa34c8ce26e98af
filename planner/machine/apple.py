"""Macs through ``sysctl`` and ``system_profiler``; prevents planning for all of the RAM where Metal grants a share.

``iogpu.wired_limit_mb`` is the GPU's share when somebody set it. Unset, Metal's own figure
(``recommendedMaxWorkingSetSize``) is only known to the engine; published logs show two thirds of RAM up to 32 GiB and
three quarters above (more on recent macOS), so that is assumed here and the engine's answer replaces it where it was
asked.
"""

import json
import re
from typing import TYPE_CHECKING

from planner.machine.answers import Answers, Recorder, natural
from planner.machine.evidence import Evidence
from planner.machine.gpu import Draft, Found
from planner.machine.isa import isa_of_sysctl
from planner.types.machine import Cache, CoreKind, Cpu

if TYPE_CHECKING:
    from planner.types.machine import Gpu, Memory

__all__ = ["collect", "cpu", "interpret", "sysctl"]

_GIB = 1 << 30
# Whole subtrees that hold no serial number and no name of anybody.
_KEYS = ("hw", "machdep.cpu", "vm.swapusage", "kern.osproductversion", "iogpu", "sysctl.proc_translated")


def collect(ask: Recorder) -> None:
    """Run ``sysctl`` and ``system_profiler`` on a Mac; nothing elsewhere."""
    if ask.host.system().sysname != "Darwin":
        return
    for key in _KEYS:
        ask.program(f"sysctl {key}", ["/usr/sbin/sysctl", key])
    ask.program("system_profiler", ["/usr/sbin/system_profiler", "-json", "SPDisplaysDataType"])


def sysctl(raw: Answers) -> dict[str, str]:
    """Every ``name: value`` line that ``sysctl`` printed; empty on other systems."""
    values: dict[str, str] = {}
    for name, program in raw.programs.items():
        if name.startswith("sysctl "):
            for line in program.stdout.splitlines():
                key, separator, value = line.partition(": ")
                if separator:
                    values[key.strip()] = value.strip()
    return values


def cpu(values: dict[str, str]) -> Cpu:
    """The processor as macOS describes it; there is no affinity mask and no quota to obey."""
    evidence = Evidence()
    model = values.get("machdep.cpu.brand_string")
    vendor = "Apple" if (model or "").startswith("Apple") else "Intel" if "Intel" in (model or "") else None
    physical, logical = natural(values.get("hw.physicalcpu")), natural(values.get("hw.logicalcpu"))
    logical = logical if logical and logical < 65536 else max(1, min(physical or 1, 65535))
    threads = max(1, min(physical or logical, logical))
    kinds, caches, isa = _kinds(values), _caches(values), isa_of_sysctl(values)
    packages = natural(values.get("hw.packages"))
    evidence.sure("logical_cpus", logical, "sysctl hw.logicalcpu")
    evidence.sure("usable_threads", threads, "sysctl hw.physicalcpu: physical cores of every kind")
    evidence.take("core_kinds", kinds or None, "sysctl hw.perflevel*", "one kind of core only")
    evidence.take("caches", caches or None, "sysctl hw.*cachesize")
    evidence.take("isa", isa or None, "sysctl hw.optional and machdep.cpu")
    evidence.note("numa_nodes", "a Mac has one")
    return Cpu(
        model=evidence.take("model", model, "sysctl machdep.cpu.brand_string"),
        vendor=evidence.take("vendor", vendor, "the model's name"),
        sockets=evidence.take("sockets", packages or None, "sysctl hw.packages"),
        physical_cores=evidence.take("physical_cores", physical or None, "sysctl hw.physicalcpu"),
        logical_cpus=logical,
        core_kinds=kinds,
        isa=isa,
        caches=caches,
        affinity_cpus=evidence.take("affinity_cpus", None, "", "macOS has no affinity mask"),
        quota_cpus=evidence.take("quota_cpus", None, "", "macOS has no control groups"),
        usable_threads=threads,
        sources=evidence.sources,
        notes=evidence.notes,
    )


def _levels(values: dict[str, str]) -> int:
    return min(natural(values.get("hw.nperflevels")) or 0, 4)


def _kinds(values: dict[str, str]) -> tuple[CoreKind, ...]:
    """Performance levels, strongest first; macOS numbers them so."""
    kinds = []
    for level in range(_levels(values)):
        cores = natural(values.get(f"hw.perflevel{level}.physicalcpu"))
        name = (
            values.get(f"hw.perflevel{level}.name") or ("Performance", "Efficiency", "low-power", "low-power")[level]
        ).lower()
        if cores:
            kinds.append(CoreKind(name=name, cores=cores))
    return tuple(kinds)


def _caches(values: dict[str, str]) -> tuple[Cache, ...]:
    prefixes = [f"hw.perflevel{level}." for level in range(_levels(values))] or ["hw."]
    caches = []
    for prefix in prefixes:
        cores = natural(values.get(f"{prefix}physicalcpu"))
        shared = natural(values.get(f"{prefix}cpusperl2")) or 1
        for name, level, kind, sharers in (
            ("l1dcachesize", 1, "data", 1),
            ("l1icachesize", 1, "instruction", 1),
            ("l2cachesize", 2, "unified", shared),
            ("l3cachesize", 3, "unified", cores or 1),
        ):
            size = natural(values.get(prefix + name))
            if size:
                count = -(-cores // sharers) if cores else None
                caches.append(Cache(level=level, kind=kind, size_bytes=size, instances=count))  # type: ignore[arg-type]
    return tuple(caches)


def interpret(raw: Answers, memory: "Memory") -> Found:
    """The Mac's GPUs: Apple's own, in unified memory, or cards in Intel Macs."""
    values = sysctl(raw)
    if not values:
        return (), ()
    notes: list[str] = []
    displays = _displays(raw, notes)
    gpus: list[Gpu] = []
    for display in displays:
        gpus.append(_gpu(len(gpus), display, values, memory))
    if not gpus and (values.get("machdep.cpu.brand_string") or "").startswith("Apple"):
        gpus.append(_gpu(0, {}, values, memory))
    return tuple(gpus), tuple(notes)


def _displays(raw: Answers, notes: list[str]) -> list[dict[str, str]]:
    program = raw.programs.get("system_profiler")
    try:
        found = json.loads(program.stdout)["SPDisplaysDataType"] if program else []
        return [{key: value for key, value in item.items() if isinstance(value, str)} for item in found]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        why = program.failure if program and program.failure else "its answer was garbage"
        notes.append(f"system_profiler: {why}; GPUs below are known from sysctl only")
        return []


def _gpu(index: int, display: dict[str, str], values: dict[str, str], memory: "Memory") -> "Gpu":
    brand = values.get("machdep.cpu.brand_string") or ""
    name = display.get("sppci_model") or brand or None
    own = (name or "").startswith("Apple")
    vendor = "apple" if own else "amd" if "AMD" in (name or "") or "Radeon" in (name or "") else "intel"
    vendor = "nvidia" if "NVIDIA" in (name or "") or "GeForce" in (name or "") else vendor
    draft = Draft(vendor, "metal", "system_profiler" if display else "sysctl")
    draft.put("name", name, "system_profiler SPDisplaysDataType" if display else "sysctl machdep.cpu.brand_string")
    dedicated = _bytes(display.get("spdisplays_vram") or display.get("sppci_vram"))
    shared = own or vendor == "intel"
    draft.put("unified_memory", shared, "Apple and Intel GPUs in Macs compute in system RAM")
    if shared:
        share, source = _metal_share(values, memory.total_bytes)
        draft.put("memory_total_bytes", share, source)
        draft.put("memory_free_bytes", min(share, memory.usable_bytes), "smaller of Metal's share and usable RAM")
    else:
        draft.put("memory_total_bytes", dedicated, "system_profiler spdisplays_vram")
        draft.gap("memory_free_bytes", "macOS does not tell")
    draft.gap("bandwidth_bytes_per_s compute_capability driver power_limit_watts", "macOS does not tell")
    draft.gap("pcie_generation pcie_lanes pci_address", "on the chip" if own else "macOS does not tell")
    return draft.gap("mig", "only NVIDIA has MIG").build(index)


def _metal_share(values: dict[str, str], total: int) -> tuple[int, str]:
    limit = natural(values.get("iogpu.wired_limit_mb"))
    if limit and limit < 1 << 24:
        return min(limit << 20, total), "sysctl iogpu.wired_limit_mb"
    share = total // 3 * 2 if total <= 32 * _GIB else total // 4 * 3
    return share, "Metal's usual share of RAM (2/3 up to 32 GiB, 3/4 above); the engine's own figure replaces it"


def _bytes(text: str | None) -> int | None:
    match = re.fullmatch(r"(\d{1,6}) ?(MB|GB)", (text or "").strip())
    return int(match[1]) << (20 if match[2] == "MB" else 30) if match else None
