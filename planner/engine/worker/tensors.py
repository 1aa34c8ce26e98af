"""Reads ggml tensors by address: what a backend looks at when it says whether it computes an operation.

``struct ggml_tensor`` is public (``ggml.h``), but the binding does not describe it. The mistake to prevent is reading
the wrong word, so the offsets are tried on an operation whose shape is known before anybody relies on them.
"""

from __future__ import annotations

import ctypes
import struct
from collections.abc import Callable
from typing import Any

from errors import Refused

__all__ = ["OP_OFFSET", "Tensors"]

_BUFFER, _NE, _NB, OP_OFFSET, _PARAMS, _FLAGS, _SRC, _VIEW_SRC, _VIEW_OFFSET = 8, 16, 48, 80, 84, 148, 152, 232, 240
_MOST_OPS = 256
_LAST_OP, _LAST_UNARY, _LAST_GLU = "GLU", "TRUNC", "SWIGLU_CLAMP"
_OUTPUT = 2  # GGML_TENSOR_FLAG_OUTPUT
# ggml_type, whose numbers stand in files and never change; a build asked for the name of one it lacks would abort.
_TYPES = {
    "f32": 0, "f16": 1, "q4_0": 2, "q4_1": 3, "q5_0": 6, "q5_1": 7, "q8_0": 8, "q8_1": 9, "q2_K": 10, "q3_K": 11,
    "q4_K": 12, "q5_K": 13, "q6_K": 14, "q8_K": 15, "iq2_xxs": 16, "iq2_xs": 17, "iq3_xxs": 18, "iq1_s": 19,
    "iq4_nl": 20, "iq3_s": 21, "iq2_s": 22, "iq4_xs": 23, "i8": 24, "i16": 25, "i32": 26, "i64": 27, "f64": 28,
    "iq1_m": 29, "bf16": 30, "tq1_0": 34, "tq2_0": 35, "mxfp4": 39, "nvfp4": 40, "q1_0": 41, "q2_0": 42,
}  # fmt: skip

_MOST_SOURCES = 10  # GGML_MAX_SRC

_Four = ctypes.c_int64 * 4
# type, buffer, elements, strides, operation, parameters, flags, sources, source and offset of a view
_RECORD = struct.Struct("<i4xQ4q4Qi64xi10QQQ")
_Sources = ctypes.c_uint64 * _MOST_SOURCES
# Looked up once: these are called a hundred thousand times while one context is planned.
_int, _word, _four = ctypes.c_int.from_address, ctypes.c_uint64.from_address, _Four.from_address


class _InitParams(ctypes.Structure):
    """``ggml_init_params``."""

    _fields_ = [("mem_size", ctypes.c_size_t), ("mem_buffer", ctypes.c_void_p), ("no_alloc", ctypes.c_bool)]


