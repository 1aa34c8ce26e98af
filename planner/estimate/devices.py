"""Memory on GPUs and the host beside them, buffer by buffer as the engine places them; GPUs may be phantoms.

Three mistakes it prevents: counting "the memory" where there are several devices, each of which must fit by itself;
counting pinned host buffers (``CUDA_Host``) as the card's; and forgetting what no buffer line shows, the driver's
context on each card.
"""

from collections.abc import Sequence

from planner.engine.answers import Buffers, Weights
from planner.engine.devices import HOST, device_names, device_of
from planner.estimate.bound import compute_bound_bytes, host_logits_bytes
from planner.estimate.memory import REPACKED, engine_structures_bytes
from planner.estimate.rows import device_row
from planner.types.machine import Backend, Gpu, Machine
from planner.types.plan import DeviceMemory, MemoryOrigin
from planner.types.settings import Settings

__all__ = ["DRIVER_BYTES", "in_one_budget", "memory_on_devices", "unified_budget_bytes"]

# What a driver's context, its libraries and pools take on each GPU beside every buffer: the most that published exit
# tables of llama.cpp show ("unaccounted", docs/memory.md). CUDA: 346 MiB on a P100 to 712 MiB on Blackwell. The others
# are assumptions of the same kind; where memory is also the desktop's, a Radeon 8060S shows 670 and 1454 MiB.
DRIVER_BYTES: dict[Backend, int] = {
    "cuda": 712 << 20,
    "rocm": 712 << 20,
    "vulkan": 400 << 20,
    "sycl": 512 << 20,
    "metal": 128 << 20,
}

_UNIFIED_DRIVER_BYTES: dict[Backend, int] = {"rocm": 1454 << 20, "vulkan": 670 << 20}

_MAPPED_MODES = ("mmap", "mmap+mlock")


def memory_on_devices(
    machine: Machine,
    settings: Settings,
    weights: Weights,
    full: Buffers,
    *,
    process_bytes: int,
    origin: MemoryOrigin,
) -> tuple[DeviceMemory, ...]:
    """Rows for every GPU that gets something, and for the host last; one row where memory is unified.

    ``weights`` and ``full`` are the engine's answers with these GPUs (its own, or phantoms of them). For phantoms a
    margin covers what another build of the engine would take.
    """
    gpus = dict(zip(device_names(machine.gpus), machine.gpus, strict=True))
    parts = _parts(settings, weights, full)
    host = parts.setdefault(HOST, {})
    host["process"] = process_bytes + engine_structures_bytes(full)
    if origin == "phantom":
        for part in parts.values():
            compute = part.get("compute", 0)
            bound = compute_bound_bytes(compute, settings, devices=len(parts) - 1) if compute else 0
            part["margin"] = max(0, bound - compute)
        if gpus and device_of(weights.head_buffer) == HOST:
            host["margin"] += host_logits_bytes(full.vocabulary_tokens, settings)
    rows = [
        device_row(
            device,
            **(part if device == HOST else part | {"process": _driver_bytes(gpus.get(device))}),
            available_bytes=_available_bytes(machine, gpus, device),
            origin=origin,
        )
        for device, part in sorted(parts.items(), key=lambda item: (item[0] == HOST, item[0]))
    ]
    return in_one_budget(machine, settings, weights, rows)


def _parts(settings: Settings, weights: Weights, full: Buffers) -> dict[str, dict[str, int]]:
    """Bytes by device and part, as the engine's buffers name them."""
    parts: dict[str, dict[str, int]] = {}
    for name, size in weights.buffers.items():
        device = device_of(name)
        _add(parts, device, "private" if device != HOST else _host_part(name, settings), size)
    for buffer in full.buffers:
        _add(parts, device_of(buffer.name), "cache", buffer.context_bytes)
        _add(parts, device_of(buffer.name), "compute", buffer.compute_bytes)
    _add(parts, HOST, "output", full.output_bytes)
    _add(parts, HOST, "work", full.work_bytes or 0)
    return parts


def _host_part(name: str, settings: Settings) -> str:
    """What of the host's weights a buffer type is. Under mmap the engine maps what it would otherwise pin."""
    if name in REPACKED:
        return "repacked"
    return "mapped" if settings.load_mode in _MAPPED_MODES else "private"


def _driver_bytes(gpu: Gpu | None) -> int:
    if gpu is None:
        return 0
    usual = DRIVER_BYTES.get(gpu.backend, 0)
    return _UNIFIED_DRIVER_BYTES.get(gpu.backend, usual) if gpu.unified_memory else usual


def _available_bytes(machine: Machine, gpus: dict[str, Gpu], device: str) -> int | None:
    if device == HOST:
        return machine.memory.usable_bytes
    return gpus[device].memory_free_bytes if device in gpus else None


def unified_budget_bytes(machine: Machine) -> int | None:
    """RAM that a GPU with unified memory may use: what is free, and no more than the GPU may address."""
    addressable = [gpu.memory_total_bytes for gpu in machine.gpus if gpu.unified_memory and gpu.memory_total_bytes]
    if not any(gpu.unified_memory for gpu in machine.gpus):
        return None
    return min([machine.memory.usable_bytes, *addressable])


def in_one_budget(
    machine: Machine, settings: Settings, weights: Weights, rows: Sequence[DeviceMemory]
) -> tuple[DeviceMemory, ...]:
    """The rows as they are, or one row where the GPU's memory is the host's.

    With discrete GPUs every device must fit by itself; with unified memory only the sum must, and no more than the GPU
    may address. A mapped file that both look at is there once.
    """
    budget = unified_budget_bytes(machine)
    if budget is None:
        return tuple(rows)
    first, host = rows[0], rows[-1]
    held = sum(row.weights_bytes for row in rows)
    if settings.load_mode in _MAPPED_MODES:
        held = min(held, max(weights.file_bytes, *(row.weights_bytes for row in rows)))
    return (
        device_row(
            first.device,
            private=held,
            cache=sum(row.cache_bytes for row in rows),
            compute=sum(row.compute_bytes for row in rows),
            output=host.output_bytes,
            work=host.work_bytes,
            process=sum(row.process_bytes for row in rows),
            margin=sum(row.margin_bytes for row in rows),
            available_bytes=budget,
            origin=host.origin,
        ),
    )


def _add(parts: dict[str, dict[str, int]], device: str, part: str, size: int) -> None:
    held = parts.setdefault(device, {})
    held[part] = held.get(part, 0) + size
