"""Walks a GGUF header: what is in it and where, after every count, length and sum in it has been checked.

Nothing that a header says is believed before it is compared with the bytes that are there: lengths, counts, types,
offsets, and the numbers that later arithmetic uses. An array costs no memory (a tokenizer of 262,000 words is stepped
over), so the planner reads strangers' headers in its own process; ggml's parser, in the child, reads them once more.
"""

import struct
from collections.abc import Mapping
from typing import BinaryIO, Final

from planner.gguf.arithmetic import check_numbers
from planner.gguf.cursor import Buffer, Cursor, quoted
from planner.gguf.limits import LIMITS, Limits
from planner.gguf.table import SMALLEST_TENSOR_BYTES, walk_tensors
from planner.gguf.walked import KeySpot, Walked

__all__ = ["walk_header", "walk_stream"]

_SMALLEST_PAIR_BYTES: Final = 8 + 1 + 4 + 1  # length of the key, one letter, type, one byte
_DEFAULT_ALIGNMENT: Final = 32
_SCALARS: Final[Mapping[int, tuple[str, int]]] = {
    0: ("u8", 1), 1: ("i8", 1), 2: ("u16", 2), 3: ("i16", 2), 4: ("u32", 4), 5: ("i32", 4), 6: ("f32", 4),
    7: ("bool", 1), 10: ("u64", 8), 11: ("i64", 8), 12: ("f64", 8),
}  # fmt: skip
_STRING, _ARRAY = 8, 9
_LOOKS_LIKE: Final = {
    b"vers": "it is a Git LFS pointer: the file itself was never fetched",
    b"<!DO": "it is a web page, not a file: the download link led elsewhere",
    b"<htm": "it is a web page, not a file: the download link led elsewhere",
    b"PK\x03\x04": "it is a zip archive (PyTorch weights?)",
    b"lmgg": "it is a GGML file from before August 2023",
    b"tjgg": "it is a GGML file from before August 2023",
    b"fmgg": "it is a GGML file from before August 2023",
}


def walk_header(data: Buffer, *, file_bytes: int | None = None, limits: Limits = LIMITS) -> Walked:
    """What the header at the front of ``data`` holds; ``data`` may be the whole file or its first bytes.

    ``file_bytes`` is the whole file's length where it is known: then a header that needs more is refused at once.
    Raises :class:`planner.gguf.Incomplete` when the header goes on beyond ``data``, BadInputError (code ``bad-gguf``)
    for anything that is wrong.
    """
    return _walk(Cursor(data, len(data), file_bytes=file_bytes, limits=limits))


def walk_stream(stream: BinaryIO, available: int, *, file_bytes: int | None = None, limits: Limits = LIMITS) -> Walked:
    """The same from a seekable stream that holds ``available`` bytes, a mebibyte in memory at a time."""

    def refill(position: int, size_bytes: int) -> bytes:
        stream.seek(position)
        return stream.read(size_bytes)

    return _walk(Cursor(b"", available, file_bytes=file_bytes, limits=limits, refill=refill))


def _walk(cursor: Cursor) -> Walked:
    version = _version(cursor)
    n_tensors, n_keys = _counts(cursor)
    warnings: list[str] = []
    keys: dict[str, KeySpot] = {}
    strings, key_bytes = cursor.limits.strings, cursor.limits.keys_bytes
    for index in range(n_keys):
        cursor.later = (n_keys - index - 1) * _SMALLEST_PAIR_BYTES + n_tensors * SMALLEST_TENSOR_BYTES
        cursor.check_clock()
        at = cursor.position
        key = _key(cursor, keys)
        key_bytes -= cursor.position - at
        spot = _value(cursor, key, strings)
        strings -= spot.length if spot.type == "[str]" else 0
        if key_bytes < 0:
            raise cursor.bad(f"its keys take more than {cursor.limits.keys_bytes} bytes", at=at)
        keys[key] = spot
    end = cursor.position
    cursor.later = n_tensors * SMALLEST_TENSOR_BYTES
    alignment = _alignment(cursor, keys)
    architecture, split = check_numbers(cursor, keys, warnings)
    cursor.position = end
    tensors = walk_tensors(cursor, n_tensors, alignment)
    data_offset = cursor.position + -cursor.position % alignment if n_tensors else cursor.position
    data_bytes = tensors[-1].offset + tensors[-1].size_bytes if tensors else 0
    _check_end(cursor, data_offset + data_bytes, alignment, warnings)
    return Walked(
        version=version,
        alignment=alignment,
        architecture=architecture,
        split=split,
        keys=keys,
        tensors=tensors,
        header_bytes=cursor.position,
        data_offset=data_offset,
        data_bytes=data_bytes,
        warnings=tuple(warnings),
    )


