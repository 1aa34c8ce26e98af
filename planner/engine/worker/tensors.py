"""Reads ggml tensors by address: what a backend looks at when it says whether it computes an operation.

``struct ggml_tensor`` is public (``ggml.h``), but the binding does not describe it. The mistake to prevent is reading
the wrong word, so the offsets are tried on an operation whose shape is known before anybody relies on them.
"""

from __future__ import annotations

import ctypes
from typing import Any

from errors import Refused

__all__ = ["Tensors"]

_TYPE, _BUFFER, _NE, _NB, _OP, _PARAMS, _SRC = 0, 8, 16, 48, 80, 84, 152
_MOST_OPS = 256
_LAST_OP = "GLU"
_TYPES = 43  # GGML_TYPE_COUNT; a newer build knows more, which no rule here speaks of

_Four = ctypes.c_int64 * 4


class _InitParams(ctypes.Structure):
    """``ggml_init_params``."""

    _fields_ = [("mem_size", ctypes.c_size_t), ("mem_buffer", ctypes.c_void_p), ("no_alloc", ctypes.c_bool)]


class Tensors:
    """The members of tensors, by address, and the numbers of operations and types by their names."""

    def __init__(self, eng: Any) -> None:
        ggml = eng.ggml
        ggml.ggml_op_name.restype, ggml.ggml_op_name.argtypes = ctypes.c_char_p, [ctypes.c_int]
        for name in ("ggml_type_size", "ggml_blck_size"):
            function = getattr(ggml, name)
            function.restype, function.argtypes = (
                (ctypes.c_size_t if "size" in name else ctypes.c_int64),
                [ctypes.c_int],
            )
        ggml.ggml_nbytes.restype, ggml.ggml_nbytes.argtypes = ctypes.c_size_t, [ctypes.c_void_p]
        self.nbytes = ggml.ggml_nbytes
        self.ops = _op_numbers(ggml)
        self.types = _type_numbers(ggml)
        self._ggml = ggml
        self._check()

    def op(self, tensor: int) -> int:
        """The number of the operation that makes a tensor."""
        return ctypes.c_int.from_address(tensor + _OP).value

    def type(self, tensor: int) -> int:
        """The number of its type."""
        return ctypes.c_int.from_address(tensor + _TYPE).value

    def shape(self, tensor: int) -> tuple[int, int, int, int]:
        """Its elements in each dimension, the fastest first."""
        a, b, c, d = _Four.from_address(tensor + _NE)
        return a, b, c, d

    def strides(self, tensor: int) -> tuple[int, int, int, int]:
        """Bytes from one element to the next in each dimension."""
        a, b, c, d = _Four.from_address(tensor + _NB)
        return a, b, c, d

    def source(self, tensor: int, index: int) -> int | None:
        """The address of an operand, ``None`` where there is none."""
        return ctypes.c_void_p.from_address(tensor + _SRC + 8 * index).value

    def buffer(self, tensor: int) -> int | None:
        """The address of the buffer that holds it, ``None`` while it has none."""
        return ctypes.c_void_p.from_address(tensor + _BUFFER).value

    def param(self, tensor: int, index: int) -> int:
        """A parameter of its operation, as an integer of 32 bits."""
        return ctypes.c_int32.from_address(tensor + _PARAMS + 4 * index).value

    def row_bytes(self, kind: int, elements: int) -> int:
        """Bytes of a row of ``elements`` of a type (``ggml_row_size``)."""
        size, block = self._ggml.ggml_type_size(kind), self._ggml.ggml_blck_size(kind)
        return int(size * elements // block)

    def is_quantized(self, kind: int) -> bool:
        """Whether a type stores blocks of more than one value."""
        return int(self._ggml.ggml_blck_size(kind)) > 1

    def _check(self) -> None:
        """Make a product of known shapes and look whether every member is where it is read."""
        ggml = self._ggml
        pointer = ctypes.c_void_p
        for name, arguments in (
            ("ggml_init", [_InitParams]),
            ("ggml_new_tensor_2d", [pointer, ctypes.c_int, ctypes.c_int64, ctypes.c_int64]),
            ("ggml_mul_mat", [pointer, pointer, pointer]),
        ):
            function = getattr(ggml, name)
            function.restype, function.argtypes = pointer, arguments
        ggml.ggml_free.argtypes, ggml.ggml_free.restype = [pointer], None
        context = ggml.ggml_init(_InitParams(1 << 16, None, True))
        try:
            left, right = ggml.ggml_new_tensor_2d(context, 1, 64, 5), ggml.ggml_new_tensor_2d(context, 0, 64, 3)
            product = ggml.ggml_mul_mat(context, left, right)
            seen = (
                self.type(left), self.op(product), self.shape(product), self.strides(product)[:3],
                self.source(product, 0), self.source(product, 1), self.source(product, 2), self.buffer(product),
            )  # fmt: skip
        finally:
            ggml.ggml_free(context)
        if seen != (1, self.ops["MUL_MAT"], (5, 3, 1, 1), (4, 20, 60), left, right, None, None):
            raise Refused("this llama.cpp describes tensors in another way than known here: update planner")


def _op_numbers(ggml: Any) -> dict[str, int]:
    """The number of each operation by its name, up to the last one of the enumeration."""
    numbers: dict[str, int] = {}
    for number in range(_MOST_OPS):
        numbers[ggml.ggml_op_name(number).decode("ascii", "replace")] = number
        if _LAST_OP in numbers:  # reading on would leave the table of names
            return numbers
    raise Refused("this llama.cpp has no list of operations that ends as known here: update planner")


def _type_numbers(ggml: Any) -> dict[str, int]:
    """The number of each tensor type by its name (``f16``, ``q4_K``)."""
    names = ((number, ggml.ggml_type_name(number)) for number in range(_TYPES))
    return {name.decode("ascii", "replace"): number for number, name in names if name}
