"""Memory on GPUs that are not here: weights and cache by the engine's assignment rule, compute from its CPU answer.

Only used for a machine that is planned from afar, or an engine built without the GPU's backend; where the engine sees
the GPU it is asked instead. Weights and cache are exact sums over the engine's own tensor table. Compute buffers are
a bound: the engine's graph for the same settings on the CPU, plus the staging copy that offloaded prompt batches
need for weights left on the CPU (the mistake that real out-of-memory reports repeat). Rows say ``origin = "model"``.

The assignment rule is llama.cpp's: the last ``gpu_layers`` of (repeating layers + output) go to GPUs, split in
proportion to free memory or ``tensor_split``; the token embedding stays on the host; experts of the first
``cpu_moe_layers`` layers stay on the host.
"""

from bisect import bisect_right
from itertools import accumulate

from planner.engine.answers import Buffers, LayerBytes, Weights
from planner.estimate.memory import ENGINE_STRUCTURES_BYTES, HOST
from planner.estimate.rows import device_row
from planner.types.machine import Gpu, Machine
from planner.types.plan import DeviceMemory
from planner.types.settings import Settings

__all__ = [
    "DRIVER_BYTES",
    "gpu_of",
    "in_one_budget",
    "layers_per_device",
    "modelled_memory",
    "unified_budget_bytes",
]

# What a driver's context, its libraries and pools take on each GPU beside every buffer. CUDA: 250 MiB on an RTX 3080
# to 712 MiB on Blackwell in published exit tables (llama.cpp's "unaccounted" column); the upper end is used. The
# others are assumptions of the same kind without a published table.
DRIVER_BYTES = {"cuda": 712 << 20, "rocm": 512 << 20, "vulkan": 256 << 20, "sycl": 512 << 20, "metal": 128 << 20}


def unified_budget_bytes(machine: Machine) -> int | None:
    """RAM that a GPU with unified memory may use: what is free, and no more than the GPU may address."""
    addressable = [gpu.memory_total_bytes for gpu in machine.gpus if gpu.unified_memory and gpu.memory_total_bytes]
    if not any(gpu.unified_memory for gpu in machine.gpus):
        return None
    return min([machine.memory.usable_bytes, *addressable])


def layers_per_device(machine: Machine, settings: Settings, layers: int) -> tuple[list[int], int]:
    """Device of each repeating layer (GPU index, −1 for the host) and of the output.

    Published rule of ``llama_model::load_tensors``: ``first = max(layers + 1 - gpu_layers, 0)``; layer ``i`` from
    there on belongs to the first GPU whose cumulated share exceeds ``(i - first) / offloaded``.
    """
    gpus = machine.gpus
    wanted = layers + 1 if settings.gpu_layers < 0 else min(settings.gpu_layers, layers + 1)
    if not gpus or wanted == 0:
        return [-1] * layers, -1
    if settings.split_mode == "none":
        shares = [1.0]
    elif settings.tensor_split:
        shares = list(settings.tensor_split)
    else:
        shares = [float(gpu.memory_free_bytes or gpu.memory_total_bytes or 1) for gpu in gpus]
    total = sum(shares)
    cumulated = [value / total for value in accumulate(shares)]
    first = layers + 1 - wanted
    places = [
        -1 if index < first else min(bisect_right(cumulated, (index - first) / wanted), len(cumulated) - 1)
        for index in range(layers + 1)
    ]
    return places[:layers], places[layers]


def modelled_memory(
    machine: Machine, settings: Settings, weights: Weights, full: Buffers, lean: Buffers, *, process_bytes: int
) -> tuple[DeviceMemory, ...]:
    """Rows for every GPU that gets something, and for the host; one row where memory is unified.

    ``full`` and ``lean`` are the CPU engine's buffers for the same settings, with all and with one output.
    """
    places, output_place = layers_per_device(machine, settings, len(weights.layers))
    cache_total = sum(buffer.context_bytes for buffer in full.buffers)
    full_compute = sum(buffer.compute_bytes for buffer in full.buffers)
    lean_compute = min(full_compute, sum(buffer.compute_bytes for buffer in lean.buffers))
    held = _weights_per_place(weights, settings, places, output_place)
    cache = _cache_per_place(cache_total, places, offload=settings.kv_offload)
    staging = _staging_bytes(weights, settings, places, output_place)
    used = sorted({place for place in [*places, output_place] if place >= 0})
    rows = []
    for place in used:
        gpu = machine.gpus[place]
        compute = full_compute if place == output_place else lean_compute
        compute += staging if place == used[0] else 0
        driver = DRIVER_BYTES.get(gpu.backend, 0)
        rows.append(
            device_row(
                gpu_of(gpu),
                private=held.get(place, 0),
                cache=cache.get(place, 0),
                compute=compute,
                process=driver,
                available_bytes=gpu.memory_free_bytes,
                origin="model",
            )
        )
    host_compute = full_compute if -1 in places else lean_compute
    host = _host_row(machine, settings, weights, held.get(-1, 0), cache.get(-1, 0), host_compute, full, process_bytes)
    return in_one_budget(machine, weights, (*rows, host))


