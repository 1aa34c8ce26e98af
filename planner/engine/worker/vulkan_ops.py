"""Which operations Vulkan computes; source: ``ggml_backend_vk_device_supports_op`` of llama.cpp at commit 0c1e57098.

The mistake it prevents: taking CUDA's list for Vulkan's. Vulkan reads any cache type, joins no bf16 cache with another
one, and refuses a tensor larger than its driver lets one buffer be. Taken is a card of the last years with a current
driver: subgroup operations, the Vulkan memory model, f16.
"""

from __future__ import annotations

from op_rules import Condition, Table, by_operation
from tensors import Tensors  # noqa: TC002 - plain files import each other by bare name, at run time

__all__ = ["supported"]

_LARGEST_BYTES = (4 << 30) - 1  # maxStorageBufferRange of nearly every driver
_FLOATS = ("f32", "f16", "bf16")
_SMALL = ("q1_0", "q2_0", "q4_0", "q4_1", "q5_0", "q5_1", "q8_0")
_BLOCKED = (
    "q2_K", "q3_K", "q4_K", "q5_K", "q6_K", "iq1_s", "iq1_m", "iq2_xxs", "iq2_xs", "iq2_s", "iq3_xxs", "iq3_s",
    "iq4_xs", "iq4_nl", "mxfp4", "nvfp4", "tq1_0", "tq2_0",
)  # fmt: skip
_CACHES = (*_FLOATS, "q8_0", "q5_1", "q5_0", "q4_1", "q4_0", "iq4_nl")
_PRECISION_F32 = 10  # GGML_PREC_F32
_STREAMS = 4  # of hyper-connections, as the shaders have it
_ALWAYS = ("NONE", "RESHAPE", "VIEW", "PERMUTE", "TRANSPOSE", "RMS_NORM", "ROPE_BACK", "RWKV_WKV6", "RWKV_WKV7")


def supported(tensors: Tensors) -> Condition:
    """Whether Vulkan computes a tensor's operation."""
    rules = _Conditions(tensors)
    table: Table = dict.fromkeys(_ALWAYS, True)
    table.update(rules.table())
    return by_operation(tensors, table)