def _version(cursor: Cursor) -> int:
    magic = struct.pack("<I", cursor.u32())
    if magic != b"GGUF":
        reason = _LOOKS_LIKE.get(magic, f"it begins with {ascii(magic)[1:]} and not with 'GGUF'")
        raise cursor.bad(reason, at=0)
    version = cursor.u32()
    if not version & 0xFFFF:
        raise cursor.bad("it is written for a machine of the other byte order", at=4)
    if version not in (2, 3):
        raise cursor.bad(f"it has version {version}; llama.cpp reads 2 and 3", at=4)
    return version


def _counts(cursor: Cursor) -> tuple[int, int]:
    """Numbers of tensors and of keys, each possible within the bytes that are left."""
    n_tensors, n_keys = cursor.u64(), cursor.u64()
    smallest = n_keys * _SMALLEST_PAIR_BYTES + n_tensors * SMALLEST_TENSOR_BYTES
    if smallest > cursor.left_bytes:
        raise cursor.bad(f"{n_keys} keys and {n_tensors} tensors cannot stand in {cursor.left_bytes} bytes", at=8)
    if n_keys > cursor.limits.keys:
        raise cursor.bad(f"{n_keys} keys are more than {cursor.limits.keys}", at=16)
    if n_tensors > cursor.limits.tensors:
        raise cursor.bad(f"{n_tensors} tensors are more than {cursor.limits.tensors}", at=8)
    return n_tensors, n_keys


def _key(cursor: Cursor, known: Mapping[str, KeySpot]) -> str:
    at = cursor.position
    key = cursor.text("a key", cursor.limits.key_bytes)
    if not key:
        raise cursor.bad("a key is empty", at=at)
    if key in known:
        raise cursor.bad("a key occurs twice", key=key, at=at)
    return key


def _value(cursor: Cursor, key: str, strings: int) -> KeySpot:
    """Where the value of ``key`` stands, after stepping over it; ``strings`` elements may still come in arrays."""
    at, kind = cursor.position, cursor.u32()
    if kind == _STRING:
        longest = cursor.limits.string_bytes
        if key in cursor.limits.long_strings:
            longest = cursor.limits.long_string_bytes
        size = cursor.skip_text(f"the value of {quoted(key)}", longest)
        return KeySpot("str", cursor.position - size, size)
    if kind == _ARRAY:
        return _array(cursor, key, strings)
    if kind not in _SCALARS:
        raise cursor.bad(f"a value has the unknown type {kind}", key=key, at=at)
    name, size = _SCALARS[kind]
    cursor.skip(size)
    return KeySpot(name, cursor.position - size, 1)


def _array(cursor: Cursor, key: str, strings: int) -> KeySpot:
    at = cursor.position
    kind, count = cursor.u32(), cursor.u64()
    start = cursor.position
    if kind == _STRING:
        # A string takes eight bytes at least; compared before the loop, so that a count alone costs nothing.
        if count * 8 > cursor.left_bytes:
            raise cursor.bad(f"{count} strings cannot stand in {cursor.left_bytes} bytes", key=key, at=at)
        if count > min(cursor.limits.array_strings, strings):
            raise cursor.bad(f"{count} strings are more than are read", key=key, at=at)
        cursor.skip_strings(count)
        return KeySpot("[str]", start, count)
    if kind not in _SCALARS:
        what = "an array of arrays" if kind == _ARRAY else f"an array of the unknown type {kind}"
        raise cursor.bad(f"a value is {what}", key=key, at=at)
    name, size = _SCALARS[kind]
    if count * size > cursor.left_bytes:
        raise cursor.bad(f"{count} values cannot stand in {cursor.left_bytes} bytes", key=key, at=at)
    cursor.skip(count * size)
    return KeySpot(f"[{name}]", start, count)


def _alignment(cursor: Cursor, keys: Mapping[str, KeySpot]) -> int:
    key = "general.alignment"
    spot = keys.get(key)
    if spot is None:
        return _DEFAULT_ALIGNMENT
    if spot.type != "u32":
        raise cursor.bad(f"it has type {spot.type}, not u32", key=key, at=spot.offset)
    cursor.position = spot.offset
    alignment = cursor.u32()
    if not 1 <= alignment <= cursor.limits.alignment or alignment & (alignment - 1):
        what = f"{alignment} is no power of two from 1 to {cursor.limits.alignment}"
        raise cursor.bad(what, key=key, at=spot.offset)
    return alignment


def _check_end(cursor: Cursor, end: int, alignment: int, warnings: list[str]) -> None:
    """The last tensor must end within the file; more than its padding behind it is odd."""
    if cursor.file_bytes is None:
        return
    if end > cursor.file_bytes:
        missing = end - cursor.file_bytes
        raise cursor.bad(f"the file was cut off: {missing} of {end} bytes are missing", at=cursor.file_bytes)
    if cursor.file_bytes > end + -end % alignment:
        warnings.append(f"{cursor.file_bytes - end} bytes follow the last tensor")
