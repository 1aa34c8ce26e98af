"""Which operations SYCL computes; source: ``ggml-sycl.cpp`` and ``fattn.cpp`` of llama.cpp at commit 0c1e57098.

The mistake it prevents: planning a cache that SYCL's attention does not read. Without oneDNN's help keys and values
must be of one type, f32, f16, bf16, q4_0 or q8_0. Taken is a build with oneDNN for an Intel card later than Alchemist.
"""

from __future__ import annotations

from op_rules import Condition, Table, by_operation
from tensors import Tensors  # noqa: TC002 - plain files import each other by bare name, at run time

__all__ = ["Attention", "supported"]

_LEGACY = ("q4_0", "q4_1", "q5_0", "q5_1", "q8_0")
_K_QUANTS = ("q2_K", "q3_K", "q4_K", "q5_K", "q6_K")
_I_QUANTS = ("iq1_s", "iq1_m", "iq2_xxs", "iq2_xs", "iq2_s", "iq3_xxs", "iq3_s", "iq4_xs")
_WARP = 16  # of Intel's cards
_MOST_ROWS, _MOST_COLUMNS = 64, 64  # SYCL_SOLVE_TRI_MAX_N, …_K
_BLOCK_TOKENS = 256  # FATTN_KQ_STRIDE
_SAME_SIZE_HEADS = frozenset((40, 64, 72, 80, 96, 112, 128, 256, 512))
_PREFILL_TOKENS, _PREFILL_CACHE = 32, 1024
_SCRATCH_ALIGNMENT = 128
_ALWAYS = (
    "NONE", "RESHAPE", "VIEW", "PERMUTE", "TRANSPOSE", "CONV_2D", "CONV_2D_DW", "CONV_TRANSPOSE_2D", "UNARY", "CONCAT",
    "DUP", "ARGMAX", "ADD", "ADD1", "ADD_ID", "SUB", "COUNT_EQUAL", "MUL", "DIV", "REPEAT", "SQR", "SQRT", "SIN", "COS",
    "CLAMP", "LOG", "NORM", "L2_NORM", "GROUP_NORM", "RMS_NORM", "SCALE", "CONT", "DIAG_MASK_INF", "SOFT_MAX", "ROPE",
    "ROPE_BACK", "IM2COL", "IM2COL_3D", "UPSCALE", "ARGSORT", "POOL_1D", "POOL_2D", "ACC", "LEAKY_RELU",
    "TIMESTEP_EMBEDDING", "RWKV_WKV6", "RWKV_WKV7", "GATED_LINEAR_ATTN", "GATED_DELTA_NET", "FILL", "CUMSUM", "DIAG",
)  # fmt: skip


def supported(tensors: Tensors, attention: Attention) -> Condition:
    """Whether SYCL computes a tensor's operation."""
    rules = _Conditions(tensors)
    table: Table = dict.fromkeys(_ALWAYS, True)
    table.update(rules.table())
    table["FLASH_ATTN_EXT"] = attention.supports
    return by_operation(tensors, table)


