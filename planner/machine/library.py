"""Machines by name or file, for ``--machine``; prevents a hostile or broken file from being more than an error line.

A file is a capture (``detect --capture``), a machine (``detect --json``) or a description (TOML); which one is told
from its content, not from its name.
"""

import difflib
import errno
import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from planner.errors import BadInputError, ExitCode, FileIOError, MissingInputError
from planner.files import profiles_dir
from planner.machine import described, sanity
from planner.machine.answers import Capture
from planner.machine.detection import interpret

if TYPE_CHECKING:
    from planner.types.machine import Machine

__all__ = ["load", "names"]

_CAP_BYTES = 8 << 20
_HINT = "a machine file is made by planner detect --capture FILE, or by planner detect --json > FILE"


class _Head(msgspec.Struct, frozen=True, kw_only=True):
    """The one member that tells what a JSON document is."""

    schema: str


def names() -> tuple[str, ...]:
    """Names of the machines that planner ships."""
    return tuple(sorted(_shipped()))


def load(name_or_path: str) -> "Machine":
    """A shipped machine by name, or the machine in a file.

    Raises :class:`MissingInputError` (with the closest names), :class:`BadInputError` (file and place in it) and
    :class:`FileIOError`. At most 8 MiB are read, from regular files only.
    """
    shipped = _shipped().get(name_or_path)
    path = shipped or Path(name_or_path)
    if shipped is None and not _exists(path):
        raise _missing(name_or_path)
    machine = _parse(_read(path), name_or_path)
    return msgspec.structs.replace(machine, name=name_or_path) if shipped is not None else machine


def _shipped() -> dict[str, Path]:
    folder = profiles_dir() / "machines"
    return {path.stem: path for pattern in ("*.toml", "*.json") for path in folder.glob(pattern)}


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):  # a name too long, or with a NUL byte
        return False


def _missing(name: str) -> MissingInputError:
    known = names()
    close = difflib.get_close_matches(Path(name).stem.lower(), known, n=3, cutoff=0.4)
    hint = f"did you mean {', '.join(close)}?" if close else f"known machines: {', '.join(known)}"
    return MissingInputError(
        f"there is no machine called {name[:200]!r} and no file by that name", hint=hint, code="unknown-machine"
    )


def _read(path: Path) -> bytes:
    try:
        # O_NONBLOCK: opening a named pipe must not wait for a writer.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        with os.fdopen(descriptor, "rb") as file:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise BadInputError(f"{path}: not a regular file", hint=_HINT)
            data = file.read(_CAP_BYTES + 1)
    except PermissionError as error:
        raise FileIOError(
            f"cannot read {path}: {error.strerror}",
            hint="name a file that you may read",
            code="not-permitted",
            exit_code=ExitCode.NOT_PERMITTED,
        ) from error
    except OSError as error:
        if error.errno in (errno.EISDIR, errno.ENXIO):
            raise BadInputError(f"{path}: not a regular file", hint=_HINT) from error
        raise FileIOError(f"cannot read {path}: {error.strerror}", hint="check the path and the disk") from error
    if len(data) > _CAP_BYTES:
        raise BadInputError(f"{path}: larger than 8 MiB, no machine file is", hint=_HINT)
    return data


def _parse(data: bytes, label: str) -> "Machine":
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        raise BadInputError(f"{label}: byte {error.start} is not UTF-8: no machine file", hint=_HINT) from error
    if not text.strip():
        raise BadInputError(f"{label}: the file is empty", hint=_HINT)
    if text.lstrip()[0] in "{[":
        return _parse_json(data, label)
    return sanity.build(described.parse(text, label), label)


def _parse_json(data: bytes, label: str) -> "Machine":
    try:
        schema = msgspec.json.decode(data, type=_Head).schema
        if schema == "planner/capture/1":
            document = msgspec.to_builtins(interpret(msgspec.json.decode(data, type=Capture)))
        elif schema == "planner/machine/1":
            document = msgspec.json.decode(data)
            if document.get("kind") == "detected":
                document["kind"] = "recorded"
        else:
            raise BadInputError(
                f"{label}: schema is {schema[:60]!r}: only planner/capture/1 and planner/machine/1 are known",
                hint=_HINT,
            )
    except (msgspec.DecodeError, RecursionError) as error:
        raise BadInputError(f"{label}: {error}", hint=_HINT) from error
    return sanity.build(document, label)
