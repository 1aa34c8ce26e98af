"""Puts the parts together: collect every raw answer, scrub, interpret; one broken part costs a note, not the report."""

from typing import TYPE_CHECKING

import msgspec

from planner import __version__
from planner.machine import amd, apple, cgroup, cpu, disk, intel, memory, nvidia, pci, power, system
from planner.machine.answers import Answers, Capture, Recorder
from planner.machine.host import Host
from planner.machine.scrub import scrub
from planner.types.machine import Gpu, Machine

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from planner.machine.gpu import Found
    from planner.types.machine import Cpu, Memory

__all__ = ["collect", "detect", "interpret"]

_GPU_PARTS: "tuple[tuple[str, Callable[[Answers, Memory], Found]], ...]" = (
    ("NVIDIA", nvidia.interpret),
    ("AMD", amd.interpret),
    ("Intel", intel.interpret),
    ("Apple", apple.interpret),
)


def detect(host: Host | None = None, *, models_dir: "Path") -> Machine:
    """This machine, detected now. ``models_dir`` is where models would go: its free space is part of the answer.

    Takes well under half a second; a vendor library that hangs costs at most two seconds more and leaves a note.
    """
    capture = collect(host or Host(), models_dir)
    source = f"detected on this machine by planner {__version__}"
    return msgspec.structs.replace(interpret(capture), kind="detected", source=source)


def collect(host: Host, models_dir: "Path") -> Capture:
    """Every raw answer that :func:`interpret` needs, without names, serial numbers or home folders."""
    ask = Recorder(host)
    system.collect(ask)
    cgroup.collect(ask)
    cpu.collect(ask)
    memory.collect(ask)
    disk.collect(ask, models_dir)
    power.collect(ask)
    pci.collect(ask)
    nvidia.collect(ask)
    amd.collect(ask)
    intel.collect(ask)
    apple.collect(ask)
    answers = scrub(ask.answers(), host.private_words())
    return Capture(source=f"recorded by planner {__version__}; names and serial numbers removed", answers=answers)


def interpret(capture: Capture) -> Machine:
    """The machine that a capture describes; pure, so the same capture always gives the same machine."""
    raw = capture.answers
    values = apple.sysctl(raw)
    groups = cgroup.interpret(raw)
    processor = apple.cpu(values) if values else cpu.interpret(raw, groups)
    ram = memory.interpret(raw, groups, values)
    platform = system.interpret(raw, values)
    gpus, remarks = _gpus(raw, ram)
    return Machine(
        name=capture.name or _name(processor, ram, gpus),
        kind="recorded",
        os=platform.os,
        kernel=platform.kernel,
        architecture=platform.architecture,
        cpu=processor,
        memory=ram,
        disk=disk.interpret(raw),
        power=power.interpret(raw),
        gpus=gpus,
        source=capture.source,
        notes=platform.notes + remarks + _unreadable(raw),
    )


def _gpus(raw: Answers, ram: "Memory") -> tuple[tuple[Gpu, ...], tuple[str, ...]]:
    """All GPUs, numbered in one row; an interpreter that trips over its answers is told from "no GPU"."""
    gpus: list[Gpu] = []
    notes: list[str] = []
    for vendor, part in _GPU_PARTS:
        try:
            found, remarks = part(raw, ram)
        except Exception as error:  # noqa: BLE001 - a driver's surprise must not cost the whole report
            notes.append(
                f"{vendor}: detection broke on this machine's answers ({type(error).__name__}), please report it"
            )
            continue
        gpus += found
        notes += remarks
    return tuple(msgspec.structs.replace(gpu, index=index) for index, gpu in enumerate(gpus)), tuple(notes)


def _unreadable(raw: Answers) -> tuple[str, ...]:
    return tuple(f"{name}: {reason}" for name, reason in sorted(raw.failures.items()) if name.startswith("/proc"))


def _name(processor: "Cpu", ram: "Memory", gpus: tuple[Gpu, ...]) -> str:
    """What a person would call this machine, for want of its own name, which stays private."""
    parts = [processor.model or "unknown processor", f"{round(ram.total_bytes / (1 << 30))} GiB"]
    return ", ".join([*parts, *dict.fromkeys(gpu.name or f"{gpu.vendor} GPU" for gpu in gpus)])
