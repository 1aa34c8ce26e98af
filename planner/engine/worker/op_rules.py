"""Turns a table of operations and conditions into the answer to ``supports_op``, the question asked most.

The engine asks it thousands of times while it plans one context. The mistake to prevent is looking at a tensor when
its operation alone decides: an operation is looked up first, and only those with a condition are examined.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Dict, Union  # noqa: UP035 - read at run time, by Python 3.9 too

from tensors import OP_OFFSET, Tensors

__all__ = ["Condition", "Table", "by_operation", "outside"]

Condition = Callable[[int], bool]
Table = Dict[str, Union[bool, Condition]]  # noqa: UP006, UP007 - as above
"""What a backend computes, by the operation's name: always, never, or where a condition holds for the tensor."""

_BUFFER_TYPE_OFFSET = 88  # ggml_backend_buffer: eleven functions, then its type
_int, _address = ctypes.c_int.from_address, ctypes.c_uint64.from_address


def by_operation(tensors: Tensors, table: Table) -> Condition:
    """Whether a tensor's operation is computed by a backend with ``table``; what is not listed there is not.

    Operations that this build of ggml does not have are passed over.
    """
    numbered = {tensors.ops[name]: rule for name, rule in table.items() if name in tensors.ops}

    def supported(op: int) -> bool:
        rule = numbered.get(_int(op + OP_OFFSET).value, False)
        return rule if rule.__class__ is bool else rule(op)  # type: ignore[operator]

    return supported


def outside(tensors: Tensors, foreign: Callable[[], frozenset[int]]) -> Condition:
    """Whether a source of a tensor lies in a buffer of one of the ``foreign`` types, which belong to other devices."""

    def lies_outside(op: int) -> bool:
        others = foreign()
        for source in tensors.sources(op):
            buffer = tensors.buffer(source) if source else None
            if buffer and _address(buffer + _BUFFER_TYPE_OFFSET).value in others:
                return True
        return False

    return lies_outside