class Tensors:
    """The members of tensors, by address, and the numbers of operations and types by their names."""

    def __init__(self, eng: Any) -> None:
        ggml = eng.ggml
        for name in ("ggml_type_size", "ggml_blck_size"):
            function = getattr(ggml, name)
            function.restype, function.argtypes = (
                (ctypes.c_size_t if "size" in name else ctypes.c_int64),
                [ctypes.c_int],
            )
        ggml.ggml_nbytes.restype, ggml.ggml_nbytes.argtypes = ctypes.c_size_t, [ctypes.c_void_p]
        self.nbytes = ggml.ggml_nbytes
        self.contiguous = _question(ggml, "ggml_is_contiguous", 1)
        self.contiguous_1 = _question(ggml, "ggml_is_contiguous_1", 1)
        self.contiguous_2 = _question(ggml, "ggml_is_contiguous_2", 1)
        self.contiguous_to_3 = _question(ggml, "ggml_is_contiguous_to_3", 1)
        self.contiguous_rows = _question(ggml, "ggml_is_contiguous_rows", 1)
        self.permuted = _question(ggml, "ggml_is_permuted", 1)
        self.same_shape = _question(ggml, "ggml_are_same_shape", 2)
        self.ops = _names(ggml, "ggml_op_name", _LAST_OP)
        self.unary = _names(ggml, "ggml_unary_op_name", _LAST_UNARY)
        self.glu = _names(ggml, "ggml_glu_op_name", _LAST_GLU)
        self.types = _TYPES
        self._layout: dict[int, tuple[int, int]] = {}
        self._ggml = ggml
        self._check()

    def op(self, tensor: int) -> int:
        """The number of the operation that makes a tensor."""
        return _int(tensor + OP_OFFSET).value

    def type(self, tensor: int) -> int:
        """The number of its type."""
        return _int(tensor).value

    def shape(self, tensor: int) -> tuple[int, int, int, int]:
        """Its elements in each dimension, the fastest first."""
        a, b, c, d = _four(tensor + _NE)
        return a, b, c, d

    def strides(self, tensor: int) -> tuple[int, int, int, int]:
        """Bytes from one element to the next in each dimension."""
        a, b, c, d = _four(tensor + _NB)
        return a, b, c, d

    def source(self, tensor: int, index: int) -> int | None:
        """The address of an operand, ``None`` where there is none."""
        return _word(tensor + _SRC + 8 * index).value or None

    def operand(self, tensor: int, index: int) -> int:
        """The address of an operand that the operation always has."""
        return _word(tensor + _SRC + 8 * index).value

    def record(self, tensor: int) -> tuple[int, ...]:
        """All at once, where several members are looked at: faster than one after the other.

        The type, the buffer, four elements, four strides, the operation, flags, ten sources, view source and offset.
        """
        return _RECORD.unpack(ctypes.string_at(tensor, _RECORD.size))

    def sources(self, tensor: int) -> list[int]:
        """The addresses of all operand places, 0 where there is none."""
        return list(_Sources.from_address(tensor + _SRC))

    def view_source(self, tensor: int) -> int | None:
        """The tensor whose memory this one shows, ``None`` where it has memory of its own."""
        return ctypes.c_void_p.from_address(tensor + _VIEW_SRC).value

    def view_offset(self, tensor: int) -> int:
        """Bytes from the start of :meth:`view_source` to this tensor."""
        return ctypes.c_size_t.from_address(tensor + _VIEW_OFFSET).value

    def flags(self, tensor: int) -> int:
        """Its ``ggml_tensor_flag`` bits."""
        return ctypes.c_int32.from_address(tensor + _FLAGS).value

    def buffer(self, tensor: int) -> int | None:
        """The address of the buffer that holds it, ``None`` while it has none."""
        return ctypes.c_void_p.from_address(tensor + _BUFFER).value

    def param(self, tensor: int, index: int) -> int:
        """A parameter of its operation, as an integer of 32 bits."""
        return ctypes.c_int32.from_address(tensor + _PARAMS + 4 * index).value

    def real_param(self, tensor: int, index: int) -> float:
        """A parameter of its operation, as a float of 32 bits."""
        return ctypes.c_float.from_address(tensor + _PARAMS + 4 * index).value

    def elements(self, tensor: int) -> int:
        """How many values it holds."""
        a, b, c, d = _four(tensor + _NE)
        return int(a * b * c * d)

    def row_bytes(self, kind: int, elements: int) -> int:
        """Bytes of a row of ``elements`` of a type (``ggml_row_size``)."""
        size, block = self.layout(kind)
        return int(size * elements // block)

    def layout(self, kind: int) -> tuple[int, int]:
        """Bytes of a block of a type and the values in it."""
        if kind not in self._layout:
            self._layout[kind] = int(self._ggml.ggml_type_size(kind)), int(self._ggml.ggml_blck_size(kind))
        return self._layout[kind]

    def packed(self, tensor: int, kind: int) -> bool:
        """Whether the values (or blocks) of a row of this type follow one another."""
        return _word(tensor + _NB).value == self.layout(kind)[0]

    def is_quantized(self, kind: int) -> bool:
        """Whether a type stores blocks of more than one value."""
        return self.layout(kind)[1] > 1

    def kinds(self, *names: str) -> frozenset[int]:
        """The numbers of types by name."""
        return frozenset(self.types[name] for name in names)

    def _check(self) -> None:
        """Make a product of known shapes and look whether every member is where it is read."""
        ggml = self._ggml
        pointer = ctypes.c_void_p
        for name, arguments in (
            ("ggml_init", [_InitParams]),
            ("ggml_new_tensor_2d", [pointer, ctypes.c_int, ctypes.c_int64, ctypes.c_int64]),
            ("ggml_mul_mat", [pointer, pointer, pointer]),
            ("ggml_view_1d", [pointer, pointer, ctypes.c_int64, ctypes.c_size_t]),
        ):
            function = getattr(ggml, name)
            function.restype, function.argtypes = pointer, arguments
        for name in ("ggml_free", "ggml_set_output"):
            function = getattr(ggml, name)
            function.restype, function.argtypes = None, [pointer]
        context = ggml.ggml_init(_InitParams(1 << 16, None, True))
        try:
            left, right = ggml.ggml_new_tensor_2d(context, 1, 64, 5), ggml.ggml_new_tensor_2d(context, 0, 64, 3)
            product = ggml.ggml_mul_mat(context, left, right)
            view = ggml.ggml_view_1d(context, right, 8, 16)
            ggml.ggml_set_output(view)
            seen = (
                self.type(left), self.op(product), self.shape(product), self.strides(product)[:3],
                self.sources(product)[:3], self.buffer(product), self.view_source(product),
                self.view_source(view), self.view_offset(view),
                self.flags(product) & _OUTPUT, self.flags(view) & _OUTPUT,
            )  # fmt: skip
        finally:
            ggml.ggml_free(context)
        known = (1, self.ops["MUL_MAT"], (5, 3, 1, 1), (4, 20, 60), [left, right, 0], None, None, right, 16, 0, _OUTPUT)
        if seen != known:
            raise Refused("this llama.cpp describes tensors in another way than known here: update planner")


def _question(ggml: Any, name: str, tensors: int) -> Callable[..., bool]:
    """A function of ggml about one tensor or two that answers yes or no."""
    function = getattr(ggml, name)
    function.restype, function.argtypes = ctypes.c_bool, [ctypes.c_void_p] * tensors
    asked: Callable[..., bool] = function
    return asked


def _names(ggml: Any, function: str, last: str) -> dict[str, int]:
    """The numbers of an enumeration by their names, up to its ``last``."""
    name_of = getattr(ggml, function)
    name_of.restype, name_of.argtypes = ctypes.c_char_p, [ctypes.c_int]
    numbers: dict[str, int] = {}
    for number in range(_MOST_OPS):
        numbers[name_of(number).decode("ascii", "replace")] = number
        if last in numbers:  # reading on would leave the table of names
            return numbers
    raise Refused(f"this llama.cpp has no {function} that ends as known here: update planner")
