"""Which attention CUDA computes and the room it takes; source: ``fattn.cu`` of llama.cpp at commit 0c1e57098.

The mistake it prevents: believing that a quantized cache costs only its own bytes. Its kernels for long prompts read
f16, so the keys and values of one layer are converted first, and the room for the copies is part of the compute
buffer: 2 bytes a value for the whole context.
"""

from __future__ import annotations

from typing import NamedTuple

from op_rules import Condition  # noqa: TC002 - plain files import each other by bare name, at run time
from tensors import Tensors  # noqa: TC002 - as above

__all__ = ["Attention", "Card"]

_SAME_SIZE_HEADS = frozenset((40, 64, 72, 80, 96, 112, 128, 256))
_BLOCK_TOKENS = 256  # FATTN_KQ_STRIDE: the cache is read in blocks of so many tokens
_SCRATCH_ALIGNMENT = 128
_F16_BYTES = 2
_LONG_CACHE = 8192
_ADA, _TURING, _VOLTA = 890, 750, 700


class Card(NamedTuple):
    """What of a card decides its attention kernel; ``compute_capability`` 890 is 8.9, 0 a card of another vendor."""

    compute_capability: int
    matrix_cores: str | None = None  # "mfma", "wmma" on AMD

    @property
    def vector_tokens(self) -> int:
        """Up to so many tokens a quantized cache is read as it is (the vector kernel)."""
        return 1 if _TURING <= self.compute_capability < _ADA else 2


