"""Model files that a path names: one file, the split set it belongs to, or all that lies in a folder."""

import stat
from pathlib import Path

from planner.errors import FileIOError, MissingInputError
from planner.hub.caches.walk import Walk
from planner.hub.names import artifacts_of, split_of
from planner.types.artifact import Reference, Repository

__all__ = ["list_path"]


def list_path(reference: Reference) -> Repository:
    """The model files at a path on this disk.

    Raises :class:`MissingInputError` for a path that is not there or a folder without any, FileIOError for one that may
    not be read.
    """
    path = Path(reference.path or "")
    try:
        mode = path.stat().st_mode
    except FileNotFoundError as error:
        raise MissingInputError(f"{path}: there is no such file", hint="check the path") from error
    except (OSError, ValueError) as error:
        raise FileIOError(f"{path}: cannot be read", hint="check the path and its permissions") from error
    walk = Walk()
    if stat.S_ISDIR(mode):
        # What begins with a dot is somebody's unfinished business.
        files = [f for f in walk.files(path) if f.name.lower().endswith(".gguf") and not f.name.startswith(".")]
        if not files:
            raise MissingInputError(f"{path}: there is no .gguf file in this folder", hint="name a file or its folder")
    else:
        split = split_of(path.name)
        files = [path] if split is None else sorted(_sisters(path, split.prefix, split.count, walk))
    parts = [part for file in files if (part := walk.part(file.absolute(), str(file))) is not None]
    if not parts:
        raise FileIOError(f"{path}: cannot be read", hint="check its permissions")
    return Repository(hub="local", name=str(path), artifacts=artifacts_of(parts, hub="local"), notes=tuple(walk.notes))


def _sisters(path: Path, prefix: str, count: int, walk: Walk) -> list[Path]:
    found = []
    for file in walk.files(path.parent, depth=0):
        split = split_of(file.name)
        if split is not None and (split.prefix, split.count) == (prefix, count):
            found.append(file)
    return found or [path]
