"""Refuses machines that cannot be and mends those that contradict themselves; prevents a plan for a typing error.

What no computer can have (negative memory, no thread, an exbibyte, not-a-number) is refused with its place in the
file. A contradiction that has a safe reading (more free than total) takes the smaller number and says so.
"""

import math
import re
from typing import TypeVar

import msgspec

from planner.errors import BadInputError
from planner.types.machine import Cpu, Disk, Gpu, Machine, Memory, Power

__all__ = ["build"]

_LARGEST = 1 << 60
_MOST_CPUS = 65536
_MOST_GPUS = 256
_LONGEST_TEXT = 20_000
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
"""Control characters and bidirectional overrides: a machine file must not be able to repaint a terminal."""

S = TypeVar("S", Cpu, Memory, Disk, Power, Gpu)


def build(document: object, label: str) -> Machine:
    """The machine that a plain document describes; ``label`` names the file in errors.

    Raises :class:`BadInputError` naming the field. Values without a source get the file as their source.
    """
    try:
        machine = msgspec.convert(_walk(document, "$", label), Machine)
    except msgspec.ValidationError as error:
        raise BadInputError(f"{label}: {error}", hint="compare with the output of planner detect --json") from error
    _check_counts(machine, label)
    return _complete(_mend(machine), label)


def _walk(value: object, where: str, label: str) -> object:
    """The same document with harmless texts; numbers that nothing can be are refused."""
    if isinstance(value, dict):
        return {_clean(str(key)): _walk(item, f"{where}.{key}"[:200], label) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_walk(item, f"{where}[{index}]", label) for index, item in enumerate(value)]
    if isinstance(value, str):
        return _clean(value)
    if isinstance(value, int | float) and not 0 <= value <= _LARGEST:  # true for NaN as well
        raise _refused(label, where, value, "must lie between 0 and 1 EiB")
    return value


def _clean(text: str) -> str:
    return _CONTROL.sub("�", text[:_LONGEST_TEXT])


def _check_counts(machine: Machine, label: str) -> None:
    cpu, memory = machine.cpu, machine.memory
    for name, count in (("logical_cpus", cpu.logical_cpus), ("usable_threads", cpu.usable_threads)):
        if not 1 <= count <= _MOST_CPUS:
            raise _refused(label, f"$.cpu.{name}", count, f"must lie between 1 and {_MOST_CPUS}")
    for name, some in (
        ("physical_cores", cpu.physical_cores),
        ("sockets", cpu.sockets),
        ("affinity_cpus", cpu.affinity_cpus),
    ):
        if some is not None and not 1 <= some <= _MOST_CPUS:
            raise _refused(label, f"$.cpu.{name}", some, f"must lie between 1 and {_MOST_CPUS}")
    if cpu.quota_cpus is not None and not 0 < cpu.quota_cpus <= _MOST_CPUS:
        raise _refused(label, "$.cpu.quota_cpus", cpu.quota_cpus, "must be more than 0")
    if memory.total_bytes == 0:
        raise _refused(label, "$.memory.total_bytes", 0, "a machine has memory")
    if len(machine.gpus) > _MOST_GPUS:
        raise _refused(label, "$.gpus", len(machine.gpus), f"at most {_MOST_GPUS} GPUs")


def _mend(machine: Machine) -> Machine:
    remarks: list[str] = []
    cpu = machine.cpu
    most = math.ceil(min(cpu.logical_cpus, cpu.quota_cpus or cpu.logical_cpus))
    if cpu.usable_threads > most:
        remarks.append(f"cpu.usable_threads lowered from {cpu.usable_threads} to {most}, as many as may run at once")
        cpu = msgspec.structs.replace(cpu, usable_threads=most)
    memory = _mend_memory(machine.memory, remarks)
    gpus = []
    for index, gpu in enumerate(machine.gpus):
        total, free = gpu.memory_total_bytes, gpu.memory_free_bytes
        if total is not None and free is not None and free > total:
            remarks.append(f"gpus[{index}]: more memory free than there is; free lowered to the total")
            free = total
        gpus.append(msgspec.structs.replace(gpu, index=index, memory_free_bytes=free))
    disk = machine.disk
    if disk is not None and disk.total_bytes is not None and (disk.free_bytes or 0) > disk.total_bytes:
        remarks.append("disk: more free than there is; free lowered to the total")
        disk = msgspec.structs.replace(disk, free_bytes=disk.total_bytes)
    return msgspec.structs.replace(
        machine, cpu=cpu, memory=memory, gpus=tuple(gpus), disk=disk, notes=(*machine.notes, *remarks)
    )


def _mend_memory(memory: Memory, remarks: list[str]) -> Memory:
    available = min(memory.available_bytes, memory.total_bytes)
    bounds = [bound for limit in memory.limits for bound in (limit.limit_bytes, limit.available_bytes)]
    usable = min(memory.usable_bytes, available, *bounds)
    swap_free = memory.swap_free_bytes
    if swap_free is not None and memory.swap_total_bytes is not None:
        swap_free = min(swap_free, memory.swap_total_bytes)
    if (available, usable) != (memory.available_bytes, memory.usable_bytes):
        remarks.append("memory: more available or usable than total or limits allow; lowered to the smallest of them")
    return msgspec.structs.replace(memory, available_bytes=available, usable_bytes=usable, swap_free_bytes=swap_free)


def _complete(machine: Machine, label: str) -> Machine:
    """Every value with a source, every gap with a note, also where the file left them out."""
    disk = None if machine.disk is None else _sourced(machine.disk, label)
    return msgspec.structs.replace(
        machine,
        cpu=_sourced(machine.cpu, label),
        memory=_sourced(machine.memory, label),
        disk=disk,
        power=_sourced(machine.power, label),
        gpus=tuple(_sourced(gpu, label) for gpu in machine.gpus),
    )


def _sourced(struct: S, label: str) -> S:
    sources, notes = dict(struct.sources), dict(struct.notes)
    for field in struct.__struct_fields__:
        value: object = getattr(struct, field)
        if value is None:
            sources.pop(field, None)
            notes.setdefault(field, f"not stated in {label}")
        elif isinstance(value, str | int | float):
            sources.setdefault(field, f"stated in {label}")
    return msgspec.structs.replace(struct, sources=sources, notes=notes)


def _refused(label: str, where: str, value: object, why: str) -> BadInputError:
    return BadInputError(f"{label}: {where} is {str(value)[:60]}: {why}", hint="correct the file or make it anew")
