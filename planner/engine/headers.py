"""Reads the header of any GGUF, twice: our own walk with its bounds first, then ggml's parser in the child.

The mistake it prevents is planning for a file that the engine refuses, or that only one of two readers understands:
both must accept it and must find the same tensors at the same places. Values are copied from ggml's answer with their
exact types; a chat template is hashed and never rendered.
"""

import hashlib
import json
import os
import stat
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec

from planner.engine.child import EngineChild
from planner.errors import BadInputError, EngineError, FileIOError, MissingInputError
from planner.gguf import Incomplete, Walked, walk_stream
from planner.gguf.cursor import quoted
from planner.gguf.facts import facts_of, text_of, vocab_size_of
from planner.types import Report
from planner.types.header import Header, LongValue
from planner.types.metadata import GgufType, GgufValue
from planner.types.model import TensorSpec

__all__ = ["read_header"]

_DEADLINE_S = 5.0
_START_DEADLINE_S = 30.0
_DAMAGED = "download it again from its publisher; no setting makes this file readable"
_FLOATS = {"f32", "f64"}


class _Told(Report, frozen=True, kw_only=True):
    """The child's answer about one file."""

    metadata: dict[str, list[object]]
    digest: str
    alignment: int
    data_offset: int


class _Part(NamedTuple):
    path: Path
    walked: Walked
    told: _Told
    file_bytes: int | None


def read_header(
    child: EngineChild,
    paths: Sequence[Path],
    *,
    file_bytes: Sequence[int | None] | None = None,
    name: str | None = None,
) -> Header:
    """The header of the model in ``paths``: one file, or all parts of a split set in order.

    With ``file_bytes`` the paths hold only the headers of files that have so many bytes (``None``: unknown); without
    it they are the whole files. ``name`` stands for the model in messages (default: the first file's name). Raises
    BadInputError (code ``bad-gguf``) naming the file and the place in it, MissingInputError for a file that is not
    there.
    """
    label = name or paths[0].name
    sizes = file_bytes if file_bytes is not None else [None] * len(paths)
    whole = file_bytes is None
    walks = [_walk(path, size, whole=whole) for path, size in zip(paths, sizes, strict=True)]
    _check_set(label, [walked for walked, _ in walks])
    # Loading the engine's libraries may take long on a slow disk; that is not the header's fault.
    child.ask("header.verdicts", {"path": os.devnull, "lengths": []}, deadline_s=_START_DEADLINE_S)
    parts = [
        _Part(path, walked, _ask(child, path, walked), size) for path, (walked, size) in zip(paths, walks, strict=True)
    ]
    for part in parts:
        _compare(part)
    return _assemble(label, parts)


def _check_plain_file(path: Path) -> None:
    """Refuse all but plain files: a pipe or a device would be waited for.

    Raises MissingInputError for a file that is not there, BadInputError for a folder or a device.
    """
    try:
        mode = path.stat().st_mode
    except FileNotFoundError as error:
        raise MissingInputError(f"no such file: {path}", hint="check the path") from error
    except OSError as error:
        raise FileIOError(f"cannot read {path}: {error.strerror or error}", hint="check the path") from error
    if not stat.S_ISREG(mode):
        what = "a folder" if stat.S_ISDIR(mode) else "no plain file"
        raise BadInputError(f"{path} is {what}", hint="name a .gguf file")


def _walk(path: Path, file_bytes: int | None, *, whole: bool) -> tuple[Walked, int | None]:
    """Our own walk over one file, and how many bytes the file has."""
    _check_plain_file(path)
    try:
        with path.open("rb") as stream:
            there = stream.seek(0, 2)
            size = there if whole else file_bytes
            return walk_stream(stream, there, file_bytes=size), size
    except Incomplete as more:
        raise _bad(path, f"its header goes on to byte {more.needed_bytes} at least and the file has {there}") from more
    except BadInputError as error:
        raise BadInputError(f"{path}: {error.message}", hint=error.hint, code=error.code) from error
    except OSError as error:
        raise FileIOError(f"cannot read {path}: {error.strerror or error}", hint="check the disk") from error


def _ask(child: EngineChild, path: Path, walked: Walked) -> _Told:
    question = {"path": str(path), "pad_to": walked.data_offset, "digest": True}
    try:
        answer = child.ask("header", question, deadline_s=_DEADLINE_S)
    except EngineError as error:
        raise _bad(path, error.message) from error
    return msgspec.convert(answer, _Told)


