"""Adds up, device by device, what a deployment holds; every term is the engine's own answer or says that it is not.

Two mistakes it prevents: counting the weights once where the CPU backend keeps the mapped file *and* a repacked copy,
and counting "the memory" where there are several devices, each of which must fit by itself.
"""

from planner.engine.answers import Buffers, Weights
from planner.estimate.rows import device_row
from planner.types.machine import Machine
from planner.types.plan import DeviceMemory
from planner.types.settings import Settings

__all__ = ["ENGINE_STRUCTURES_BYTES", "HOST", "host_memory", "memory_on_engine_devices"]

HOST = "CPU"

# Resident bytes beside every buffer and the idle process: tensor metadata, graphs, scheduler, thread stacks, malloc's
# slack. bench/memory.py records what stays unexplained in each configuration: 10 to 22 MiB with this at zero.
ENGINE_STRUCTURES_BYTES = 19 << 20

_MAPPED_MODES = ("mmap", "mmap+mlock")
_REPACKED = ("CPU_REPACK", "AMX", "CPU_AARCH64", "CPU_HBM")


def host_memory(
    settings: Settings,
    weights: Weights,
    full: Buffers,
    lean: Buffers,
    *,
    process_bytes: int,
    available_bytes: int | None,
) -> DeviceMemory:
    """Memory of a deployment that runs on the CPU alone, exactly as this engine would allocate it.

    ``full`` are the buffers of ``settings``; ``lean`` those with one output per sequence, at the depth for which
    ``resident_bytes`` is wanted. The engine reserves compute memory for logits of a whole batch and masks of the whole
    context, but a chat only asks for the last token's logits and fills its context slowly, so part of the reservation
    is never touched: ``total_bytes`` counts it (the promise), ``resident_bytes`` does not.
    """
    mapped, private, repacked = _host_weights(settings, weights)
    cache = sum(buffer.context_bytes for buffer in full.buffers)
    compute = sum(buffer.compute_bytes for buffer in full.buffers)
    work = full.work_bytes or 0
    untouched = max(0, compute - sum(buffer.compute_bytes for buffer in lean.buffers))
    # Without flash attention the kernels copy the whole K·Q of a batch: work space grows with the depth, too.
    untouched += max(0, work - (lean.work_bytes or 0))
    return device_row(
        HOST,
        mapped=mapped,
        private=private,
        repacked=repacked,
        cache=cache,
        compute=compute,
        output=full.output_bytes,
        work=work,
        process=process_bytes + ENGINE_STRUCTURES_BYTES,
        untouched=untouched,
        available_bytes=available_bytes,
        origin="engine",
    )


def memory_on_engine_devices(
    machine: Machine,
    settings: Settings,
    weights: Weights,
    full: Buffers,
    *,
    process_bytes: int,
    driver_bytes: int,
) -> tuple[DeviceMemory, ...]:
    """Memory on the devices that the engine itself sees, GPU by GPU and the host last.

    ``driver_bytes`` is what a driver's context takes on each GPU beside all buffers. Pinned host buffers
    (``CUDA_Host``) are RAM. Where memory is unified the caller makes one row of them.
    """
    free = {gpu.engine_device: gpu.memory_free_bytes for gpu in machine.gpus if gpu.engine_device}
    rows: dict[str, dict[str, int]] = {}
    for name, size in weights.buffers.items():
        device = _device_of(name, host=_is_host(name, full))
        part = _host_part(name, settings) if device == HOST else "private"
        _add(rows, device, part, size if part != "mapped" else weights.mapped.get(name, size))
    for buffer in full.buffers:
        device = _device_of(buffer.name, host=buffer.host)
        _add(rows, device, "cache", buffer.context_bytes)
        _add(rows, device, "compute", buffer.compute_bytes)
    _add(rows, HOST, "output", full.output_bytes)
    _add(rows, HOST, "work", full.work_bytes or 0)
    _add(rows, HOST, "process", process_bytes + ENGINE_STRUCTURES_BYTES)
    for device in rows:
        if device != HOST:
            _add(rows, device, "process", driver_bytes)
    ordered = sorted(rows, key=lambda device: (device == HOST, device))
    return tuple(
        device_row(
            device,
            **rows[device],
            available_bytes=machine.memory.usable_bytes if device == HOST else free.get(device),
            origin="engine",
        )
        for device in ordered
    )


def _host_weights(settings: Settings, weights: Weights) -> tuple[int, int, int]:
    """Mapped, private and repacked bytes on the host, as the engine's own buffer lines print them."""
    mapped = private = repacked = 0
    for name, size in weights.buffers.items():
        part = _host_part(name, settings)
        if part == "repacked":
            repacked += size
        elif part == "mapped":
            mapped += weights.mapped.get(name, size)
        else:
            private += size
    return mapped, private, repacked


def _host_part(name: str, settings: Settings) -> str:
    if name in _REPACKED:
        return "repacked"
    return "mapped" if settings.load_mode in _MAPPED_MODES else "private"


def _is_host(name: str, full: Buffers) -> bool:
    return name in _REPACKED or any(buffer.name == name and buffer.host for buffer in full.buffers)


def _device_of(buffer: str, *, host: bool) -> str:
    return HOST if host or buffer.startswith("CPU") or buffer.endswith("_Host") or buffer in _REPACKED else buffer


def _add(rows: dict[str, dict[str, int]], device: str, part: str, size: int) -> None:
    row = rows.setdefault(device, {})
    row[part] = row.get(part, 0) + size
