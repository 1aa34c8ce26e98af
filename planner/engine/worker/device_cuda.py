"""What CUDA says of itself, as far as memory depends on it; source: ``ggml-cuda.cu`` of llama.cpp at commit 0c1e57098.

The mistake it prevents: taking a CPU's graph for a GPU's. On CUDA quantized rows are padded, weights that stay in host
memory are copied to the card for long prompts, and several cards work on several micro-batches at once.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from devices import Caps, Rules
from tensors import Tensors  # noqa: TC002 - plain files import each other by bare name, at run time

__all__ = ["batch_size", "padded_bytes", "rules"]

_ALIGNMENT_BYTES = 128
_ROW_PADDING = 512  # MATRIX_ROW_PADDING: kernels read whole blocks of 512 values
_OFFLOAD_TOKENS = 32  # GGML_OP_OFFLOAD_MIN_BATCH where the environment does not set it


def rules(tensors: Tensors, spec: dict[str, Any]) -> Rules:
    """The rules of one card; ``spec`` may hold its ``compute_capability``."""
    integrated = bool(spec.get("integrated"))
    batch = batch_size(tensors)
    return Rules(
        prefix="CUDA",
        host="CUDA_Host",
        alignment=_ALIGNMENT_BYTES,
        caps=Caps(True, host_buffer=True, buffer_from_host_pointer=False, events=True, mmap=not integrated),
        supports=lambda _op: True,
        offloads=lambda op: batch(op) >= _OFFLOAD_TOKENS,
        alloc_size=padded_bytes(tensors),
    )


def padded_bytes(tensors: Tensors) -> Callable[[int], int]:
    """Bytes of a tensor on the card: the last row of a quantized one is filled up to 512 values."""

    def size(tensor: int) -> int:
        bytes_ = int(tensors.nbytes(tensor))
        kind, row = tensors.type(tensor), tensors.shape(tensor)[0]
        if row % _ROW_PADDING and tensors.is_quantized(kind):
            bytes_ += tensors.row_bytes(kind, _ROW_PADDING - row % _ROW_PADDING)
        return bytes_

    return size


def batch_size(tensors: Tensors) -> Callable[[int], int]:
    """How many tokens an operation works on, as the backends count them when they ask for host weights."""
    gather, product = tensors.ops["GET_ROWS"], tensors.ops["MUL_MAT"]
    third = {tensors.ops[name] for name in ("MUL_MAT_ID", "ROPE", "ROPE_BACK")}

    def tokens(op: int) -> int:
        kind = tensors.op(op)
        if kind == gather:
            return 0
        _, second, depth, outer = tensors.shape(op)
        if kind == product:
            return second
        return depth if kind in third else second * depth * outer

    return tokens
