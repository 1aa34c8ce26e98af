"""Which operations Metal computes; source: ``ggml_metal_device_supports_op`` of llama.cpp at commit 0c1e57098.

The mistake it prevents: planning a cache that Metal's attention does not read. Keys and values must be of one type
there, so q8_0 keys beside f16 values send attention to the CPU. Taken is an Apple chip (M1 or later): SIMD groups that
reduce and multiply, bf16.
"""

from __future__ import annotations

from op_rules import Condition, Table, by_operation
from tensors import Tensors  # noqa: TC002 - plain files import each other by bare name, at run time

__all__ = ["supported"]

_HEADS = frozenset((32, 40, 48, 64, 72, 80, 96, 112, 128, 192, 256, 320, 512, 576))
_CACHES = ("f32", "f16", "bf16", "q8_0", "q4_0", "q4_1", "q5_0", "q5_1")
_LEGACY = ("q4_0", "q4_1", "q5_0", "q5_1", "q8_0")
_THREADGROUP_BYTES = 32 << 10  # maxThreadgroupMemoryLength
_HINT_HADAMARD = 1  # GGML_HINT_SRC0_IS_HADAMARD
_ALWAYS = (
    "NONE", "RESHAPE", "VIEW", "TRANSPOSE", "PERMUTE", "REPEAT", "CONV_TRANSPOSE_1D", "ARGMAX", "ROPE", "ROPE_BACK",
    "ARGSORT", "TOP_K", "ARANGE", "SSM_SCAN", "SSM_CONV", "RWKV_WKV6", "RWKV_WKV7", "DIAG",
)  # fmt: skip


def supported(tensors: Tensors) -> Condition:
    """Whether Metal computes a tensor's operation."""
    rules = _Conditions(tensors)
    table: Table = dict.fromkeys(_ALWAYS, True)
    table.update(rules.table())
    return by_operation(tensors, table)