class _Conditions:
    """What must hold for the tensors of each operation."""

    def __init__(self, tensors: Tensors) -> None:
        self.t = tensors
        self.f32, self.f16, self.bf16 = (tensors.types[name] for name in ("f32", "f16", "bf16"))
        self.i32, self.i64 = tensors.types["i32"], tensors.types["i64"]
        self.floats = tensors.kinds("f32", "f16", "bf16")
        self.ternary = tensors.kinds("tq1_0", "tq2_0")
        self.gathered = tensors.kinds(
            "i32", "f32", "f16", "bf16", "q1_0", "mxfp4", "nvfp4", "iq4_nl", *_LEGACY, *_K_QUANTS, *_I_QUANTS
        )
        self.indexed = tensors.kinds("f32", "f16", "bf16", *_LEGACY, "iq4_nl")
        self.weights_only = tensors.kinds(*_K_QUANTS, *_I_QUANTS)
        self.unpacked = self.weights_only | tensors.kinds("q1_0", "nvfp4", "iq4_nl")
        self.never_copied = self.ternary | tensors.kinds(*_I_QUANTS) - tensors.kinds("iq4_xs")
        self.coarse = tensors.kinds("q4_0", "q4_1", "q8_0")

    def table(self) -> Table:
        """Conditions by operation."""
        sums = dict.fromkeys(("SUM", "SUM_ROWS", "MEAN"), self.contiguous)
        streams = dict.fromkeys(("DSV4_HC_PRE", "DSV4_HC_COMB", "DSV4_HC_POST", "SET", "SSM_CONV"), self.all_f32)
        made = dict.fromkeys(("ROLL", "ARANGE"), self.makes_f32)
        return {
            **sums, **streams, **made,
            "GLU": self.gate, "MUL_MAT": self.product, "MUL_MAT_ID": self.product, "GET_ROWS": self.gathers,
            "SET_ROWS": self.stores, "LIGHTNING_INDEXER": self.indexes, "CPY": self.copy, "TRI": self.triangle,
            "TOP_K": self.largest, "PAD": self.pads, "SSM_SCAN": self.scans, "SOLVE_TRI": self.solves,
        }  # fmt: skip

    def first_type(self, op: int) -> int:
        """The type of the first operand."""
        return self.t.type(self.t.operand(op, 0))

    def contiguous(self, op: int) -> bool:
        """The first operand has no gaps."""
        return self.t.contiguous(self.t.operand(op, 0))

    def makes_f32(self, op: int) -> bool:
        """The result is f32."""
        return self.t.type(op) == self.f32

    def triangle(self, op: int) -> bool:
        """A triangle of an f32 matrix without gaps."""
        return self.makes_f32(op) and self.contiguous(op)

    def all_f32(self, op: int) -> bool:
        """Result and operands are f32."""
        return self.makes_f32(op) and all(self.t.type(each) == self.f32 for each in self.t.sources(op) if each)

    def gate(self, op: int) -> bool:
        """A gated activation."""
        return self.t.contiguous_1(self.t.operand(op, 0))

    def product(self, op: int) -> bool:
        """A matrix product, but for two f16 layouts that oneDNN has trouble with."""
        left, right = self.t.operand(op, 0), self.t.operand(op, 1)
        kind, shape, other = self.t.type(left), self.t.shape(left), self.t.shape(right)
        if shape[3] != other[3] or kind in self.ternary:
            return False
        if kind != self.f16:
            return True
        if self.t.permuted(left):
            return self.t.contiguous(left) or shape[2] <= 1 or shape[3] <= 1
        batched = other[2] > 1 and other[3] > 1
        return not (self.t.permuted(right) and batched and shape[0] > 128 and shape[2] == 1)

    def gathers(self, op: int) -> bool:
        """Rows picked by index."""
        return self.first_type(op) in self.gathered

    def stores(self, op: int) -> bool:
        """Rows written by index, as into the cache."""
        index = self.t.type(self.t.operand(op, 1))
        return (
            self.t.type(op) not in self.ternary and self.first_type(op) in self.floats and index in (self.i32, self.i64)
        )

    def indexes(self, op: int) -> bool:
        """The indexer of sparse attention."""
        query, key, weights, mask = (self.t.operand(op, index) for index in range(4))
        typed = self.t.type(query) == self.t.type(weights) == self.t.type(op) == self.f32
        known = self.t.type(key) in self.indexed and self.t.type(mask) == self.f16
        return typed and known and self.t.shape(query)[0] == 8 * _WARP

    def copy(self, op: int) -> bool:
        """A copy that may convert."""
        source, target = self.first_type(op), self.t.type(self.t.operand(op, 1))
        if source in self.ternary or target in self.ternary:
            return False
        if source in self.floats and target in self.weights_only:
            return False
        if source == self.bf16 and target in self.coarse:
            return False
        if target == self.f32 and source in self.unpacked:
            return False
        return source != target or target not in self.never_copied

    def largest(self, op: int) -> bool:
        """The largest of each row."""
        source = self.t.operand(op, 0)
        typed = self.t.type(op) == self.i32 and self.t.type(source) == self.f32
        return typed and self.t.contiguous(source) and 0 < self.t.shape(op)[0] <= self.t.shape(source)[0]

    def pads(self, op: int) -> bool:
        """Padding, unless around the edge."""
        return self.t.param(op, 8) == 0

    def scans(self, op: int) -> bool:
        """A state-space scan of Mamba 2."""
        states, heads = self.t.shape(self.t.operand(op, 0)), self.t.shape(self.t.operand(op, 3))
        return heads[0] == 1 and states[0] in (128, 256) and states[1] % _WARP == 0

    def solves(self, op: int) -> bool:
        """Triangular systems that fit a work group."""
        rows, columns = self.t.shape(self.t.operand(op, 0))[0], self.t.shape(self.t.operand(op, 1))[0]
        return rows <= _MOST_ROWS and columns <= _MOST_COLUMNS


