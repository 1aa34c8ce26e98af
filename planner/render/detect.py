"""A machine as text: what computes, what holds the weights, what limits us, and what could not be found out."""

from collections.abc import Sequence
from itertools import groupby

from planner import units
from planner.render.layout import bullets, facts, labelled, section
from planner.render.style import PLAIN, Style
from planner.render.text import finish
from planner.types.machine import Cpu, Disk, Engine, Gpu, Machine, Memory, Power

__all__ = ["machine_text"]


def machine_text(machine: Machine, style: Style = PLAIN) -> str:
    """The whole machine, with what could not be found out."""
    lines = [
        style.heading(f"{machine.name} ({machine.kind})"),
        *labelled("System", [facts([machine.os, machine.kernel, machine.architecture], style)]),
        *labelled("Processor", _cpu(machine.cpu, style)),
        *labelled("Memory", _memory(machine.memory)),
        *(labelled("Disk", [_disk(machine.disk)]) if machine.disk else []),
        *labelled("Power", [_power(machine.power)]),
    ]
    lines += _gpus(machine.gpus, style)
    lines += labelled("Engine", _engine(machine.engine, style) if machine.engine else ["none"])
    lines.append("")
    lines += section("Notes", bullets(machine.notes, style), style)
    lines.append("Where each number was read: planner detect --json")
    return finish(lines)


def _cpu(cpu: Cpu, style: Style) -> list[str]:
    quota = f"quota of {cpu.quota_cpus:g} CPUs" if cpu.quota_cpus is not None else "no quota"
    affinity = f"affinity to {cpu.affinity_cpus}" if cpu.affinity_cpus is not None else None
    limits = facts([affinity, quota], style)
    kinds = ", ".join(f"{kind.cores} {kind.name}" for kind in cpu.core_kinds if kind.name != "uniform")
    lines = [
        facts([cpu.model or "unknown model", cpu.vendor], style),
        facts(
            [
                _known(cpu.sockets, "socket"),
                _known(cpu.physical_cores, "physical core") + (f" ({kinds})" if kinds else ""),
                _known(cpu.logical_cpus, "logical CPU"),
            ],
            style,
        ),
        f"{_known(cpu.usable_threads, 'thread')} usable ({limits})",
    ]
    if cpu.isa:
        lines.append("instruction sets " + " ".join(cpu.isa))
    if cpu.caches:
        lines.append("caches " + facts([_cache(c.level, c.kind, c.size_bytes, c.instances) for c in cpu.caches], style))
    if len(cpu.numa_nodes) > 1:
        lines.append(f"{len(cpu.numa_nodes)} NUMA nodes")
    return lines


def _known(count: int | None, noun: str) -> str:
    if count is None:
        return f"unknown number of {noun}s"
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def _cache(level: int, kind: str, size_bytes: int, instances: int | None) -> str:
    letter = {"data": "d", "instruction": "i"}.get(kind, "")
    # Cache sizes are whole KiB; an exact number beats a rounded one here.
    size = f"{size_bytes // 1024} KiB" if size_bytes % (1 << 20) else f"{size_bytes >> 20} MiB"
    return f"L{level}{letter} {size}" + (f" × {instances}" if instances and instances > 1 else "")


def _memory(memory: Memory) -> list[str]:
    swap = "swap unknown" if memory.swap_total_bytes is None else f"swap {_size(memory.swap_total_bytes)}"
    lines = [f"{units.gib(memory.total_bytes)} in all, {units.gib(memory.available_bytes)} available, {swap}"]
    for limit in memory.limits:
        room = units.gib(limit.available_bytes)
        lines.append(f"limited by cgroup {limit.path} to {units.gib(limit.limit_bytes)}, {room} of it free")
    if memory.bandwidth_bytes_per_s is not None:
        lines.append(f"bandwidth {memory.bandwidth_bytes_per_s / 1e9:.0f} GB/s (data sheet)")
    lines.append(f"{units.gib(memory.usable_bytes)} usable for a model")
    return lines


def _size(size_bytes: int) -> str:
    return "none" if size_bytes == 0 else units.gib(size_bytes)


def _disk(disk: Disk) -> str:
    return f"{units.gib(disk.free_bytes)} free of {units.gib(disk.total_bytes)} where models go ({disk.path})"


def _power(power: Power) -> str:
    if power.on_battery is None:
        return "unknown"
    charge = "" if power.battery_percent is None else f" ({power.battery_percent:.0f} % charged)"
    return ("on battery" if power.on_battery else "on mains") + charge


def _gpus(gpus: Sequence[Gpu], style: Style) -> list[str]:
    """One paragraph for each kind of GPU: neighbours that read alike are counted, not repeated."""
    if not gpus:
        return labelled("GPU", ["none found"])
    lines: list[str] = []
    for words, alike in groupby(gpus, key=lambda gpu: _gpu(gpu, style)):
        indices = [gpu.index for gpu in alike]
        last = f" to {indices[-1]}" if len(indices) > 1 else ""
        lines += labelled(f"GPU {indices[0]}{last}", words)
    return lines


def _gpu(gpu: Gpu, style: Style) -> list[str]:
    memory = f"{units.gib(gpu.memory_total_bytes)} memory, {units.gib(gpu.memory_free_bytes)} free"
    pcie = None
    if gpu.pcie_generation is not None and gpu.pcie_lanes is not None:
        pcie = f"PCIe {gpu.pcie_generation} × {gpu.pcie_lanes}"
    return [
        facts([gpu.name or f"unnamed {gpu.vendor} GPU", gpu.backend, gpu.engine_device], style),
        memory + (", shared with the system" if gpu.unified_memory else ""),
        facts(
            [
                f"compute capability {gpu.compute_capability}" if gpu.compute_capability else None,
                f"driver {gpu.driver}" if gpu.driver else None,
                f"power limit {gpu.power_limit_watts:.0f} W" if gpu.power_limit_watts is not None else None,
                pcie,
                "MIG on" if gpu.mig else None,
            ],
            style,
        ),
    ]


def _engine(engine: Engine, style: Style) -> list[str]:
    devices = ", ".join(device.name for device in engine.devices) or "no device listed"
    offload = "can use a GPU" if engine.gpu_offload else "built for the CPU alone"
    version = f"llama.cpp {engine.llama_cpp}" if engine.llama_cpp else None
    return [
        facts([f"llama-cpp-python {engine.package_version}", version, f"build {engine.build[:12]}"], style),
        facts([offload, f"devices: {devices}"], style),
    ]
