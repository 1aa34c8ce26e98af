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

from planner.engine.ggml_types import TYPES, tensor_bytes
from planner.engine.random_blocks import RandomBlocks
from planner.errors import FileIOError
from planner.types import Report
from planner.types.model import Layout, MetadataValue, TensorSpec

__all__ = ["PhantomFile", "write_phantom"]

_MAGIC, _VERSION, _ALIGNMENT = b"GGUF", 3, 32
_U32, _I32, _F32, _BOOL, _STRING, _ARRAY = 4, 5, 6, 7, 8, 9


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
    parts = [_MAGIC, struct.pack("<IQQ", _VERSION, len(tensors), len(metadata))]
    parts += [_string(key) + _value(value) for key, value in metadata.items()]
    offsets, end = [], 0
    for tensor in tensors:
        dims = tensor.dims
        size_bytes = tensor_bytes(tensor.type, dims)
        parts += [_string(tensor.name), struct.pack("<I", len(dims)), struct.pack(f"<{len(dims)}Q", *dims)]
        parts.append(struct.pack("<IQ", TYPES[tensor.type].number, end))
        offsets.append(end)
        end += _padded(size_bytes)
    header = b"".join(parts)
    return header.ljust(_padded(len(header)), b"\0"), offsets, end


def _padded(size_bytes: int) -> int:
    return -(-size_bytes // _ALIGNMENT) * _ALIGNMENT


def _string(text: str) -> bytes:
    data = text.encode()
    return struct.pack("<Q", len(data)) + data


def _value(value: MetadataValue) -> bytes:
    """A metadata value with its type: text, boolean, u32, f32, or an array of one of boolean, i32 and f32."""
    if isinstance(value, str):
        return struct.pack("<I", _STRING) + _string(value)
    if isinstance(value, tuple):
        return _array(value)
    if isinstance(value, bool):
        return struct.pack("<I?", _BOOL, value)
    if isinstance(value, int):
        return struct.pack("<II", _U32, value)
    return struct.pack("<If", _F32, value)


def _array(values: tuple[int | float | bool, ...]) -> bytes:
    if all(isinstance(value, bool) for value in values):
        kind, code = _BOOL, "?"
    elif all(isinstance(value, int) for value in values):
        kind, code = _I32, "i"
    else:
        kind, code = _F32, "f"
    return struct.pack(f"<IIQ{len(values)}{code}", _ARRAY, kind, len(values), *values)


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
