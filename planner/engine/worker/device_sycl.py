"""What SYCL says of itself, as far as memory depends on it; source: ``ggml-sycl`` of llama.cpp at commit 0c1e57098.

The mistake it prevents: planning Intel's cards as if they were NVIDIA's. Their attention by oneDNN keeps f16 copies of
query and result beside those of a quantized cache. Rows split over several cards (``--split-mode row``), which no other
backend has any more, are not described here: the engine refuses them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from device_cuda import batch_size
from devices import Caps, Rules
from sycl_ops import Attention, supported
from tensors import Tensors  # noqa: TC002 - plain files import each other by bare name, at run time

__all__ = ["rules"]

_ALIGNMENT_BYTES = 128
_ROW_PADDING = 512
_OFFLOAD_TOKENS = 32  # GGML_OP_OFFLOAD_MIN_BATCH where the environment does not set it


def rules(tensors: Tensors, spec: dict[str, Any]) -> Rules:
    """The rules of one card; ``spec`` says whether attention's scratch is part of the compute buffer."""
    batch = batch_size(tensors)
    attention = Attention(tensors)
    return Rules(
        prefix="SYCL",
        host="SYCL_Host",
        alignment=_ALIGNMENT_BYTES,
        caps=Caps(True, host_buffer=True, buffer_from_host_pointer=False, events=True),
        supports=supported(tensors, attention),
        offloads=lambda op: batch(op) >= _OFFLOAD_TOKENS,
        alloc_size=_padded_bytes(tensors, attention if spec.get("attention_scratch", True) else None),
    )


def _padded_bytes(tensors: Tensors, attention: Attention | None) -> Callable[[int], int]:
    flash = tensors.ops["FLASH_ATTN_EXT"]

    def size(tensor: int) -> int:
        scratch = attention is not None and tensors.op(tensor) == flash
        bytes_ = attention.bytes(tensor) if attention and scratch else int(tensors.nbytes(tensor))
        kind = tensors.type(tensor)
        if tensors.is_quantized(kind):
            bytes_ += tensors.row_bytes(kind, -tensors.shape(tensor)[0] % _ROW_PADDING)
        return bytes_

    return size