class _Conditions:
    """What must hold for the tensors of each operation."""

    def __init__(self, tensors: Tensors) -> None:
        self.t = tensors
        self.f32, self.f16, self.bf16, self.i32 = (tensors.types[name] for name in ("f32", "f16", "bf16", "i32"))
        self.narrow = tensors.kinds("f32", "f16")
        self.caches = tensors.kinds(*_CACHES)
        self.joined = tensors.kinds(*_CACHES, "i8", "i16", "i32", "i64")
        self.unread = tensors.kinds("nvfp4", "tq1_0")
        self.stored = tensors.kinds("f32", "f16", "bf16", *_LEGACY, "iq4_nl", "tq2_0")
        self.unpacked = tensors.kinds("q1_0", "q2_0", *_LEGACY, "tq2_0")
        self.copies = self._copies()

    def table(self) -> Table:
        """Conditions by operation."""
        element = dict.fromkeys(("SCALE", "FILL", "CLAMP", "SQR", "SQRT", "SIN", "COS", "LOG", "UNARY"), self.elements)
        pairs = dict.fromkeys(("ADD", "SUB", "MUL", "DIV", "ADD_ID"), self.arithmetic)
        rows = dict.fromkeys(
            ("TRI", "SUM_ROWS", "CUMSUM", "MEAN", "SOFT_MAX", "GROUP_NORM", "L2_NORM", "NORM", "RMS_NORM"), self.rows
        )
        copies = dict.fromkeys(("SET", "CPY", "DUP", "CONT"), self.copy)
        first = dict.fromkeys(
            ("UPSCALE", "POOL_2D", "PAD", "PAD_REFLECT_1D", "TIMESTEP_EMBEDDING", "SOLVE_TRI"), self.first_f32
        )
        streams = dict.fromkeys(("DSV4_HC_COMB", "DSV4_HC_PRE", "DSV4_HC_POST"), self.streams)
        return {
            **element, **pairs, **rows, **copies, **first, **streams,
            "GLU": self.gate, "CONCAT": self.joins, "ACC": self.accumulates, "SUM": self.contiguous,
            "ROLL": self.contiguous, "LEAKY_RELU": self.first_narrow, "FLASH_ATTN_EXT": self.attends,
            "LIGHTNING_INDEXER": self.indexes, "GATED_DELTA_NET": self.delta, "MUL_MAT": self.product,
            "MUL_MAT_ID": self.expert_product, "GET_ROWS": self.gathers, "SET_ROWS": self.stores,
        }  # fmt: skip

    def first_type(self, op: int) -> int:
        """The type of the first operand."""
        return self.t.type(self.t.operand(op, 0))

    def first_f32(self, op: int) -> bool:
        """The first operand is f32."""
        return self.first_type(op) == self.f32

    def first_narrow(self, op: int) -> bool:
        """The first operand is f32 or f16."""
        return self.first_type(op) in self.narrow

    def contiguous(self, op: int) -> bool:
        """The first operand has no gaps."""
        return self.t.contiguous(self.t.operand(op, 0))

    def rows(self, op: int) -> bool:
        """The first operand's rows have no gaps."""
        return self.t.contiguous_rows(self.t.operand(op, 0))

    def elements(self, op: int) -> bool:
        """An element-wise function of f32 or f16."""
        return self.first_narrow(op) and self.rows(op)

    def gate(self, op: int) -> bool:
        """A gated activation."""
        return self.first_narrow(op) and self.t.contiguous_1(self.t.operand(op, 0))

    def arithmetic(self, op: int) -> bool:
        """Element-wise sums and products of two operands of one type."""
        first, second = self.t.operand(op, 0), self.t.operand(op, 1)
        kind = self.t.type(first)
        typed = kind in self.narrow and self.t.type(second) == kind
        return typed and self.t.contiguous_rows(first) and self.t.contiguous_rows(second)

    def accumulates(self, op: int) -> bool:
        """A part added to."""
        return self.first_f32(op) and self.rows(op) and self.t.contiguous_rows(self.t.operand(op, 1))

    def joins(self, op: int) -> bool:
        """Two tensors end to end."""
        kind = self.t.type(op)
        return kind in self.joined and self.first_type(op) == kind == self.t.type(self.t.operand(op, 1))

    def attends(self, op: int) -> bool:
        """Flash attention: known head sizes, keys and values of one type, values no longer than keys."""
        keys, values = self.t.operand(op, 1), self.t.operand(op, 2)
        key_head, value_head = self.t.shape(keys)[0], self.t.shape(values)[0]
        if self.t.shape(self.t.operand(op, 0))[0] not in _HEADS:
            return False
        if key_head < value_head or (key_head == 72 and value_head != key_head):
            return False
        return self.t.type(keys) == self.t.type(values) and self.t.type(keys) in self.caches

    def indexes(self, op: int) -> bool:
        """The indexer of sparse attention: 64 heads of 128."""
        query, key, weights, mask = (self.t.operand(op, index) for index in range(4))
        if self.t.shape(query)[:2] != (128, 64) or not all(map(self.t.contiguous_rows, (query, key, weights, mask))):
            return False
        typed = self.t.type(query) == self.t.type(weights) == self.t.type(op) == self.f32
        return typed and self.t.type(mask) == self.f16 and self.t.type(key) in self.caches

    def streams(self, op: int) -> bool:
        """Hyper-connections, in f32."""
        tensors = [tensor for tensor in self.t.sources(op) if tensor]
        typed = self.t.type(op) == self.f32 and all(self.t.type(tensor) == self.f32 for tensor in tensors)
        return typed and all(map(self.t.contiguous_rows, tensors))

    def delta(self, op: int) -> bool:
        """A gated delta net of heads in steps of 32."""
        return self.t.shape(self.t.operand(op, 2))[0] % 32 == 0

    def product(self, op: int) -> bool:
        """A matrix product; a f16 right side needs a kernel that exists for some left sides alone."""
        left, right = self.t.operand(op, 0), self.t.operand(op, 1)
        if self.t.type(right) == self.f16 and self.t.type(left) == self.f32 and self._rotation(op, right):
            return True
        return self._product(op, vector=True, matrix=self._long(left, right))

    def expert_product(self, op: int) -> bool:
        """A product with chosen experts' matrices."""
        tokens = self.t.shape(self.t.operand(op, 2))[1]
        return self._product(op, vector=False, matrix=self.t.shape(self.t.operand(op, 0))[0] >= 64 and tokens >= 32)

    def _product(self, op: int, *, vector: bool, matrix: bool) -> bool:
        kind = self.first_type(op)
        if kind in self.unread:
            return False
        if self.t.type(self.t.operand(op, 1)) != self.f16:
            return True
        return kind != self.bf16 and ((vector and kind == self.f16) or matrix)

    def _long(self, left: int, right: int) -> bool:
        """Whether the kernel for matrices runs: enough rows, and neither side lies transposed."""
        straight = all(strides[0] <= strides[1] for strides in (self.t.strides(left), self.t.strides(right)))
        return straight and self.t.shape(left)[0] >= 64 and self.t.shape(right)[1] > 8

    def _rotation(self, op: int, right: int) -> bool:
        """A product with a Hadamard matrix, which has a kernel of its own."""
        if self.t.param(op, 1) != _HINT_HADAMARD or self.t.type(op) != self.f32:
            return False
        width = self.t.shape(right)[0]
        known = width in (64, 128, 256, 512) or (width in (1024, 2048, 4096, 8192) and 4 * width <= _THREADGROUP_BYTES)
        return known and self.t.contiguous(right) and self.t.contiguous(op) and self.t.same_shape(right, op)

    def copy(self, op: int) -> bool:
        """A copy that may convert."""
        return (self.first_type(op), self.t.type(op)) in self.copies

    def _copies(self) -> set[tuple[int, int]]:
        from_f32 = self.stored | self.t.kinds("q1_0", "q2_0", "i32")
        return (
            {(self.f32, kind) for kind in from_f32}
            | {(kind, other) for kind in self.unpacked | {self.f16} for other in self.narrow}
            | {(self.bf16, self.f32), (self.bf16, self.bf16), (self.i32, self.f32), (self.i32, self.i32)}
        )

    def gathers(self, op: int) -> bool:
        """Rows picked by index."""
        return self.first_type(op) not in self.unread

    def stores(self, op: int) -> bool:
        """Rows written by index, as into the cache."""
        given, kind = self.first_type(op), self.t.type(op)
        return (given == kind == self.f16) or (given == self.f32 and kind in self.stored)
