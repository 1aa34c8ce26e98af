"""Lets one measurement run on a machine at a time, whoever started it.

Two timings at once time each other. The lock is the kernel's (flock), so it ends with the process that holds it: no
stale lock file can ever block anybody, and the file itself stays. It lies in a folder that all users share; where
that cannot be used, in the user's cache, which still keeps one's own runs apart.
"""

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator
from pathlib import Path

from planner.errors import ExitCode, PlannerError
from planner.files import cache_dir

__all__ = ["BusyError", "lock_path", "measurement_lock"]

_RETRY_S = 0.1


class BusyError(PlannerError):
    """Another measurement is running on this machine."""

    exit_code = ExitCode.BUSY
    code = "busy"


def lock_path() -> Path:
    """The file that is locked; ``PLANNER_LOCK_FILE`` names another one (containers that share a machine)."""
    override = os.environ.get("PLANNER_LOCK_FILE")
    # A fixed shared folder, not TMPDIR, which differs between users and sessions.
    return Path(override) if override else Path("/tmp/llama-planner-measure.lock")  # noqa: S108 - see _open


@contextlib.contextmanager
def measurement_lock(path: Path | None = None, *, wait_s: float = 0.0) -> Iterator[None]:
    """Hold the machine's measurement lock; raises :class:`BusyError` (exit 75) when it is not free in ``wait_s``."""
    handle = _open(path or lock_path())
    try:
        _acquire(handle, wait_s)
        yield
    finally:
        os.close(handle)


def _acquire(handle: int, wait_s: float) -> None:
    until = time.monotonic() + wait_s
    while True:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            if time.monotonic() >= until:
                raise BusyError(
                    "another measurement is running on this machine",
                    hint="try again when it has ended, or add --no-measure",
                ) from error
            time.sleep(_RETRY_S)
        else:
            return


def _open(path: Path) -> int:
    """A descriptor of the lock file. An existing one is only read: a lock needs no more, and others may own the file.

    Links are refused, so that nobody can make us create or hold a file elsewhere by planting one in a shared folder.
    """
    for candidate in (path, cache_dir() / "measure.lock"):
        for flags in (os.O_RDONLY, os.O_RDWR | os.O_CREAT | os.O_EXCL, os.O_RDONLY):
            with contextlib.suppress(OSError):
                candidate.parent.mkdir(parents=True, exist_ok=True)
                handle = os.open(candidate, flags | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
                if flags & os.O_CREAT:
                    # The umask may have taken away the right of others to lock it.
                    with contextlib.suppress(OSError):
                        os.fchmod(handle, 0o644)
                return handle
    # Nothing can be written anywhere, so no other planner can hold a lock here either: lock something private.
    return os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