class Attention:
    """Flash attention: what is computed, and the bytes of its result with the scratch beside it."""

    def __init__(self, tensors: Tensors) -> None:
        self.t = tensors
        self.f16, self.f32, self.bf16 = (tensors.types[name] for name in ("f16", "f32", "bf16"))
        self.converted = tensors.kinds("f32", *_LEGACY)
        self.plain = tensors.kinds("f32", "f16", "bf16", "q4_0", "q8_0")

    def supports(self, op: int) -> bool:
        """Whether some kernel computes this attention."""
        tokens, cached = self.t.shape(self.t.operand(op, 0))[1], self.t.shape(self.t.operand(op, 1))[1]
        short = tokens < _PREFILL_TOKENS or cached < _PREFILL_CACHE
        native = self._kinds(op) == (self.f16, self.f16)
        if tokens >= _PREFILL_TOKENS and (native or not short) and self._by_library(op):
            return True
        return (not short and self._by_products(op)) or self._by_tiles(op)

    def bytes(self, op: int) -> int:
        """Bytes of the result with f16 copies of query, keys, values and result, as the largest kernel needs them."""
        query, keys, values = (self.t.operand(op, index) for index in range(3))
        library, size = self._by_library(op), int(self.t.nbytes(op))
        head, (_, tokens, heads, _) = self.t.shape(keys)[0], self.t.shape(query)
        staged = library and self._kinds(op) != (self.f16, self.f16)
        key_values = self.t.elements(keys) if staged or self.t.type(keys) != self.f16 else 0
        value_values = self.t.elements(values) if staged or self.t.type(values) != self.f16 else 0
        if self._one_memory(keys, values) and not library:
            value_values = 0
        own = heads * tokens * head if library else 0
        for halves in (own, key_values, value_values, int(library), own):
            if halves:
                size = -(-size // _SCRATCH_ALIGNMENT) * _SCRATCH_ALIGNMENT + 2 * halves
        return size

    def _kinds(self, op: int) -> tuple[int, int]:
        return self.t.type(self.t.operand(op, 1)), self.t.type(self.t.operand(op, 2))

    def _by_library(self, op: int) -> bool:
        """Whether oneDNN takes it, whatever the lengths (``fattn-onednn.cpp``)."""
        query, keys, values = (self.t.operand(op, index) for index in range(3))
        mask, sinks = self.t.source(op, 3), self.t.source(op, 4)
        kinds = self._kinds(op)
        if kinds != (self.f16, self.f16) and not self.converted.issuperset(kinds):
            return False
        if not mask or sinks or self.t.type(mask) != self.f16 or self.t.shape(mask)[2:] != (1, 1):
            return False
        if self.t.real_param(op, 1) != 0.0 or self.t.real_param(op, 2) != 0.0:
            return False
        return self.t.shape(values)[0] == self.t.shape(keys)[0] and self.t.shape(query)[3] == 1

    def _by_products(self, op: int) -> bool:
        """Whether it is done as matrix products (MKL): grouped queries, heads in steps of 64."""
        query, keys, values = (self.t.shape(self.t.operand(op, index)) for index in range(3))
        head = query[0]
        plain = self.t.source(op, 3) and not self.t.source(op, 4) and self.t.real_param(op, 1) == 0.0
        if not plain or self.t.real_param(op, 2) != 0.0 or query[2] // keys[2] < 2:
            return False
        if head % 64 or not 64 <= head <= 512 or values[0] != head or keys[3] not in (1, query[3]):
            return False
        tensors = (self.t.operand(op, 1), self.t.operand(op, 2))
        return all(
            self.t.type(each) != self.f16 or self.t.strides(each)[1] % (2 * self.t.shape(each)[0]) == 0
            for each in tensors
        )

    def _by_tiles(self, op: int) -> bool:
        keys, values, mask = self.t.operand(op, 1), self.t.operand(op, 2), self.t.source(op, 3)
        key_head, value_head = self.t.shape(keys)[0], self.t.shape(values)[0]
        if key_head == 576:
            known = value_head == 512 and self._grouped(op, keys, values)
        else:
            known = key_head in _SAME_SIZE_HEADS and value_head == key_head
        kinds = self._kinds(op)
        typed = kinds[0] == kinds[1] and kinds[0] in self.plain
        return known and typed and (not mask or self.t.shape(mask)[2] == 1)

    def _grouped(self, op: int, keys: int, values: int) -> bool:
        query, mask = self.t.operand(op, 0), self.t.source(op, 3)
        if not mask or self.t.shape(query)[2] < 2 * self.t.shape(keys)[2] or self.t.real_param(op, 1) != 0.0:
            return False
        aligned = all(
            stride % 16 == 0
            for tensor in (query, keys, values, mask)
            if not self.t.is_quantized(self.t.type(tensor))
            for stride in self.t.strides(tensor)[1:]
        )
        return aligned and self.t.shape(keys)[1] % _BLOCK_TOKENS == 0

    def _one_memory(self, keys: int, values: int) -> bool:
        whole = self.t.view_source(values)
        same = whole == self.t.view_source(keys) and self.t.view_offset(values) == self.t.view_offset(keys)
        return bool(whole) and (same or whole == keys)
