"""What Metal says of itself, as far as memory depends on it; source: ``ggml-metal`` of llama.cpp at commit 0c1e57098.

The mistake it prevents: believing that a cache on an Apple chip costs its own bytes alone. Flash attention there always
reserves f16 copies of one layer's keys and values, of f16 caches too, so that no graph is planned anew. A device of
Metal is a GPU to the engine, though its memory is the host's.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from device_cuda import batch_size
from devices import Caps, Rules
from metal_ops import supported
from metal_order import Order
from tensors import Tensors  # noqa: TC002 - plain files import each other by bare name, at run time

__all__ = ["rules"]

_ALIGNMENT_BYTES = 32
_OFFLOAD_TOKENS = 32  # GGML_OP_OFFLOAD_MIN_BATCH where the environment does not set it
_SPARSE_KEYS = 4096
_SPARSE_HEADS = {
    (32, 32), (64, 64), (96, 96), (96, 64), (128, 128), (192, 128), (192, 192), (256, 256), (320, 256), (512, 512),
    (576, 512),
}  # fmt: skip
_AMAX_BYTES = 8 + 4 * 256  # scaling factors beside a product with experts
_WORKGROUPS = 32
_CONVERTED_FROM_TOKENS = 32


def rules(tensors: Tensors, spec: dict[str, Any]) -> Rules:
    """The rules of an Apple chip; without ``fusion`` in ``spec`` the order of a graph stays as it is."""
    batch = batch_size(tensors, gathers=True, rotates=False)
    products = {tensors.ops["MUL_MAT"], tensors.ops["MUL_MAT_ID"]}
    return Rules(
        prefix="MTL",
        host=None,
        alignment=_ALIGNMENT_BYTES,
        caps=Caps(True, host_buffer=False, buffer_from_host_pointer=True, events=True),
        supports=supported(tensors),
        offloads=lambda op: tensors.op(op) in products and batch(op) >= _OFFLOAD_TOKENS,
        alloc_size=_with_scratch(tensors, attention=bool(spec.get("attention_scratch", True))),
        arrange=Order(tensors).arrange if spec.get("fusion", True) else None,
        always_discrete=True,
    )


def _with_scratch(tensors: Tensors, *, attention: bool) -> Callable[[int], int]:
    """Bytes of a result with what its kernels need beside it."""
    scratch = _Scratch(tensors, copies=attention)
    special: dict[int, Callable[[int, int], int]] = {
        tensors.ops["MUL_MAT_ID"]: scratch.experts,
        tensors.ops["FLASH_ATTN_EXT"]: scratch.attention,
        tensors.ops["CUMSUM"]: lambda _tensor, bytes_: 2 * bytes_,
        tensors.ops["ARGSORT"]: lambda _tensor, bytes_: 2 * bytes_,
        tensors.ops["TOP_K"]: lambda tensor, _bytes: 8 * tensors.elements(tensors.operand(tensor, 0)),
    }

    def size(tensor: int) -> int:
        bytes_ = int(tensors.nbytes(tensor))
        more = special.get(tensors.op(tensor))
        return bytes_ if more is None else more(tensor, bytes_)

    return size


class _Scratch:
    """The extra bytes of products with experts and of attention (``ggml-metal-ops.cpp``)."""

    def __init__(self, tensors: Tensors, *, copies: bool) -> None:
        self.t = tensors
        self.copies = copies
        self.converted = tensors.kinds("q4_0", "q4_1", "q5_0", "q5_1", "q8_0")
        self.sparse = self.converted | tensors.kinds("f16", "bf16", "f32")

    def experts(self, tensor: int, bytes_: int) -> int:
        """Tokens of each expert, who they are, and scales."""
        experts = self.t.shape(self.t.operand(tensor, 0))[2]
        tokens = self.t.shape(self.t.operand(tensor, 2))[1]
        return bytes_ + 4 * experts + 4 * experts * tokens + _AMAX_BYTES

    def attention(self, tensor: int, bytes_: int) -> int:
        """Padding, which blocks of the mask are empty, partial results, f16 copies, and indexes of sparse attention."""
        query, keys, values = (self.t.operand(tensor, index) for index in range(3))
        mask = self.t.source(tensor, 3)
        bytes_ += self._padding(query, keys, values, mask) + self._partial(query, values)
        if mask:
            bytes_ += self._blocks(query, mask) + self._indexes(tensor, keys, values, mask)
        return bytes_ + (self._copied(keys, values) if self.copies else 0)

    def _padding(self, query: int, keys: int, values: int, mask: int | None) -> int:
        key_shape, value_shape = self.t.shape(keys), self.t.shape(values)
        key_row, value_row = self.t.strides(keys)[1], self.t.strides(values)[1]
        if self.t.shape(query)[1] >= _CONVERTED_FROM_TOKENS and self.t.type(keys) in self.converted:
            key_row = 2 * key_shape[0]
            value_row = key_row if self._one_memory(keys, values) else 2 * value_shape[0]
        row = key_row * key_shape[2] * key_shape[3] + value_row * value_shape[2] * value_shape[3]
        if mask:
            _, tokens, heads, sequences = self.t.shape(mask)
            row += 2 * tokens * heads * sequences
        return 64 * row

    def _blocks(self, query: int, mask: int) -> int:
        head, tokens = self.t.shape(query)[:2]
        vector = tokens < 20 and head % 32 == 0
        queries, keys = (1, 32) if vector else (8, 64)
        length, _, heads, sequences = self.t.shape(mask)
        return _padded(-(-length // keys) * -(-tokens // queries) * heads * sequences, 32)

    def _partial(self, query: int, values: int) -> int:
        _, tokens, heads, sequences = self.t.shape(query)
        return 4 * min(tokens, 32) * heads * sequences * _WORKGROUPS * (self.t.shape(values)[0] + 2)

    def _copied(self, keys: int, values: int) -> int:
        bytes_ = _padded(2 * self.t.elements(keys), 16)
        return bytes_ if self._one_memory(keys, values) else bytes_ + _padded(2 * self.t.elements(values), 16)

    def _indexes(self, tensor: int, keys: int, values: int, mask: int) -> int:
        most = self.t.param(tensor, 4)
        heads = (self.t.shape(keys)[0], self.t.shape(values)[0])
        if not 0 < most <= _SPARSE_KEYS or heads not in _SPARSE_HEADS or self.t.type(keys) not in self.sparse:
            return 0
        _, tokens, groups, sequences = self.t.shape(mask)
        return _padded(4 * _padded(most, 32) * tokens * groups * sequences, 16)

    def _one_memory(self, keys: int, values: int) -> bool:
        whole = self.t.view_source(values)
        same = whole == self.t.view_source(keys) and self.t.view_offset(values) == self.t.view_offset(keys)
        return bool(whole) and (same or whole == keys)


def _padded(size: int, step: int) -> int:
    return -(-size // step) * step
