"""Which operations CUDA computes; source: ``ggml_backend_cuda_device_supports_op`` of llama.cpp at commit 0c1e57098.

The mistake it prevents: an operation that CUDA leaves to the CPU (a cache type without a kernel, a state of an odd
size) splits the graph, and both sides then need room that a plan without the split does not show. The HIP build is
the same source; where it differs, ``hip`` says so.
"""

from __future__ import annotations

from collections.abc import Callable

from op_rules import Condition, Table, by_operation
from tensors import Tensors  # noqa: TC002 - plain files import each other by bare name, at run time

__all__ = ["supported"]

_FLOATS = ("f32", "f16", "bf16")
_LEGACY = ("q4_0", "q4_1", "q5_0", "q5_1", "q8_0")
_K_QUANTS = ("q2_K", "q3_K", "q4_K", "q5_K", "q6_K")
_I_QUANTS = ("iq1_s", "iq1_m", "iq2_xxs", "iq2_xs", "iq2_s", "iq3_xxs", "iq3_s", "iq4_xs")
_PRECISION_F32 = 10  # GGML_PREC_F32
_HINT_HADAMARD = 1  # GGML_HINT_SRC0_IS_HADAMARD
_SUPER_BLOCK = 256  # QK_K
_HIP_SHARED_BYTES = 64 << 10  # shared memory of a block on AMD's cards
_ALWAYS = (
    "NONE", "RESHAPE", "VIEW", "PERMUTE", "TRANSPOSE", "ADD_ID", "ADD1", "SQR", "SQRT", "SIN", "COS", "CLAMP", "LOG",
    "DUP", "ARGMAX", "COUNT_EQUAL", "CONT", "DIAG_MASK_INF", "SOFT_MAX", "CONV_TRANSPOSE_2D", "POOL_1D", "POOL_2D",
    "PAD", "UPSCALE", "PAD_REFLECT_1D", "ARANGE", "TIMESTEP_EMBEDDING", "LEAKY_RELU", "RWKV_WKV6",
    "GATED_LINEAR_ATTN", "RWKV_WKV7", "GATED_DELTA_NET", "FILL", "CUMSUM", "TRI", "DIAG", "SOLVE_TRI", "TOP_K",
)  # fmt: skip


def supported(tensors: Tensors, attention: Condition, *, hip: bool) -> Callable[[int], bool]:
    """Whether CUDA computes a tensor's operation; ``attention`` answers for flash attention."""
    rules = _Conditions(tensors)
    table: Table = dict.fromkeys(_ALWAYS, True)
    table.update(rules.table())
    table["ARGSORT"] = rules.sorts_in_shared_memory if hip else True
    table["FLASH_ATTN_EXT"] = attention
    return by_operation(tensors, table)