def _check_set(label: str, walks: Sequence[Walked]) -> None:
    """The parts must be those of one set, in order, all of them; together they hold the tensors they promise."""
    count = len(walks)
    for index, walked in enumerate(walks):
        split = walked.split
        if count == 1 and (split is None or split.parts == 1):
            continue
        if split is None:
            raise _bad(label, f"file {index + 1} of {count} is no part of a split set")
        if split.parts != count:
            raise _bad(label, f"it is split into {split.parts} parts and {count} are here")
        if split.part != index:
            raise _bad(label, f"part {split.part + 1} stands where part {index + 1} must")
    found = sum(len(each.tensors) for each in walks)
    for split in (each.split for each in walks if each.split is not None):
        if split.tensors not in (None, found):
            raise _bad(label, f"its parts hold {found} tensors and promise {split.tensors}")
    if walks[0].architecture is None:
        raise _bad(label, "it names no architecture, so it is no model (an importance matrix?)")
    _check_names(label, walks)


def _check_names(label: str, walks: Sequence[Walked]) -> None:
    names: set[str] = set()
    for row in (row for walked in walks for row in walked.tensors):
        if row.name in names:
            raise _bad(label, f"the tensor {quoted(row.name)} is in two parts")
        names.add(row.name)


def _compare(part: _Part) -> None:
    """Both readers must have found the same tensors at the same places."""
    digest = hashlib.sha256()
    for row in part.walked.tensors:
        line = [row.name, _without_ones(row.dims), row.type.lower(), row.size_bytes, row.offset]
        digest.update(json.dumps(line).encode() + b"\n")
    ours = (digest.hexdigest(), part.walked.data_offset, part.walked.alignment)
    if ours != (part.told.digest, part.told.data_offset, part.told.alignment):
        raise _bad(part.path, "planner and llama.cpp read its tensor table differently")


def _without_ones(dims: tuple[int, ...]) -> tuple[int, ...]:
    while len(dims) > 1 and dims[-1] == 1:
        dims = dims[:-1]
    return dims


def _assemble(label: str, parts: Sequence[_Part]) -> Header:
    first = parts[0]
    metadata: dict[str, GgufValue] = {}
    long: dict[str, LongValue] = {}
    for key, told in first.told.metadata.items():
        value = _value(told)
        if isinstance(value, LongValue):
            long[key] = value
        else:
            metadata[key] = value
    tensors = tuple(
        TensorSpec(name=row.name, dims=row.dims, type=row.type) for part in parts for row in part.walked.tensors
    )
    architecture = first.walked.architecture or ""
    template = long.get("tokenizer.chat_template")
    known = [part.file_bytes for part in parts if part.file_bytes is not None]
    return Header(
        name=label,
        architecture=architecture,
        kind=text_of(metadata, "general.type") or "model",
        version=first.walked.version,
        alignment=first.walked.alignment,
        metadata=metadata,
        long=long,
        tensors=tensors,
        vocab_size=vocab_size_of(architecture, metadata, long, {tensor.name: tensor for tensor in tensors}),
        tokenizer_model=text_of(metadata, "tokenizer.ggml.model"),
        chat_template_sha256=template.sha256 if template is not None else None,
        header_bytes=sum(part.walked.header_bytes for part in parts),
        data_bytes=sum(part.walked.data_bytes for part in parts),
        file_bytes=sum(known) if len(known) == len(parts) else None,
        parts=len(parts),
        facts=facts_of(metadata),
        warnings=tuple(_warnings(parts, long)),
    )


def _warnings(parts: Sequence[_Part], long: dict[str, LongValue]) -> Iterable[str]:
    for part in parts:
        yield from part.walked.warnings
    for key in long:
        if not key.startswith("tokenizer."):
            yield f"{quoted(key)} is too long to copy: a phantom goes without it"


def _value(told: list[object]) -> GgufValue | LongValue:
    """A value as the child tells it: ``[type, value]``, or ``[type, null, length]`` with a hash where it has one."""
    kind = msgspec.convert(told[0], GgufType)
    if told[1] is None:
        sha256 = msgspec.convert(told[3], str) if len(told) > 3 else None
        return LongValue(type=kind, length=msgspec.convert(told[2], int), sha256=sha256)
    value = told[1]
    if kind.strip("[]") in _FLOATS:
        # JSON has no NaN and no infinity: the child spells them.
        value = [float(str(each)) for each in value] if isinstance(value, list) else float(str(value))
    return msgspec.convert({"type": kind, "value": value}, GgufValue)


def _bad(where: Path | str, what: str) -> BadInputError:
    return BadInputError(f"{where}: not a sound GGUF: {what}", hint=_DAMAGED, code="bad-gguf")
