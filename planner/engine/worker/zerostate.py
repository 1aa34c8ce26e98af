"""Knows how a sequence's cache is laid out in llama.cpp's saved state, and writes one of any depth full of zeros.

Timing at depth 16384 needs 16384 tokens in the cache, and computing them takes minutes on a small CPU although their
values do not matter for time. The engine itself saves the state of a very short sequence; this module reads that
state's structure, repeats its cells up to the depth, and leaves the values as untouched anonymous memory, so that a
state of gigabytes costs neither memory nor time. The mistake it prevents is trusting a layout that changed: a state
that is not understood to the last byte is refused (``None``), and the caller computes the tokens instead.

Layout as written by ``llama_kv_cache::state_write`` of the pinned build (one or more caches in a row).
"""

from __future__ import annotations

import mmap
import struct

__all__ = ["HEADER_BYTES", "zero_state"]

HEADER_BYTES = 8  # magic and sequence id

# A piece of the grown state: bytes to write, or an int: so many bytes of zeros.
_Piece = "bytes | int"


class _UnknownLayoutError(Exception):
    """The saved state is laid out in a way that this module does not know."""


class _Reader:
    """Reads little-endian numbers of a saved state and refuses to read past its end."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.at = HEADER_BYTES

    def left(self) -> int:
        return len(self.data) - self.at

    def take(self, size: int) -> bytes:
        if size < 0 or size > self.left():
            raise _UnknownLayoutError
        piece = self.data[self.at : self.at + size]
        self.at += size
        return piece

    def u32(self) -> int:
        return int(struct.unpack("<I", self.take(4))[0])

    def u64(self) -> int:
        return int(struct.unpack("<Q", self.take(8))[0])


def zero_state(saved: bytes, cells: int, depth: int) -> mmap.mmap | None:
    """A state of ``depth`` tokens for ``llama_state_seq_set_data``, from the ``saved`` state of ``cells`` tokens.

    ``None`` when the saved state is not understood. The result is private anonymous memory: the parts nobody wrote
    read as zero and stay unallocated.
    """
    try:
        pieces = _grown(_Reader(saved), cells, depth)
    except _UnknownLayoutError:
        return None
    size = HEADER_BYTES + sum(piece if isinstance(piece, int) else len(piece) for piece in pieces)
    memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    memory[:HEADER_BYTES] = saved[:HEADER_BYTES]
    at = HEADER_BYTES
    for piece in pieces:
        if isinstance(piece, int):
            at += piece
        else:
            memory[at : at + len(piece)] = piece
            at += len(piece)
    return memory


def _grown(reader: _Reader, cells: int, depth: int) -> list[bytes | int]:
    """Pieces of the grown state: every cache in the saved state, its cells repeated up to ``depth``."""
    pieces: list[bytes | int] = []
    while reader.left():
        streams = reader.take(4)
        pieces.append(streams)
        total = _bounded(struct.unpack("<I", streams)[0], 4096)
        for stream in range(total):
            count = reader.u32()
            if count == 0:
                pieces.append(struct.pack("<I", 0))
                continue
            if count != cells:
                raise _UnknownLayoutError  # a recurrent state or a window: its cells are not its tokens
            pieces.append(struct.pack("<I", depth))
            pieces.append(_cells(reader, cells, depth))
            pieces.extend(_rows(reader, cells, depth, total - stream - 1))
    return pieces


def _cells(reader: _Reader, cells: int, depth: int) -> bytes:
    """Position and owner of ``depth`` cells, after checking that the saved ones are what they should be."""
    sequence = b""
    for position in range(cells):
        cell, sequence = reader.take(8), reader.take(4)
        if cell != struct.pack("<iI", position, 1):
            raise _UnknownLayoutError  # extended cells (M-RoPE) or a gap
    return b"".join(struct.pack("<iI", position, 1) + sequence for position in range(depth))


def _rows(reader: _Reader, cells: int, depth: int, streams_left: int) -> list[bytes | int]:
    """Keys, then values (by token or transposed) of every layer; a latent (MLA) cache has no values.

    ``streams_left`` is how many further streams of the same cache follow, all of them empty: a sequence has one.
    """
    transposed, layers = reader.u32(), _bounded(reader.u32(), 65536)
    if transposed not in (0, 1):
        raise _UnknownLayoutError
    pieces: list[bytes | int] = [struct.pack("<II", transposed, layers)]
    for _ in range(layers):
        pieces.extend(_by_token(reader, cells, depth))
    if _no_values(reader, 4 * streams_left):
        return pieces
    for _ in range(layers):
        pieces.extend((_transposed if transposed else _by_token)(reader, cells, depth))
    return pieces


def _by_token(reader: _Reader, cells: int, depth: int) -> list[bytes | int]:
    kind, row = reader.take(4), _bounded(reader.u64(), 1 << 32)
    reader.take(row * cells)
    return [kind, struct.pack("<Q", row), row * depth]


def _transposed(reader: _Reader, cells: int, depth: int) -> list[bytes | int]:
    kind, element, width = reader.take(4), _bounded(reader.u32(), 64), _bounded(reader.u32(), 1 << 24)
    reader.take(element * width * cells)
    return [kind, struct.pack("<II", element, width), element * width * depth]


def _no_values(reader: _Reader, empty_bytes: int) -> bool:
    """Whether what follows the keys are the counts of empty streams, and then the end or another cache."""
    after = reader.at + empty_bytes
    if reader.data[reader.at : after] != bytes(empty_bytes):
        return False
    return after == len(reader.data) or _cache_begins(reader.data[after : after + 16])


def _cache_begins(ahead: bytes) -> bool:
    """Whether another cache follows here instead of values: its streams, its cells, its first cell.

    Values would continue with a type (0 … 50) and a row size; a cache continues with a stream count, the cell count
    and the cell ``(position 0, one owner)``. Eight bytes later the two cannot be mistaken for each other.
    """
    if len(ahead) < 16:
        return False
    _streams, _count, position, owners = struct.unpack("<IIiI", ahead)
    return bool(position == 0 and owners == 1)


def _bounded(value: int, limit: int) -> int:
    if not 0 < value <= limit:
        raise _UnknownLayoutError
    return value