class _Conditions:
    """What must hold for the tensors of each operation."""

    def __init__(self, tensors: Tensors) -> None:
        self.t = tensors
        self.f32, self.f16, self.bf16 = (tensors.types[name] for name in _FLOATS)
        self.i32, self.i64 = tensors.types["i32"], tensors.types["i64"]
        self.floats = tensors.kinds(*_FLOATS)
        self.narrow = tensors.kinds("f32", "f16")
        self.products = tensors.kinds(
            *_FLOATS, *_LEGACY, *_K_QUANTS, *_I_QUANTS, "q1_0", "q2_0", "mxfp4", "nvfp4", "q8_K", "iq4_nl"
        )
        self.gathered = tensors.kinds(*_FLOATS, *_LEGACY, *_K_QUANTS, *_I_QUANTS, "i32", "q1_0", "q2_0")
        self.gathered_by_block = tensors.kinds("iq4_nl", "mxfp4")
        self.stored = tensors.kinds(*_FLOATS, *_LEGACY, "iq4_nl")
        self.unary = {number for name, number in tensors.unary.items() if name != "XIELU"}
        self.xielu = tensors.unary["XIELU"]
        self.glu_f32 = {tensors.glu[name] for name in ("SWIGLU_OAI", "SWIGLU_CLAMP")}
        self.matmul = tensors.ops["MUL_MAT"]
        self.copies = self._copies()

    def table(self) -> Table:
        """Conditions by operation."""
        arithmetic = dict.fromkeys(("ADD", "SUB", "MUL", "DIV"), self.arithmetic)
        rows = dict.fromkeys(("NORM", "RMS_NORM", "L2_NORM", "SUM"), self.rows_contiguous)
        sums = dict.fromkeys(("SUM_ROWS", "MEAN"), self.sums_rows)
        return {
            **arithmetic, **rows, **sums,
            "UNARY": self.activation, "GLU": self.gate, "MUL_MAT": self.product, "MUL_MAT_ID": self.expert_product,
            "OUT_PROD": self.all_f32, "GET_ROWS": self.gathers, "SET_ROWS": self.stores, "SET": self.sets,
            "CPY": self.copy, "REPEAT": self.repeats, "CONCAT": self.joins, "SCALE": self.scales,
            "SSM_SCAN": self.scans, "SSM_CONV": self.convolves, "ROLL": self.rolls, "ROPE": self.rotates,
            "ROPE_BACK": self.rotates, "ACC": self.both_contiguous, "IM2COL": self.both_contiguous,
            "GROUP_NORM": self.contiguous, "LIGHTNING_INDEXER": self.indexes, "DSV4_HC_COMB": self.all_f32,
            "DSV4_HC_PRE": self.all_f32, "DSV4_HC_POST": self.all_f32, "CONV_2D": self.both_contiguous,
        }  # fmt: skip

    def first_type(self, op: int) -> int:
        """The type of the first operand."""
        return self.t.type(self.t.operand(op, 0))

    def contiguous(self, op: int) -> bool:
        """The first operand has no gaps."""
        return self.t.contiguous(self.t.operand(op, 0))

    def both_contiguous(self, op: int) -> bool:
        """Neither operand has gaps."""
        return self.contiguous(op) and self.t.contiguous(self.t.operand(op, 1))

    def rows_contiguous(self, op: int) -> bool:
        """The first operand's rows have no gaps."""
        return self.t.contiguous_rows(self.t.operand(op, 0))

    def sums_rows(self, op: int) -> bool:
        """Sums and means of rows: f32 alone."""
        return self.first_type(op) == self.f32 and self.rows_contiguous(op)

    def all_f32(self, op: int) -> bool:
        """Result and operands are f32."""
        return self.t.type(op) == self.f32 and all(self.t.type(s) == self.f32 for s in self.t.sources(op) if s)

    def activation(self, op: int) -> bool:
        """An element-wise function of a tensor without gaps."""
        kind = self.t.param(op, 0)
        known = kind in self.unary or (kind == self.xielu and self.first_type(op) != self.bf16)
        return known and self.contiguous(op)

    def gate(self, op: int) -> bool:
        """A gated activation."""
        if self.t.param(op, 0) in self.glu_f32 and self.first_type(op) == self.bf16:
            return False
        return self.t.contiguous_1(self.t.operand(op, 0))

    def product(self, op: int) -> bool:
        """A matrix product of types that have a kernel, unless a matrix lies transposed."""
        left, right = self.t.operand(op, 0), self.t.operand(op, 1)
        kind, other = self.t.type(left), self.t.type(right)
        packed = self.t.packed(left, kind) and self.t.packed(right, other)
        mixed = other == self.f16 and kind != self.f16
        return packed and kind in self.products and (not mixed or self.rotation(op))

    def rotation(self, op: int) -> bool:
        """A product with a Hadamard matrix, which has a kernel of its own (``fwht.cu``)."""
        left, right = self.t.operand(op, 0), self.t.operand(op, 1)
        return (
            self.t.op(op) == self.matmul
            and self.t.param(op, 1) == _HINT_HADAMARD
            and self.t.type(left) == self.f32 == self.t.type(op)
            and self.t.contiguous(right)
            and self.t.contiguous(op)
            and self.t.same_shape(right, op)
        )

    def expert_product(self, op: int) -> bool:
        """A product with chosen experts' matrices, at the usual precision."""
        return self.t.param(op, 3) != _PRECISION_F32 and self.product(op)

    def gathers(self, op: int) -> bool:
        """Rows picked by index, as for embeddings."""
        table = self.t.operand(op, 0)
        kind = self.t.type(table)
        return kind in self.gathered or (kind in self.gathered_by_block and self.t.shape(table)[0] % _SUPER_BLOCK == 0)

    def stores(self, op: int) -> bool:
        """Rows written by index, as into the cache."""
        kind, given, index = self.t.type(op), self.first_type(op), self.t.type(self.t.operand(op, 1))
        typed = (kind in self.stored and given == self.f32) or (kind == given == self.f16)
        return typed and index in (self.i32, self.i64)

    def sets(self, op: int) -> bool:
        """A part overwritten."""
        kind = self.t.type(op)
        return kind in (self.f32, self.i32) and kind == self.first_type(op) == self.t.type(self.t.operand(op, 1))

    def copy(self, op: int) -> bool:
        """A copy that may convert."""
        source, target = self.t.operand(op, 0), self.t.operand(op, 1)
        kinds = self.t.type(source), self.t.type(target)
        return kinds in self.copies or (kinds[0] == kinds[1] and self.both_contiguous(op))

    def _copies(self) -> set[tuple[int, int]]:
        quantized = self.t.kinds(*_LEGACY)
        return (
            {(a, b) for a in self.floats for b in self.floats}
            | {(self.f32, kind) for kind in quantized | self.t.kinds("iq4_nl")}
            | {(kind, self.f32) for kind in quantized}
            | {(self.f32, self.i32), (self.i32, self.f32), (self.i32, self.i32)}
        )

    def repeats(self, op: int) -> bool:
        """A tensor repeated."""
        return self.first_type(op) in self.narrow

    def joins(self, op: int) -> bool:
        """Two tensors end to end; quantized ones in whole blocks and without gaps."""
        first, second = self.t.operand(op, 0), self.t.operand(op, 1)
        kind = self.t.type(first)
        if not kind == self.t.type(second) == self.t.type(op):
            return False
        if not self.t.is_quantized(kind):
            return True
        whole = all(self.t.shape(tensor)[0] % self.t.layout(kind)[1] == 0 for tensor in (first, second))
        packed = self.t.contiguous if self.t.param(op, 0) == 3 else self.t.contiguous_to_3
        return whole and packed(first) and packed(second)

    def scales(self, op: int) -> bool:
        """A product with one number."""
        return self.first_type(op) in (self.f32, self.bf16) and self.t.type(op) == self.first_type(op)

    def arithmetic(self, op: int) -> bool:
        """Element-wise sums and products; bf16 only where the result is bf16 too."""
        first, second, made = self.first_type(op), self.t.type(self.t.operand(op, 1)), self.t.type(op)
        if self.bf16 in (first, second, made):
            return first == made == self.bf16 and second in (self.bf16, self.f32)
        return first in self.narrow and second in self.narrow and made in self.narrow

    def scans(self, op: int) -> bool:
        """A state-space scan; its kernels are made for a few state sizes."""
        states, heads = self.t.shape(self.t.operand(op, 0)), self.t.shape(self.t.operand(op, 3))
        if heads[0] == 1:
            return states[0] in (96, 128, 256) and states[1] % 16 == 0
        groups = self.t.shape(self.t.operand(op, 4))[1]
        return self.t.param(op, 0) <= 1 and states[:2] == (16, 1) and states[2] % 128 == 0 and groups == 1

    def convolves(self, op: int) -> bool:
        """A state-space convolution, in blocks of 128 channels."""
        return self.t.shape(self.t.operand(op, 0))[1] % 128 == 0

    def rolls(self, op: int) -> bool:
        """A tensor rolled along its dimensions."""
        return self.first_type(op) == self.f32 and self.contiguous(op)

    def rotates(self, op: int) -> bool:
        """Rotary positions."""
        source = self.t.operand(op, 0)
        return self.t.packed(source, self.t.type(source)) and self.t.contiguous_2(source)

    def sorts_in_shared_memory(self, op: int) -> bool:
        """A sort whose padded row fits a block's shared memory, where the build has no library for longer ones."""
        columns = self.t.shape(self.t.operand(op, 0))[0]
        return 4 << (columns - 1).bit_length() <= _HIP_SHARED_BYTES

    def indexes(self, op: int) -> bool:
        """The indexer of sparse attention: 128 values a head, 32 or 64 heads (``lightning-indexer.cu``)."""
        query, key = self.t.operand(op, 0), self.t.operand(op, 1)
        if self.t.shape(query)[0] != 128 or self.t.shape(query)[1] not in (32, 64):
            return False
        for tensor in (query, key):
            if not self.t.is_quantized(self.t.type(tensor)) and any(s % 16 for s in self.t.strides(tensor)[1:]):
                return False
        return self.t.type(key) in self.t.kinds(*_FLOATS, *_LEGACY)
