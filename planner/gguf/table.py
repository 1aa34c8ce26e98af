"""Walks the tensor table: names, shapes, types and offsets, and that together they describe one gapless data section.

Sizes are Python integers and compared with 2⁶³ before anybody uses them; an offset must be the padded sum of all
sizes before it, which leaves no room for tensors that overlap or point outside the file.
"""

import struct
from typing import Final

from planner.gguf.cursor import Cursor, quoted
from planner.gguf.ggml_types import BY_NUMBER
from planner.gguf.walked import TensorRow

__all__ = ["SMALLEST_TENSOR_BYTES", "walk_tensors"]

SMALLEST_TENSOR_BYTES: Final = 8 + 1 + 4 + 8 + 4 + 8  # length of the name, one letter, dimensions, one, type, offset
_LONGEST_NAME_BYTES: Final = 63
_MOST: Final = 1 << 63
_TAILS: Final = tuple(struct.Struct(f"<{n_dims}QIQ") for n_dims in range(5))
_CLOCK_EVERY: Final = 1024


def walk_tensors(cursor: Cursor, count: int, alignment: int) -> tuple[TensorRow, ...]:
    """The ``count`` lines of the table at the cursor, in file order."""
    rows: list[TensorRow] = []
    names: set[str] = set()
    end = 0
    for index in range(count):
        cursor.later = (count - index - 1) * SMALLEST_TENSOR_BYTES
        if index % _CLOCK_EVERY == 0:
            cursor.check_clock()
        at = cursor.position
        row = _row(cursor)
        if row.name in names:
            raise cursor.bad("a tensor occurs twice", key=row.name, at=at)
        if row.offset != end:
            raise cursor.bad(f"a tensor stands at {row.offset} of the data and must at {end}", key=row.name, at=at)
        names.add(row.name)
        rows.append(row)
        end += row.size_bytes + -row.size_bytes % alignment
        if end >= _MOST:
            raise cursor.bad("its tensors together take 2^63 bytes or more", key=row.name, at=at)
    cursor.later = 0
    return tuple(rows)


def _row(cursor: Cursor) -> TensorRow:
    at = cursor.position
    name = cursor.text("the name of a tensor", _LONGEST_NAME_BYTES)
    if not name or "\0" in name:
        raise cursor.bad(f"{quoted(name)} is no name of a tensor", at=at)
    n_dims = cursor.u32()
    if not 1 <= n_dims <= 4:
        raise cursor.bad(f"a tensor has {n_dims} dimensions, not 1 to 4", key=name, at=at)
    *dims, number, offset = map(int, cursor.unpack(_TAILS[n_dims]))
    shape = tuple(dims)
    if number not in BY_NUMBER:
        raise cursor.bad(f"a tensor has the unknown type {number}", key=name, at=at)
    kind, ggml = BY_NUMBER[number]
    elements = 1
    for dim in shape:
        elements *= dim
    if not 1 <= elements < _MOST or any(dim >= _MOST for dim in shape):
        raise cursor.bad(f"a tensor has the impossible shape {shape}", key=name, at=at)
    if shape[0] % ggml.block:
        raise cursor.bad(f"rows of {shape[0]} values are no whole blocks of {kind}", key=name, at=at)
    size = elements // ggml.block * ggml.size_bytes
    if size >= _MOST:
        raise cursor.bad(f"a tensor takes {size} bytes", key=name, at=at)
    return TensorRow(name, shape, kind, offset, size)
