"""Looking through folders that belong to others: bounded, never in circles, and silent about nothing it had to skip.

The mistake it prevents is trusting a stranger's tree: a link back to its own parent, a million small files, a folder
that may not be read, a manifest of a gigabyte.
"""

import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from planner.types.artifact import Part

__all__ = ["Walk"]

_MOST_ENTRIES = 20_000
_DEEPEST = 8
_LONGEST_DOCUMENT_BYTES = 1 << 20


class Walk:
    """One look through a cache: ``notes`` says what was skipped, and the bound on entries holds for all of it."""

    def __init__(self) -> None:
        self.notes: list[str] = []
        self._left = _MOST_ENTRIES
        self._full = False

    def files(self, root: Path, *, depth: int = _DEEPEST) -> Iterator[Path]:
        """Every file below ``root``, folder by folder in order of names; links are followed, each folder once."""
        seen: set[tuple[int, int]] = set()
        waiting = [(root, depth)]
        while waiting:
            folder, levels = waiting.pop()
            mark = self._mark(folder)
            if mark is None or mark in seen:
                continue
            seen.add(mark)
            folders = []
            for entry in self._entries(folder):
                if not _is_folder(entry):
                    yield Path(entry.path)
                elif levels > 0 and not entry.name.startswith("."):
                    folders.append((Path(entry.path), levels - 1))
            waiting.extend(reversed(folders))

    def folders(self, root: Path) -> list[Path]:
        """The folders in ``root``, in order of names; none when it is not there."""
        return [Path(entry.path) for entry in self._entries(root) if _is_folder(entry)]

    def part(self, file: Path, path: str, *, sha256: str | None = None) -> Part | None:
        """A file as a part called ``path``, or None (with a note) when it is no file that can be looked at."""
        try:
            found = file.stat()
        except OSError as error:
            self.notes.append(f"{file}: {error.strerror or error}")
            return None
        if not stat.S_ISREG(found.st_mode):
            return None
        return Part(path=path, size_bytes=found.st_size, sha256=sha256, local_path=str(file))

    def document(self, file: Path) -> Any:  # noqa: ANN401 - JSON that another program wrote
        """The JSON document in a file, or None when there is none that can be read."""
        try:
            if file.stat().st_size > _LONGEST_DOCUMENT_BYTES:
                return None
            return msgspec.json.decode(file.read_bytes())
        except (OSError, msgspec.DecodeError):
            return None

    def _mark(self, folder: Path) -> tuple[int, int] | None:
        try:
            found = folder.stat()
        except OSError:
            return None
        return found.st_dev, found.st_ino

    def _entries(self, folder: Path) -> list[os.DirEntry[str]]:
        entries: list[os.DirEntry[str]] = []
        try:
            with os.scandir(folder) as scan:
                for entry in scan:
                    if self._left == 0:
                        self._say_full(folder)
                        break
                    self._left -= 1
                    entries.append(entry)
        except (FileNotFoundError, NotADirectoryError):
            return []
        except OSError as error:
            self.notes.append(f"{folder}: {error.strerror or error}")
        return sorted(entries, key=lambda entry: entry.name)

    def _say_full(self, folder: Path) -> None:
        if not self._full:
            self.notes.append(f"{folder}: more than {_MOST_ENTRIES} entries, the rest was not looked at")
            self._full = True


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        return False