class Attention:
    """Flash attention of one card: what it computes, and how many bytes its result takes."""

    def __init__(self, tensors: Tensors, card: Card) -> None:
        self.t = tensors
        self.card = card
        self.f16 = tensors.types["f16"]
        self.f32 = tensors.types["f32"]
        self.readable = tensors.kinds("f32", "f16", "bf16", "q4_0", "q4_1", "q5_0", "q5_1", "q8_0")
        # GGML_CUDA_FA_QUANTS as a build has it that sets nothing: pairs with a vector kernel, (keys, values).
        pairs = tensors.kinds("q4_0", "q8_0", "f16", "bf16")
        self.vector_pairs = {(kind, kind) for kind in pairs}

    @property
    def supports(self) -> Condition:
        """Whether the card computes this attention; where it does not, it goes to the CPU or auto turns it off."""
        return self._supported

    def bytes(self, op: int) -> int:
        """Bytes of the result with the f16 copies of keys and values that its kernel needs."""
        size = int(self.t.nbytes(op))
        if not self._supported(op):
            return size
        keys, values = self.t.operand(op, 1), self.t.operand(op, 2)
        copy_keys, copy_values = self._copies(op, keys, values)
        if copy_keys and self.t.type(keys) != self.f16:
            size = _padded(size) + _F16_BYTES * self.t.elements(keys)
        if copy_values and self.t.type(values) != self.f16 and not self._one_memory(keys, values):
            size = _padded(size) + _F16_BYTES * self.t.elements(values)
        return size

    def _supported(self, op: int) -> bool:
        keys, values, mask = self.t.operand(op, 1), self.t.operand(op, 2), self.t.source(op, 3)
        if not self._heads_known(op, keys, values):
            return False
        if self.t.type(keys) not in self.readable or self.t.type(values) not in self.readable:
            return False
        return not mask or self.t.shape(mask)[2] == 1

    def _heads_known(self, op: int, keys: int, values: int) -> bool:
        """Whether there is a kernel for these sizes of heads and this many queries to a key."""
        key_head, value_head = self.t.shape(keys)[0], self.t.shape(values)[0]
        if key_head in _SAME_SIZE_HEADS:
            return value_head == key_head
        sizes = {192: (128, 8), 320: (256, 32), 512: (512, 1), 576: (512, 1)}
        if key_head not in sizes:
            return False
        wanted, group = sizes[key_head]
        return value_head == wanted and self._grouped(op, keys, values) and self._ratio(op, keys) % group == 0

    def _ratio(self, op: int, keys: int) -> int:
        """Query heads to a key head."""
        return self.t.shape(self.t.operand(op, 0))[2] // self.t.shape(keys)[2]

    def _grouped(self, op: int, keys: int, values: int) -> bool:
        """Whether the queries of one key are computed together: a mask, no ALiBi, whole blocks, aligned rows."""
        mask = self.t.source(op, 3)
        if not mask or self._ratio(op, keys) < 2 or self.t.real_param(op, 1) != 0.0:
            return False
        if self.t.shape(keys)[1] % _BLOCK_TOKENS:
            return False
        return all(
            stride % 16 == 0
            for tensor in (self.t.operand(op, 0), keys, values, mask)
            if not self.t.is_quantized(self.t.type(tensor))
            for stride in self.t.strides(tensor)[1:]
        )

    def _copies(self, op: int, keys: int, values: int) -> tuple[bool, bool]:
        """Whether keys and values are read as f16. The vector kernel, for a token or two, reads most types itself."""
        if not self._vector(op, keys, values):
            return True, True
        kinds = self.t.type(keys), self.t.type(values)
        converted = tuple(self.f16 if kind == self.f32 else kind for kind in kinds)
        fallback = converted not in self.vector_pairs
        return fallback or kinds[0] == self.f32, fallback or kinds[1] == self.f32

    def _vector(self, op: int, keys: int, values: int) -> bool:
        """Whether the vector kernel runs.

        Left out is that sparse attention keeps to the matrix cores for one token.
        """
        head, tokens = self.t.shape(self.t.operand(op, 0))[:2]
        if head > 256 or head % 64 or head == 192 or self.t.shape(keys)[1] % _BLOCK_TOKENS:
            return False
        if _VOLTA <= self.card.compute_capability < _TURING:
            return tokens * self._group(op, keys) <= 2
        if any(self.t.is_quantized(self.t.type(tensor)) for tensor in (keys, values)):
            return tokens <= self.card.vector_tokens and not self._matrix_cores_win(op, keys, values)
        if tokens != 1:
            return False
        return not self._grouped(op, keys, values) or self._vector_wins(op, keys)

    def _vector_wins(self, op: int, keys: int) -> bool:
        """On new cards one token of a short cache is read fastest by the vector kernel."""
        head, _, _, sequences = self.t.shape(self.t.operand(op, 0))
        long = self._ratio(op, keys) > 4 and (head >= 256 or self.t.shape(keys)[1] >= _LONG_CACHE)
        return self.card.compute_capability >= _ADA and sequences == 1 and not long

    def _group(self, op: int, keys: int) -> int:
        """Query heads to a key head that a kernel takes together: the largest power of two up to 8."""
        return min(self._ratio(op, keys) & -self._ratio(op, keys), 8)

    def _matrix_cores_win(self, op: int, keys: int, values: int) -> bool:
        """On AMD's cards with matrix cores enough work goes there before the vector kernel is thought of."""
        head, tokens = self.t.shape(self.t.operand(op, 0))[:2]
        work = tokens * self._group(op, keys)
        if self.card.matrix_cores == "mfma":
            return work > (8 if head <= 64 else 16 if head <= 128 else 64)
        if self.card.matrix_cores == "wmma":
            return self._grouped(op, keys, values) and work > (8 if head <= 128 else 16)
        return False

    def _one_memory(self, keys: int, values: int) -> bool:
        """Whether values are a view of the keys, as in MLA: then one copy serves both."""
        whole = self.t.view_source(values)
        if not whole:
            return False
        same = whole == self.t.view_source(keys) and self.t.view_offset(values) == self.t.view_offset(keys)
        return same or whole == keys


def _padded(size: int) -> int:
    return -(-size // _SCRATCH_ALIGNMENT) * _SCRATCH_ALIGNMENT
