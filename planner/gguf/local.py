"""Model files on this disk: what a path names, which files belong to it, and which of them are missing.

It prevents planning for the first of nine parts, and taking a vision projector that lies beside a model for a second
model. Names decide here only which files are read; what they are is said by their headers.
"""

import itertools
import os
import re
import stat
from collections.abc import Collection
from pathlib import Path
from typing import NamedTuple

from planner.errors import BadInputError, FileIOError, MissingInputError

__all__ = ["LocalFolder", "LocalSet", "check_plain_file", "local_models", "local_parts"]

_SPLIT = re.compile(
    r"(?P<prefix>.+)-(?P<number>\d{5})-of-(?P<count>\d{5})(?P<suffix>\.gguf)", re.IGNORECASE | re.DOTALL
)
_PROJECTOR = "mmproj"
_MOST_FILES = 20_000


class LocalSet(NamedTuple):
    """One model on this disk: its files in order, and the names of the parts that are not there."""

    name: str
    parts: tuple[Path, ...]
    missing: tuple[str, ...] = ()


class LocalFolder(NamedTuple):
    """What a folder holds: models (several quantizations of one are several), vision projectors set apart."""

    models: tuple[LocalSet, ...]
    projectors: tuple[Path, ...]


def local_parts(path: Path) -> tuple[Path, ...]:
    """The files of the model that ``path`` is, or is one part of, in order.

    Raises MissingInputError when there is no such file or parts of its set are missing (each is named), BadInputError
    for what is no plain file. A folder is the affair of :func:`local_models`.
    """
    check_plain_file(path)
    match = _SPLIT.fullmatch(path.name)
    if match is None:
        return (path,)
    count = int(match["count"])
    if not 1 <= int(match["number"]) <= count:
        raise BadInputError(
            f"{path}: there is no part {match['number']} of {match['count']}", hint="rename the file", code="bad-gguf"
        )
    names = _part_names(match["prefix"], count, match["suffix"])
    there = _names_in(path.parent)
    missing = [name for name in names if name not in there]
    if missing:
        raise MissingInputError(
            f"{path.parent}: the set of {count} parts is incomplete, missing: {_listed(missing)}",
            hint="put the missing parts beside it, or download the set again",
            code="incomplete-split",
        )
    parts = tuple(path.parent / name for name in names)
    for part in parts:
        check_plain_file(part)
    return parts


def local_models(folder: Path) -> LocalFolder:
    """All GGUF files directly in ``folder``, put together to models, by name.

    Raises MissingInputError for a folder that is not there or holds no GGUF at all, FileIOError for one that cannot be
    read.
    """
    names = sorted(_names_in(folder))
    if not names:
        raise MissingInputError(f"no .gguf file in {folder}", hint="name the file itself, or the folder it lies in")
    projectors = tuple(folder / name for name in names if _PROJECTOR in name.lower())
    models = _sets(folder, {name: None for name in names if _PROJECTOR not in name.lower()})
    return LocalFolder(models, projectors)


def _sets(folder: Path, names: Collection[str]) -> tuple[LocalSet, ...]:
    found: dict[str, LocalSet] = {}
    for name in names:
        match = _SPLIT.fullmatch(name)
        if match is None:
            found[name] = LocalSet(name, (folder / name,))
            continue
        label = f"{match['prefix']}{match['suffix']}"
        key = f"{label} of {match['count']}"
        if key not in found:
            wanted = _part_names(match["prefix"], int(match["count"]), match["suffix"])
            there = tuple(folder / part for part in wanted if part in names)
            missing = tuple(part for part in wanted if part not in names)
            found[key] = LocalSet(label, there, missing)
    return tuple(found.values())


def _names_in(folder: Path) -> set[str]:
    """The names of the GGUF files in ``folder``; what begins with a dot is somebody's unfinished business."""
    try:
        with os.scandir(folder) as entries:
            return {entry.name for entry in itertools.islice(entries, _MOST_FILES) if _is_gguf(entry)}
    except FileNotFoundError as error:
        raise MissingInputError(f"no such folder: {folder}", hint="check the path") from error
    except OSError as error:
        raise FileIOError(f"cannot read {folder}: {error.strerror or error}", hint="check the path") from error


def _is_gguf(entry: "os.DirEntry[str]") -> bool:
    return entry.name.lower().endswith(".gguf") and not entry.name.startswith(".") and entry.is_file()


def _part_names(prefix: str, count: int, suffix: str) -> list[str]:
    return [f"{prefix}-{number:05}-of-{count:05}{suffix}" for number in range(1, count + 1)]


def _listed(names: list[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


def check_plain_file(path: Path) -> None:
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
