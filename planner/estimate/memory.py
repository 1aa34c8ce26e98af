"""Adds up what a deployment on the CPU holds; every term is the engine's own answer or says that it is not.

The mistake it prevents: counting the weights once where the CPU backend keeps the mapped file *and* a repacked copy.
Where GPUs take part, :mod:`planner.estimate.devices` adds up device by device.
"""

from planner.engine.answers import Buffers, Weights
from planner.estimate.rows import HOST, device_row
from planner.types.plan import DeviceMemory
from planner.types.settings import Settings

__all__ = ["ENGINE_STRUCTURES_BYTES", "REPACKED", "host_memory"]

# Resident bytes beside every buffer and the idle process: tensor metadata, graphs, scheduler, thread stacks, malloc's
# slack. bench/memory.py records what stays unexplained in each configuration: 10 to 22 MiB with this at zero.
ENGINE_STRUCTURES_BYTES = 19 << 20

_MAPPED_MODES = ("mmap", "mmap+mlock")
REPACKED = ("CPU_REPACK", "AMX", "CPU_AARCH64", "CPU_HBM")


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
    if name in REPACKED:
        return "repacked"
    return "mapped" if settings.load_mode in _MAPPED_MODES else "private"
