"""What the engine said about one model shape, as structs that can be kept: weights, buffers, types.

Everything here is the engine's own answer or a sum over it; no rule of llama.cpp is written down again.
"""

import re

from planner.types import Report
from planner.types.machine import EngineDevice

__all__ = [
    "Buffer",
    "Buffers",
    "LayerBytes",
    "ShapeAnswers",
    "SystemAnswer",
    "Weights",
    "weights_from_rows",
]

_LAYER = re.compile(r"^blk\.(\d+)\.")
_EXPERTS = re.compile(r"_(ch)?exps\.")


class LayerBytes(Report, frozen=True, kw_only=True):
    """Weight bytes of one layer; of ``expert_bytes`` (the routed experts) a token reads few."""

    dense_bytes: int
    expert_bytes: int


class Weights(Report, frozen=True, kw_only=True):
    """Where the weights of one model × quantization go.

    ``file_bytes`` sums all tensors. ``buffers`` are bytes per buffer type as the engine allocates them, a tied head
    that needs a second copy included. ``mapped`` is the span of the file that mmap holds per buffer type.
    ``head_bytes`` is what a token reads for the output projection (the token embedding when tied), ``input_bytes``
    the embedding table that is only gathered from (0 when tied: it is the head). ``recurrent_layers`` keep a state
    instead of a cache (delta nets, state spaces).
    """

    file_bytes: int
    buffers: dict[str, int]
    mapped: dict[str, int]
    layers: tuple[LayerBytes, ...]
    input_bytes: int
    head_bytes: int
    tied: bool
    recurrent_layers: int = 0


class Buffer(Report, frozen=True, kw_only=True):
    """One buffer type of a context: its cache (or recurrent state) and its compute bytes, weights aside."""

    name: str
    host: bool
    model_bytes: int
    context_bytes: int
    compute_bytes: int


class Buffers(Report, frozen=True, kw_only=True):
    """All buffers of one context, or the engine's reason for refusing it."""

    buffers: tuple[Buffer, ...] = ()
    output_bytes: int = 0
    work_bytes: int | None = None
    log: tuple[str, ...] = ()
    refused: str | None = None


class ShapeAnswers(Report, frozen=True, kw_only=True):
    """All that was asked about one model shape, by question."""

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
    rows: list[tuple[str, int, str, int]], buffers: dict[str, int], mapped: dict[str, int]
) -> Weights:
    """Sum the engine's tensor rows ``(name, bytes, buffer, offset)`` into what the planner needs of them."""
    dense: dict[int, int] = {}
    experts: dict[int, int] = {}
    named: dict[str, int] = {}
    for name, size, buffer, _offset in rows:
        match = _LAYER.match(name)
        if match is None:
            named[name] = size
            continue
        part = experts if _EXPERTS.search(name) else dense
        # Without a buffer it is a multi-token-prediction block that stays in the file: no token reads it.
        part[int(match[1])] = part.get(int(match[1]), 0) + (size if buffer else 0)
    embedding = named.get("token_embd.weight", 0)
    tied = "output.weight" not in named
    return Weights(
        file_bytes=sum(size for _, size, _, _ in rows),
        buffers=buffers,
        mapped=mapped,
        layers=tuple(
            LayerBytes(dense_bytes=dense.get(i, 0), expert_bytes=experts.get(i, 0))
            for i in range(1 + max([-1, *dense, *experts]))
        ),
        input_bytes=0 if tied else embedding,
        head_bytes=embedding if tied else named["output.weight"],
        tied=tied,
        recurrent_layers=len({match[1] for name, *_ in rows if ".ssm_" in name and (match := _LAYER.match(name))}),
    )
