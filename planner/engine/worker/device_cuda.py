"""What CUDA says of itself, as far as memory depends on it; source: ``ggml-cuda.cu`` of llama.cpp at commit 0c1e57098.

The mistake it prevents: taking a CPU's graph for a GPU's. On CUDA quantized rows are padded, weights that stay in host
memory are copied to the card for long prompts, and several cards work on several micro-batches at once. This is a build
and an environment that set nothing (no ``GGML_CUDA_*``).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from cuda_attention import Attention, Card
from cuda_fusion import Fusion
from cuda_ops import supported
from devices import Caps, Rules
from tensors import Tensors  # noqa: TC002 - plain files import each other by bare name, at run time

__all__ = ["batch_size", "rules", "rules_of_source"]

_ALIGNMENT_BYTES = 128
_ROW_PADDING = 512  # MATRIX_ROW_PADDING: kernels read whole blocks of 512 values
_OFFLOAD_TOKENS = 32  # GGML_OP_OFFLOAD_MIN_BATCH where the environment does not set it
_MODERN = "9.0"


def rules(tensors: Tensors, spec: dict[str, Any]) -> Rules:
    """The rules of one card; ``spec`` may hold its ``compute_capability``, and a modern one is taken if not."""
    major, _, minor = str(spec.get("compute_capability") or _MODERN).partition(".")
    known = major.isdigit() and minor.isdigit()
    card = Card(100 * int(major) + 10 * int(minor[0]) if known else 900)
    return rules_of_source(tensors, card, prefix="CUDA", spec=spec, hip=False)


def rules_of_source(tensors: Tensors, card: Card, *, prefix: str, spec: dict[str, Any], hip: bool) -> Rules:
    """The rules of a build of this source; ``hip`` is AMD's, which differs in what it sorts.

    ``spec`` says whether the card is ``integrated`` and, with ``fusion`` false, that operations are not joined
    (``GGML_CUDA_DISABLE_FUSION=1``; builds before August 2026 keep no memory for it either). With ``attention_scratch``
    false attention takes its copies of a quantized cache from a pool, as builds before June 2026 did.
    """
    integrated, fusion = bool(spec.get("integrated")), bool(spec.get("fusion", True))
    batch = batch_size(tensors)
    attention = Attention(tensors, card)
    return Rules(
        prefix=prefix,
        host=f"{prefix}_Host",
        alignment=_ALIGNMENT_BYTES,
        caps=Caps(True, host_buffer=True, buffer_from_host_pointer=False, events=True, mmap=not integrated),
        supports=supported(tensors, attention.supports, hip=hip),
        offloads=lambda op: batch(op) >= _OFFLOAD_TOKENS,
        alloc_size=_padded_bytes(tensors, attention if spec.get("attention_scratch", True) else None),
        arrange=Fusion(tensors).arrange if fusion else None,
        own_sources=True,
        plain_graphs=True,
    )


def _padded_bytes(tensors: Tensors, attention: Attention | None) -> Callable[[int], int]:
    """Bytes of a tensor on the card: a quantized one's last row is filled up to 512 values, attention has scratch."""
    flash = tensors.ops["FLASH_ATTN_EXT"]

    def size(tensor: int) -> int:
        kind = tensors.type(tensor)
        scratch = attention is not None and tensors.op(tensor) == flash
        bytes_ = attention.bytes(tensor) if attention and scratch else int(tensors.nbytes(tensor))
        if tensors.is_quantized(kind):
            missing = -tensors.shape(tensor)[0] % _ROW_PADDING
            bytes_ += tensors.row_bytes(kind, missing)
        return bytes_

    return size


def batch_size(tensors: Tensors, *, gathers: bool = False, rotates: bool = True) -> Callable[[int], int]:
    """How many tokens an operation works on, as the backends count them when they ask for host weights.

    A gather counts as nothing unless ``gathers``; ``rotates`` says whether rotary positions have a rule of their own.
    """
    gather, product = tensors.ops["GET_ROWS"], tensors.ops["MUL_MAT"]
    third = {tensors.ops[name] for name in (("MUL_MAT_ID", "ROPE", "ROPE_BACK") if rotates else ("MUL_MAT_ID",))}

    def tokens(op: int) -> int:
        kind = tensors.op(op)
        if kind == gather and not gathers:
            return 0
        _, second, depth, outer = tensors.shape(op)
        if kind == product:
            return second
        return depth if kind in third else second * depth * outer

    return tokens
