"""Writes phantoms: GGUF files with a model's exact metadata, names, shapes and types, and a hole for data.

The engine cannot tell a phantom from the model, so it answers every question about memory and types before a single
weight is downloaded. A sparse file keeps the 671 B parameters of DeepSeek-R1 in under 100 KB of disk. For timing, the
data can be random and valid; the router of a mixture of experts must be random even then, or it always picks the same
experts and the model looks faster than it is.

The header is written here and not by ``gguf.GGUFWriter``, which wants the data of every tensor and whose import takes
longer than this whole module's work.
"""

import contextlib
import errno
import os
import struct
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import BinaryIO

from planner.engine.random_blocks import RandomBlocks
from planner.errors import FileIOError
from planner.gguf.ggml_types import TYPES, tensor_bytes
from planner.types import Report
from planner.types.metadata import GgufType, GgufValue
from planner.types.model import Layout, MetadataValue, TensorSpec

__all__ = ["PhantomFile", "write_phantom"]

_MAGIC, _VERSION, _DEFAULT_ALIGNMENT = b"GGUF", 3, 32
_STRING, _ARRAY = 8, 9
_CODES: Mapping[str, tuple[int, str]] = {
    "u8": (0, "B"), "i8": (1, "b"), "u16": (2, "H"), "i16": (3, "h"), "u32": (4, "I"), "i32": (5, "i"), "f32": (6, "f"),
    "bool": (7, "?"), "u64": (10, "Q"), "i64": (11, "q"), "f64": (12, "d"),
}  # fmt: skip


class PhantomFile(Report, frozen=True, kw_only=True):
    """A written phantom: its apparent size and what it takes on disk."""

    path: str
    size_bytes: int
    disk_bytes: int


def write_phantom(
    path: Path,
    layout: Layout,
    *,
    types: Mapping[str, str] | None = None,
    random_seed: int | None = None,
    random_only: tuple[str, ...] = (),
) -> PhantomFile:
    """A phantom of ``layout`` at ``path``; it appears there complete or not at all.

    ``types`` replaces the layout's type of the named tensors (``{"blk.0.attn_q.weight": "Q4_K"}``). Without
    ``random_seed`` all data is a hole that reads as zero; with it every tensor is filled, or only those whose name ends
    with one of ``random_only`` (``("ffn_gate_inp.weight",)``). Raises FileIOError when it cannot be written, ValueError
    for a type that ggml does not have or that does not fit a row.
    """
    tensors = _typed(layout.tensors, types or {})
    header, offsets, data_bytes = _header(layout.metadata, tensors)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with part.open("wb") as file:
            file.write(header)
            file.truncate(len(header) + data_bytes)
            if random_seed is not None:
                wanted = [pair for pair in zip(tensors, offsets, strict=True) if _wants(pair[0].name, random_only)]
                _fill(file, len(header), wanted, RandomBlocks(random_seed))
        part.replace(path)
        status = path.stat()
    except OSError as error:
        raise _explain(path, error) from error
    finally:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)
    # Where the system does not tell blocks (Windows), a phantom counts as what it may become.
    blocks = getattr(status, "st_blocks", None)
    disk_bytes = status.st_size if blocks is None else blocks * 512
    return PhantomFile(path=str(path), size_bytes=status.st_size, disk_bytes=disk_bytes)


def _typed(tensors: Iterable[TensorSpec], types: Mapping[str, str]) -> list[TensorSpec]:
    return [
        TensorSpec(name=tensor.name, dims=tensor.dims, type=types[tensor.name]) if tensor.name in types else tensor
        for tensor in tensors
    ]


def _wants(name: str, random_only: tuple[str, ...]) -> bool:
    return not random_only or name.endswith(random_only)


def _fill(file: BinaryIO, base: int, tensors: Iterable[tuple[TensorSpec, int]], blocks: RandomBlocks) -> None:
    for tensor, offset in tensors:
        file.seek(base + offset)
        file.writelines(blocks.chunks(tensor.type, tensor.name, tensor_bytes(tensor.type, tensor.dims)))


def _header(metadata: Mapping[str, MetadataValue], tensors: list[TensorSpec]) -> tuple[bytes, list[int], int]:
    """The GGUF header padded to the data section, the tensors' offsets in it, and its length."""
    alignment = _alignment(metadata)
    parts = [_MAGIC, struct.pack("<IQQ", _VERSION, len(tensors), len(metadata))]
    parts += [_string(key) + _value(value) for key, value in metadata.items()]
    offsets, end = [], 0
    for tensor in tensors:
        dims = tensor.dims
        size_bytes = tensor_bytes(tensor.type, dims)
        parts += [_string(tensor.name), struct.pack("<I", len(dims)), struct.pack(f"<{len(dims)}Q", *dims)]
        parts.append(struct.pack("<IQ", TYPES[tensor.type].number, end))
        offsets.append(end)
        end += _padded(size_bytes, alignment)
    header = b"".join(parts)
    return header.ljust(_padded(len(header), alignment), b"\0"), offsets, end


def _alignment(metadata: Mapping[str, MetadataValue]) -> int:
    value = metadata.get("general.alignment", _DEFAULT_ALIGNMENT)
    plain = value.value if isinstance(value, GgufValue) else value
    if not isinstance(plain, int) or plain < 1:
        raise ValueError(f"{plain!r} is no alignment")
    return plain


def _padded(size_bytes: int, alignment: int) -> int:
    return -(-size_bytes // alignment) * alignment


def _string(text: str) -> bytes:
    data = text.encode()
    return struct.pack("<Q", len(data)) + data


def _value(value: MetadataValue) -> bytes:
    """A metadata value with its type: the one it names, or text, boolean, u32, f32, an array of boolean, i32 or f32."""
    typed = value if isinstance(value, GgufValue) else GgufValue(type=_plain_type(value), value=value)
    if not isinstance(typed.value, tuple):
        code = _STRING if typed.type == "str" else _CODES[typed.type][0]
        return struct.pack("<I", code) + _scalar(typed.type, typed.value)
    kind = typed.type[1:-1]
    code = _STRING if kind == "str" else _CODES[kind][0]
    return struct.pack("<IIQ", _ARRAY, code, len(typed.value)) + b"".join(_scalar(kind, each) for each in typed.value)


def _scalar(kind: str, value: str | float) -> bytes:
    return _string(value) if isinstance(value, str) else struct.pack(f"<{_CODES[kind][1]}", value)


def _plain_type(value: str | float | tuple[int | float | bool, ...]) -> GgufType:
    if isinstance(value, tuple):
        if all(isinstance(each, bool) for each in value):
            return "[bool]"
        return "[i32]" if all(isinstance(each, int) for each in value) else "[f32]"
    if isinstance(value, str):
        return "str"
    if isinstance(value, bool):
        return "bool"
    return "u32" if isinstance(value, int) else "f32"


def _explain(path: Path, error: OSError) -> FileIOError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return FileIOError(
            f"cannot write the phantom {path}: the disk is full", hint="free some space there", code="disk-full"
        )
    if error.errno == errno.EFBIG:
        return FileIOError(
            f"cannot write the phantom {path}: this file system takes no file of that size, even a sparse one",
            hint="set PLANNER_CACHE_DIR to a folder on another file system",
        )
    return FileIOError(
        f"cannot write the phantom {path}: {error.strerror or error}", hint="check the path and the disk"
    )
