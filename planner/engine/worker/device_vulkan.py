"""What Vulkan says of itself, as far as memory depends on it; source: ``ggml-vulkan`` of llama.cpp at 0c1e57098.

The mistake it prevents: planning Vulkan as if it were CUDA. It pads no rows, keeps no converted cache, allocates in
blocks of at most 1 GiB, and computes a graph in an order of its own. What its driver decides is unknown for a card that
is not here; the values below are those that ask for most memory, a few KiB more than others.
"""

from __future__ import annotations

from typing import Any

from device_cuda import batch_size
from devices import Caps, Rules
from tensors import Tensors  # noqa: TC002 - plain files import each other by bare name, at run time
from vulkan_ops import supported
from vulkan_order import Order

__all__ = ["rules"]

_ALIGNMENT_BYTES = 64  # minStorageBufferOffsetAlignment: 4 to 64, by driver
_HOST_ALIGNMENT_BYTES = 4096  # minMemoryMapAlignment: 64 (NVIDIA) or a page
_BLOCK_BYTES = 1 << 30  # suballocation_block_size: no allocation is larger
_OFFLOAD_TOKENS = 32  # GGML_OP_OFFLOAD_MIN_BATCH where the environment does not set it


def rules(tensors: Tensors, spec: dict[str, Any]) -> Rules:
    """The rules of one card; without ``fusion`` in ``spec`` no order of its own (GGML_VK_DISABLE_GRAPH_OPTIMIZE)."""
    integrated, fusion = bool(spec.get("integrated")), bool(spec.get("fusion", True))
    batch = batch_size(tensors)
    return Rules(
        prefix="Vulkan",
        host="Vulkan_Host",
        alignment=_ALIGNMENT_BYTES,
        caps=Caps(True, host_buffer=True, buffer_from_host_pointer=False, events=True, mmap=not integrated),
        supports=supported(tensors),
        offloads=lambda op: batch(op) >= _OFFLOAD_TOKENS,
        arrange=Order(tensors).arrange if fusion else None,
        max_buffer_bytes=_BLOCK_BYTES,
        host_alignment=_HOST_ALIGNMENT_BYTES,
        host_max_buffer_bytes=_BLOCK_BYTES,
    )
