"""What the engine said about one model shape, as structs that can be kept: weights, buffers, types.

Everything here is the engine's own answer or a sum over it; no rule of llama.cpp is written down again.
"""

import re
from collections import Counter
from typing import NamedTuple

from planner.types import Report
from planner.types.machine import EngineDevice

__all__ = [
    "ANSWERS_FORMAT",
    "Buffer",
    "Buffers",
    "LayerBytes",
    "ShapeAnswers",
    "SystemAnswer",
    "TensorTable",
    "Weights",
    "weights_from_rows",
]

_LAYER = re.compile(r"^blk\.(\d+)\.")
_EXPERTS = re.compile(r"_(ch)?exps\.")


class LayerBytes(Report, frozen=True, kw_only=True):
    """Weight bytes of one layer; of ``expert_bytes`` (the routed experts) a token reads few.

    ``buffer`` and ``expert_buffer`` name the buffer type that holds most of either; empty where nothing is loaded.
    """

    dense_bytes: int
    expert_bytes: int
    buffer: str = ""
    expert_buffer: str = ""


class Weights(Report, frozen=True, kw_only=True):
    """Where the weights of one model × quantization go.

    ``file_bytes`` sums all tensors. ``buffers`` are bytes per buffer type as the engine allocates them, a tied head
    that needs a second copy included. ``mapped`` is the span of the file that mmap holds per buffer type.
    ``head_bytes`` is what a token reads for the output projection (the token embedding when tied), ``input_bytes``
    the embedding table that is only gathered from (0 when tied: it is the head). ``head_buffer`` is the buffer type
    that multiplies it. ``loading`` is, per load mode, the most that is in RAM while they are read, and what of it stays
    free in the heap. ``lazy_bytes`` are those of lookup tables that stay in the file and are read row by row; no other
    field but ``file_bytes`` counts them. ``recurrent_layers`` keep a state instead of a cache (delta nets, state
    spaces).
    """

    file_bytes: int
    buffers: dict[str, int]
    mapped: dict[str, int]
    layers: tuple[LayerBytes, ...]
    input_bytes: int
    head_bytes: int
    tied: bool
    head_buffer: str = ""
    loading: dict[str, tuple[int, int, int]] = {}
    lazy_bytes: int = 0
    recurrent_layers: int = 0


class Buffer(Report, frozen=True, kw_only=True):
    """One buffer type of a context: its cache (or recurrent state) and its compute bytes, weights aside."""

    name: str
    host: bool
    model_bytes: int
    context_bytes: int
    compute_bytes: int


class Buffers(Report, frozen=True, kw_only=True):
    """All buffers of one context, or the engine's reason for refusing it.

    ``work_bytes`` is what the CPU's kernels work in, ``structures_bytes`` what the engine holds beside all buffers:
    tables and two graphs of ``graph_bytes`` each. ``None``: this build does not tell. ``scheduler_bytes`` are asked for
    and never written.
    """

    buffers: tuple[Buffer, ...] = ()
    output_bytes: int = 0
    work_bytes: int | None = None
    structures_bytes: int | None = None
    graph_bytes: int | None = None
    scheduler_bytes: int = 0
    vocabulary_tokens: int = 0
    log: tuple[str, ...] = ()
    refused: str | None = None


ANSWERS_FORMAT = 5
"""What :class:`ShapeAnswers` holds; answers that an older planner kept in another form are asked again."""


class TensorTable(NamedTuple):
    """Every tensor of a file: ``(name, bytes, buffer type, offset)`` in file order, and sums per buffer type.

    A tensor without a buffer type is not loaded. The other fields are those of :class:`Weights`.
    """

    rows: tuple[tuple[str, int, str, int], ...]
    buffers: dict[str, int]
    mapped: dict[str, int]
    loading: dict[str, tuple[int, int, int]]
    lazy_bytes: int = 0


class ShapeAnswers(Report, frozen=True, kw_only=True):
    """All that was asked about one model shape, by question."""

    format: int = 0
    types: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {}
    weights: dict[str, Weights] = {}
    buffers: dict[str, Buffers] = {}


class SystemAnswer(Report, frozen=True, kw_only=True):
    """The engine's description of itself, as the child's ``system`` operation tells it."""

    package_version: str
    build: str
    llama_cpp: str | None
    ggml: str | None
    system_info: str
    gpu_offload: bool
    devices: tuple[EngineDevice, ...]
    python: str
    process_bytes: int | None


def weights_from_rows(
    rows: list[tuple[str, int, str, int]],
    buffers: dict[str, int],
    mapped: dict[str, int],
    loading: dict[str, tuple[int, int, int]] | None = None,
    lazy_bytes: int = 0,
) -> Weights:
    """Sum the engine's tensor rows ``(name, bytes, buffer, offset)`` into what the planner needs of them."""
    dense: dict[int, Counter[str]] = {}
    experts: dict[int, Counter[str]] = {}
    named: dict[str, tuple[int, str]] = {}
    for name, size, buffer, _offset in rows:
        match = _LAYER.match(name)
        if match is None:
            named[name] = (size, buffer)
            continue
        part = experts if _EXPERTS.search(name) else dense
        # Without a buffer it is a multi-token-prediction block that stays in the file: no token reads it.
        part.setdefault(int(match[1]), Counter())[buffer] += size if buffer else 0
    embedding = named.get("token_embd.weight", (0, ""))
    tied = "output.weight" not in named
    nothing: Counter[str] = Counter()
    layers = tuple(
        _layer_bytes(dense.get(i, nothing), experts.get(i, nothing)) for i in range(1 + max([-1, *dense, *experts]))
    )
    head = embedding if tied else named["output.weight"]
    # A tied head lies where the last layer is, in a second copy of the table if need be.
    head_buffer = next((layer.buffer for layer in reversed(layers) if layer.buffer), head[1]) if tied else head[1]
    return Weights(
        file_bytes=sum(size for _, size, _, _ in rows),
        buffers=buffers,
        mapped=mapped,
        layers=layers,
        input_bytes=0 if tied else embedding[0],
        head_bytes=head[0],
        tied=tied,
        head_buffer=head_buffer,
        loading=loading or {},
        lazy_bytes=lazy_bytes,
        recurrent_layers=len({match[1] for name, *_ in rows if ".ssm_" in name and (match := _LAYER.match(name))}),
    )


def _layer_bytes(dense: Counter[str], experts: Counter[str]) -> LayerBytes:
    return LayerBytes(
        dense_bytes=dense.total(),
        expert_bytes=experts.total(),
        buffer=_most(dense),
        expert_buffer=_most(experts),
    )


def _most(sizes: Counter[str]) -> str:
    """The buffer type that holds most; of equals the first by name."""
    return min((buffer for buffer in sizes if sizes[buffer]), key=lambda buffer: (-sizes[buffer], buffer), default="")
