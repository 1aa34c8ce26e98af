"""A short key for "the same machine": measurements stored under it are reused, others are not."""

import hashlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from planner.types.machine import Machine

__all__ = ["machine_key"]

_STEP_BYTES = 1 << 28


def machine_key(machine: "Machine") -> str:
    """Twelve hexadecimal digits of what decides speed: processor, instruction sets, usable threads, RAM, GPUs.

    Free memory is left out. RAM is rounded to 256 MiB, because a kernel update moves ``MemTotal`` by a few.
    """
    parts = (
        machine.architecture,
        machine.cpu.model,
        *machine.cpu.isa,
        machine.cpu.usable_threads,
        round(machine.memory.total_bytes / _STEP_BYTES),
        *sorted(f"{gpu.name} {gpu.backend}" for gpu in machine.gpus),
    )
    return hashlib.sha256("\0".join(map(str, parts)).encode()).hexdigest()[:12]