def in_one_budget(machine: Machine, weights: Weights, rows: tuple[DeviceMemory, ...]) -> tuple[DeviceMemory, ...]:
    """The rows as they are, or one row where the GPU's memory is the host's: weights then count once.

    With discrete GPUs every device must fit by itself; with unified memory only the sum must, and no more than the GPU
    may address.
    """
    budget = unified_budget_bytes(machine)
    if budget is None:
        return rows
    host = rows[-1]
    held = min(sum(row.weights_bytes for row in rows), max(weights.file_bytes, *(row.weights_bytes for row in rows)))
    return (
        device_row(
            rows[0].device,
            private=held,
            cache=sum(row.cache_bytes for row in rows),
            compute=sum(row.compute_bytes for row in rows),
            output=host.output_bytes,
            work=host.work_bytes,
            process=sum(row.process_bytes for row in rows),
            available_bytes=budget,
            origin=host.origin,
        ),
    )


def gpu_of(gpu: Gpu) -> str:
    """The device name of a GPU in plans: the engine's own when it is known, else backend and index."""
    return gpu.engine_device or f"{gpu.backend.upper()}{gpu.index}"


def _layer_bytes(layer: LayerBytes, index: int, settings: Settings) -> tuple[int, int]:
    """Bytes of one layer that follow it, and bytes of its experts that stay on the host."""
    if index < settings.cpu_moe_layers:
        return layer.dense_bytes, layer.expert_bytes
    return layer.dense_bytes + layer.expert_bytes, 0


def _weights_per_place(weights: Weights, settings: Settings, places: list[int], output: int) -> dict[int, int]:
    held: dict[int, int] = {-1: weights.input_bytes}
    if weights.tied:
        # One matrix in the file, but gathered on the host and multiplied where the output is.
        held[-1] += weights.head_bytes if output != -1 else 0
    held[output] = held.get(output, 0) + weights.head_bytes
    for index, (layer, place) in enumerate(zip(weights.layers, places, strict=True)):
        here, on_host = _layer_bytes(layer, index, settings)
        held[place] = held.get(place, 0) + here
        held[-1] += on_host
    return held


def _cache_per_place(total: int, places: list[int], *, offload: bool) -> dict[int, int]:
    if not offload or not places:
        return {-1: total}
    share: dict[int, int] = {}
    for place in places:
        share[place] = share.get(place, 0) + 1
    parts = {place: total * count // len(places) for place, count in share.items()}
    first = next(iter(parts))
    parts[first] += total - sum(parts.values())
    return parts


def _staging_bytes(weights: Weights, settings: Settings, places: list[int], output: int) -> int:
    """The largest piece of host weights that prompt batches copy to the GPU (``op_offload``)."""
    if not settings.op_offload or all(place < 0 for place in places):
        return 0
    pieces = [weights.head_bytes] if output == -1 else []
    for index, (layer, place) in enumerate(zip(weights.layers, places, strict=True)):
        _, on_host = _layer_bytes(layer, index, settings)
        pieces.append(layer.dense_bytes + layer.expert_bytes if place == -1 else on_host)
    return max(pieces, default=0)


def _host_row(
    machine: Machine,
    settings: Settings,
    weights: Weights,
    held: int,
    cache: int,
    compute: int,
    full: Buffers,
    process_bytes: int,
) -> DeviceMemory:
    everything = sum(weights.buffers.values()) or 1
    repack_share = sum(size for name, size in weights.buffers.items() if name == "CPU_REPACK") / everything
    # The embedding table is never repacked, layers are; the share over all tensors is the engine's own.
    repacked = int(max(0, held - weights.input_bytes) * repack_share)
    mapped = held if settings.load_mode in ("mmap", "mmap+mlock") else 0
    private = 0 if mapped else held - repacked
    return device_row(
        HOST,
        mapped=mapped,
        private=private,
        repacked=repacked,
        cache=cache,
        compute=compute,
        output=full.output_bytes,
        work=full.work_bytes or 0,
        process=process_bytes + ENGINE_STRUCTURES_BYTES,
        available_bytes=machine.memory.usable_bytes,
        origin="model",
    )
