"""Where planner keeps files and how it writes them: the one place that knows, so that no write is ever half done.

Everything that is cached lives under :func:`cache_dir` and may be deleted at any time. ``PLANNER_CACHE_DIR`` moves
it. A read-only home is no reason to fail: callers of :func:`try_atomic_write` go on without a cache.
"""

import contextlib
import errno
import functools
import os
import tempfile
from pathlib import Path

from planner.errors import ExitCode, FileIOError

__all__ = ["atomic_write", "cache_dir", "data_dir", "phantom_folder", "profiles_dir", "try_atomic_write"]

_ROOM_FOR_PHANTOMS_BYTES = 32 << 20


@functools.cache
def profiles_dir() -> Path:
    """The folder of facts: inside the installed package, or beside it in a checkout."""
    package = Path(__file__).resolve().parent
    inside = package / "profiles"
    return inside if inside.is_dir() else package.parent / "profiles"


def cache_dir() -> Path:
    """The folder for what can be made anew (engine answers, measurements, phantoms); not created here."""
    override = os.environ.get("PLANNER_CACHE_DIR")
    if override:
        return Path(override)
    from platformdirs import user_cache_path  # noqa: PLC0415 - only needed without the override

    return user_cache_path("llama-planner", appauthor=False)


def data_dir() -> Path:
    """The folder for what cannot be made anew without work or traffic (receipts); not created here.

    ``PLANNER_DATA_DIR`` moves it.
    """
    override = os.environ.get("PLANNER_DATA_DIR")
    if override:
        return Path(override)
    from platformdirs import user_data_path  # noqa: PLC0415 - only needed without the override

    return user_data_path("llama-planner", appauthor=False)


def phantom_folder(parent: Path | None = None) -> tempfile.TemporaryDirectory[str]:
    """A folder for phantom models that goes with its context: in ``parent`` (default: the cache) if it has room.

    A phantom takes kilobytes (megabytes with random routers), so a full or read-only cache only moves it to the
    system's temporary folder. Raises :class:`FileIOError` when that cannot be written either.
    """
    wanted = parent if parent is not None else cache_dir() / "phantoms"
    with contextlib.suppress(OSError):
        wanted.mkdir(parents=True, exist_ok=True)
        room = os.statvfs(wanted)
        if room.f_bavail * room.f_frsize >= _ROOM_FOR_PHANTOMS_BYTES:
            return tempfile.TemporaryDirectory(prefix="phantom-", dir=wanted)
    try:
        return tempfile.TemporaryDirectory(prefix="planner-phantom-")
    except OSError as error:
        raise FileIOError(
            f"no folder for phantom models: {error.strerror or error}",
            hint="free some disk space, or set TMPDIR to a folder you may write to",
        ) from error


def atomic_write(path: Path, data: bytes) -> None:
    """Write ``data`` to ``path`` so that a reader sees the old file or the new one, never half of it.

    A device or a pipe (``/dev/stdout``) is written to, never replaced. Raises :class:`FileIOError` naming the path and
    the remedy (disk full, read-only, no permission).
    """
    if path.exists() and not path.is_file() and not path.is_dir():
        _write_through(path, data)
        return
    temporary: str | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        # mkstemp makes 0600; a report is as readable as any file the user creates.
        mask = os.umask(0)
        os.umask(mask)
        os.chmod(temporary, 0o666 & ~mask)  # noqa: PTH101 - the name is a string from mkstemp
        os.replace(temporary, path)  # noqa: PTH105 - the same
    except OSError as error:
        raise _explain(path, error) from error
    finally:
        # After the replace there is nothing by that name; after a fault or Ctrl-C there may be.
        _discard(temporary)


def try_atomic_write(path: Path, data: bytes) -> bool:
    """Write a cache file if that is possible; a full disk or a read-only home only costs the cache."""
    try:
        atomic_write(path, data)
    except FileIOError:
        return False
    return True


def _write_through(path: Path, data: bytes) -> None:
    try:
        with path.open("wb", buffering=0) as device:
            device.write(data)
    except OSError as error:
        raise _explain(path, error) from error


def _discard(temporary: str | None) -> None:
    if temporary is not None:
        with contextlib.suppress(OSError):
            os.unlink(temporary)  # noqa: PTH108 - the name is a string from mkstemp


def _explain(path: Path, error: OSError) -> FileIOError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return FileIOError(
            f"cannot write {path}: the disk is full", hint="free some space or name another file", code="disk-full"
        )
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return FileIOError(
            f"cannot write {path}: {error.strerror}",
            hint="name a file in a folder that you may write to",
            code="not-permitted",
            exit_code=ExitCode.NOT_PERMITTED,
        )
    return FileIOError(f"cannot write {path}: {error.strerror or error}", hint="check the path and the disk")
