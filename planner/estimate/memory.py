"""Adds up what a deployment on the CPU holds; every term is the engine's own answer or says that it is not.

Two mistakes it prevents: counting the weights once where the CPU backend keeps the mapped file *and* a repacked copy,
and forgetting that reading a model can take more than running it. Where GPUs take part,
:mod:`planner.estimate.devices` adds up device by device.
"""

from collections.abc import Iterable

from planner.engine.answers import Buffers, Weights
from planner.engine.devices import HOST
from planner.estimate.rows import device_row
from planner.types.plan import DeviceMemory
from planner.types.settings import Settings

__all__ = ["REPACKED", "engine_structures_bytes", "host_memory"]

# Pages of the engine's code that loading and computing touch beyond those of an idle process, stacks of its threads,
# malloc's slack: constant within 2 MiB over the configurations of bench/memory.py.
_CODE_BYTES = 3 << 20
# Where a build does not tell what it holds beside its buffers: what most models do.
_STRUCTURES_BYTES = 12 << 20
# A byte-pair tokenizer as the engine holds it, measured with llama.cpp's own models/ggml-vocab-*.gguf: Qwen 318 bytes
# for each token, DeepSeek 291 and 307, Llama 3 (twice as many merges as tokens) 424, SentencePiece 152.
_TOKENIZER_BYTES_PER_TOKEN = 340
# A phantom has none, but a place for each token's text all the same.
_NO_TOKENIZER_BYTES_PER_TOKEN = 40

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
    tokenizer: bool = True,
    touched_bytes: int | None = None,
) -> DeviceMemory:
    """Memory of a deployment that runs on the CPU alone, exactly as this engine would allocate it.

    ``full`` are the buffers of ``settings``; ``lean`` those with one output per sequence, at the depth for which
    ``resident_bytes`` is wanted. The engine reserves compute memory for logits of a whole batch and masks of the whole
    context, but a chat only asks for the last token's logits and fills its context slowly, so part of the reservation
    is never touched: ``total_bytes`` counts it (the promise), ``resident_bytes`` does not. Reading the weights can take
    more than running them (``margin_bytes``); a phantom has no ``tokenizer``. ``touched_bytes`` of the
    compute buffer are those that ``lean`` writes (the worker's ``touched``); else those of a buffer planned for it.
    """
    mapped, private, repacked = _host_weights(settings, weights)
    cache = sum(buffer.context_bytes for buffer in full.buffers)
    compute = sum(buffer.compute_bytes for buffer in full.buffers)
    work = full.work_bytes or 0
    touched = sum(buffer.compute_bytes for buffer in lean.buffers) if touched_bytes is None else touched_bytes
    # Without flash attention the kernels copy the whole K·Q of a batch: work space grows with the depth, too.
    worked = min(work, lean.work_bytes or 0)
    structures = engine_structures_bytes(full, tokenizer=tokenizer)
    highest, kept, threshold = weights.loading.get(settings.load_mode, (0, 0, 0))
    graph = full.graph_bytes or 0
    kept -= _reused(
        kept,
        threshold,
        [
            (full.output_bytes, full.output_bytes),
            *((each.context_bytes, each.context_bytes) for each in full.buffers),
            (graph, graph),
            (full.scheduler_bytes, 0),
            (compute, min(compute, touched)),
            (graph, graph),
            (work, worked),
        ],
    )
    held = mapped + private + repacked + cache + compute + full.output_bytes + work + structures
    per_token = _TOKENIZER_BYTES_PER_TOKEN if tokenizer else _NO_TOKENIZER_BYTES_PER_TOKEN
    reading = highest + _CODE_BYTES + full.vocabulary_tokens * per_token
    margin = max(kept, reading - held)
    # A prompt of several micro-batches leaves the graph of those without an output behind.
    untouched = compute - min(compute, touched) + work - worked + graph
    return device_row(
        HOST,
        mapped=mapped,
        private=private,
        repacked=repacked,
        cache=cache,
        compute=compute,
        output=full.output_bytes,
        work=work,
        process=process_bytes + structures,
        margin=margin,
        untouched=min(untouched, held + margin - reading),
        available_bytes=available_bytes,
        origin="engine",
    )


def engine_structures_bytes(full: Buffers | None, *, tokenizer: bool = True) -> int:
    """What the engine holds beside its buffers and an idle process: tables, three graphs, tokenizer, its code.

    Without a context (``None``) only what every process of it has.
    """
    if full is None:
        return _CODE_BYTES
    told = _STRUCTURES_BYTES if full.structures_bytes is None else full.structures_bytes + (full.graph_bytes or 0)
    per_token = _TOKENIZER_BYTES_PER_TOKEN if tokenizer else _NO_TOKENIZER_BYTES_PER_TOKEN
    return _CODE_BYTES + told + full.vocabulary_tokens * per_token


def _reused(kept_bytes: int, threshold_bytes: int, requests: Iterable[tuple[int, int]]) -> int:
    """What of the free heap later allocations write to, each given as its size and how much of it is ever written.

    One that fits is served from there; one that does not grows the heap, or is the system's from a certain size on.
    """
    left, written = kept_bytes, 0
    for size, touched in requests:
        if size <= left:
            left, written = left - size, written + touched
        elif size < threshold_bytes:
            left, written = 0, written + min(left, touched)
    return written


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