class _Conditions:
    """What must hold for the tensors of each operation."""

    def __init__(self, tensors: Tensors) -> None:
        self.t = tensors
        self.f32, self.f16, self.bf16 = (tensors.types[name] for name in _FLOATS)
        self.i32, self.i64 = tensors.types["i32"], tensors.types["i64"]
        self.narrow = tensors.kinds("f32", "f16")
        self.products = tensors.kinds(*_FLOATS, *_SMALL, *_BLOCKED)
        self.gathered = self.products | {self.i32}
        self.stored = tensors.kinds(*_FLOATS, *_SMALL, "iq4_nl")
        self.caches = tensors.kinds(*_CACHES)

    def table(self) -> Table:
        """Conditions by operation."""
        arithmetic = dict.fromkeys(("ADD", "SUB", "MUL", "DIV"), self.arithmetic)
        same = dict.fromkeys(
            ("SQR", "SQRT", "SIN", "COS", "CLAMP", "LEAKY_RELU", "LOG", "TRI", "DIAG"), self.keeps_type
        )
        copies = dict.fromkeys(("CONT", "CPY", "DUP"), self.copy)
        rows = dict.fromkeys(("SUM", "SUM_ROWS", "MEAN", "CUMSUM"), self.sums_rows)
        packed = dict.fromkeys(("SCALE", "DIAG_MASK_INF", "ARGMAX", "POOL_1D", "POOL_2D"), self.packed_f32)
        first = dict.fromkeys(("PAD", "PAD_REFLECT_1D", "ROLL", "SSM_CONV", "UPSCALE"), self.first_f32)
        return {
            **arithmetic, **same, **copies, **rows, **packed, **first,
            "UNARY": self.keeps_type, "GLU": self.gate, "MUL_MAT": self.product, "MUL_MAT_ID": self.expert_product,
            "FLASH_ATTN_EXT": self.attends, "GET_ROWS": self.gathers, "SET_ROWS": self.stores, "REPEAT": self.repeats,
            "ROPE": self.rotates, "GROUP_NORM": self.contiguous, "NORM": self.norms, "L2_NORM": self.norms,
            "ADD_ID": self.adds_chosen, "OUT_PROD": self.all_f32, "ARGSORT": self.sorts, "TOP_K": self.sorts,
            "ACC": self.all_f32, "SET": self.sets, "CONCAT": self.joins, "ARANGE": self.makes_f32,
            "FILL": self.fills, "SOFT_MAX": self.softmax, "SOLVE_TRI": self.all_f32,
            "DSV4_HC_COMB": self.all_f32, "DSV4_HC_PRE": self.streams, "DSV4_HC_POST": self.streams,
            "GATED_LINEAR_ATTN": self.linear, "LIGHTNING_INDEXER": self.indexes, "GATED_DELTA_NET": self.delta,
            "SSM_SCAN": self.scans,
        }  # fmt: skip

    def first_type(self, op: int) -> int:
        """The type of the first operand."""
        return self.t.type(self.t.operand(op, 0))

    def contiguous(self, op: int) -> bool:
        """The first operand has no gaps."""
        return self.t.contiguous(self.t.operand(op, 0))

    def small_enough(self, op: int) -> bool:
        """Whether each tensor fits a storage buffer. Asked where tensors are large: weights, cache, scores, logits."""
        return all(int(self.t.nbytes(tensor)) <= _LARGEST_BYTES for tensor in (op, *self.t.sources(op)) if tensor)

    def keeps_type(self, op: int) -> bool:
        """An element-wise function of f32 or f16."""
        return self.t.type(op) in self.narrow and self.first_type(op) == self.t.type(op)

    def first_f32(self, op: int) -> bool:
        """The first operand is f32."""
        return self.first_type(op) == self.f32

    def makes_f32(self, op: int) -> bool:
        """The result is f32."""
        return self.t.type(op) == self.f32

    def fills(self, op: int) -> bool:
        """The result is f32 or f16."""
        return self.t.type(op) in self.narrow

    def packed_f32(self, op: int) -> bool:
        """The first operand is f32 without gaps."""
        return self.first_type(op) == self.f32 and self.contiguous(op)

    def norms(self, op: int) -> bool:
        """F32 to f32."""
        return self.first_type(op) == self.f32 == self.t.type(op)

    def all_f32(self, op: int) -> bool:
        """Result and operands are f32."""
        return self.t.type(op) == self.f32 and all(self.t.type(s) == self.f32 for s in self.t.sources(op) if s)

    def sums_rows(self, op: int) -> bool:
        """Sums over rows of f32."""
        source = self.t.operand(op, 0)
        return self.t.type(source) == self.f32 and self.t.contiguous_rows(source)

    def arithmetic(self, op: int) -> bool:
        """Element-wise sums and products of f32 and f16."""
        narrow, type_of = self.narrow, self.t.type
        return type_of(op) in narrow and self.first_type(op) in narrow and type_of(self.t.operand(op, 1)) in narrow

    def gate(self, op: int) -> bool:
        """A gated activation whose halves have one type."""
        other = self.t.source(op, 1)
        return self.keeps_type(op) and (not other or self.t.type(other) == self.first_type(op))

    def product(self, op: int) -> bool:
        """A matrix product of types that have a shader."""
        left, right = self.t.operand(op, 0), self.t.operand(op, 1)
        return self.t.shape(left)[3] == self.t.shape(right)[3] and self._product(op, left, right)

    def expert_product(self, op: int) -> bool:
        """A product with chosen experts' matrices, at the usual precision."""
        left, right, ids = (self.t.operand(op, index) for index in range(3))
        plain = self.t.param(op, 3) != _PRECISION_F32 and self.t.shape(ids)[3] == self.t.shape(right)[3]
        return plain and self._product(op, left, right)

    def _product(self, op: int, left: int, right: int) -> bool:
        kind, other = self.t.type(left), self.t.type(right)
        if kind not in self.products or (kind == self.bf16 and other == self.f16):
            return False
        if other == self.bf16 and kind != self.bf16:
            return False
        strided_left = kind in (self.f32, self.f16, self.bf16) or self._plane(left)
        return strided_left and (other in self.narrow or self._plane(right)) and self.small_enough(op)

    def _plane(self, tensor: int) -> bool:
        """Whether rows follow one another without gaps, and so do batches of matrices."""
        kind = self.t.type(tensor)
        size, block = self.t.layout(kind)
        shape, strides = self.t.shape(tensor), self.t.strides(tensor)
        rows = strides[0] == size and strides[1] == size * shape[0] // block
        return rows and (shape[3] == 1 or strides[3] == strides[2] * shape[2])

    def attends(self, op: int) -> bool:
        """Flash attention of any cache type; head sizes in steps of 8, and bf16 for both or neither."""
        query, keys, values = (self.t.operand(op, index) for index in range(3))
        mask, sinks = self.t.source(op, 3), self.t.source(op, 4)
        kinds = self.t.type(keys), self.t.type(values)
        if self.t.shape(keys)[0] % 8 or self.t.shape(values)[0] % 8 or not self.small_enough(op):
            return False
        if (sinks and self.t.type(sinks) != self.f32) or (mask and self.t.type(mask) != self.f16):
            return False
        if not self.t.type(query) == self.f32 == self.t.type(op):
            return False
        return self.caches.issuperset(kinds) and (kinds[0] == self.bf16) == (kinds[1] == self.bf16)

    def gathers(self, op: int) -> bool:
        """Rows picked by index."""
        return self.first_type(op) in self.gathered and self.small_enough(op)

    def stores(self, op: int) -> bool:
        """Rows written by index, as into the cache."""
        index = self.t.type(self.t.operand(op, 1))
        typed = self.first_type(op) in self.narrow and index in (self.i32, self.i64)
        return typed and self.t.type(op) in self.stored and self.small_enough(op)

    def copy(self, op: int) -> bool:
        """A copy that may convert."""
        source, target = self.t.operand(op, 0), self.t.source(op, 1)
        kind = self.t.type(source)
        other = self.t.type(target) if target else kind
        if not self.small_enough(op):
            return False
        if self.f32 in (kind, other):
            return {kind, other} <= self.stored | {self.i32}
        if kind != other or self.t.layout(kind)[0] % 2:
            return False
        return not self.t.is_quantized(kind) or (self.t.contiguous(source) and self.t.contiguous(op))

    def repeats(self, op: int) -> bool:
        """A tensor repeated, of 2 or 4 bytes a value."""
        size = self.t.layout(self.t.type(op))[0]
        return size in (2, 4) and self.t.layout(self.first_type(op))[0] == size

    def rotates(self, op: int) -> bool:
        """Rotary positions."""
        return self.t.contiguous_rows(op) and self.t.contiguous_rows(self.t.operand(op, 0))

    def adds_chosen(self, op: int) -> bool:
        """Biases of chosen experts."""
        kinds = [self.t.type(self.t.operand(op, index)) for index in range(3)]
        return kinds == [self.f32, self.f32, self.i32] and self.t.type(op) == self.f32

    def sorts(self, op: int) -> bool:
        """Sorting, and the largest of each row, without gaps."""
        return self.t.contiguous(op) and self.contiguous(op)

    def sets(self, op: int) -> bool:
        """A part overwritten."""
        kind = self.t.type(op)
        return kind in (self.f32, self.i32) and kind == self.first_type(op) == self.t.type(self.t.operand(op, 1))

    def joins(self, op: int) -> bool:
        """Two tensors end to end."""
        tensors = (self.t.operand(op, 0), self.t.operand(op, 1), op)
        kind = self.t.type(op)
        if any(self.t.type(tensor) != kind for tensor in tensors):
            return False
        return not self.t.is_quantized(kind) or all(self.t.contiguous_rows(tensor) for tensor in tensors)

    def softmax(self, op: int) -> bool:
        """Attention without flash attention, and the choice of experts."""
        mask = self.t.source(op, 1)
        return self.packed_f32(op) and (not mask or self.t.type(mask) in self.narrow) and self.small_enough(op)

    def streams(self, op: int) -> bool:
        """Hyper-connections: four streams."""
        place = 0 if self.t.op(op) == self.t.ops["DSV4_HC_PRE"] else 1
        return self.all_f32(op) and self.t.shape(self.t.operand(op, place))[1] == _STREAMS

    def linear(self, op: int) -> bool:
        """Gated linear attention, of heads of 64."""
        return self.norms(op) and self.t.shape(self.t.operand(op, 0))[0] == 64

    def indexes(self, op: int) -> bool:
        """The indexer of sparse attention: 128 values a head."""
        query, key = self.t.operand(op, 0), self.t.operand(op, 1)
        if self.t.shape(query)[0] != 128 or self.t.type(key) not in self.caches:
            return False
        tensors = (*(self.t.operand(op, index) for index in range(4)), op)
        return all(self._whole_strides(tensor) for tensor in tensors)

    def _whole_strides(self, tensor: int) -> bool:
        size = self.t.layout(self.t.type(tensor))[0]
        strides = self.t.strides(tensor)
        return strides[0] == size and not any(stride % size for stride in strides)

    def delta(self, op: int) -> bool:
        """A gated delta net: f32, heads of a power of two up to 128."""
        sources = self.t.sources(op)[:6]
        head = self.t.shape(sources[2])[0]
        return head in (16, 32, 64, 128) and all(sources) and self.all_f32(op)

    def scans(self, op: int) -> bool:
        """A state-space scan of Mamba 2; its shaders are made for two state sizes."""
        states = self.t.shape(self.t.operand(op, 0))
        heads = self.t.operand(op, 3)
        return self.norms(op) and self.t.strides(heads)[1] == 4 and states[0] in (128, 256) and states[1] % 16 == 0
