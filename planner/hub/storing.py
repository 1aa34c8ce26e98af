"""Writing into folders that other programs share: whose turn it is, and what a disk's refusal means.

The mistake it prevents is two fetches of one file at once, and a traceback where the disk is full or the cache may not
be written. The lock is the kernel's (flock), so it ends with the process that holds it.
"""

import contextlib
import errno
import fcntl
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from planner.errors import ExitCode, FileIOError

__all__ = ["held", "held_now", "storage_error"]

_POLL_S = 0.2
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_FORBIDDEN = {errno.EACCES, errno.EPERM, errno.EROFS}
_NO_LOCKS = {errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.EINVAL}


def storage_error(path: Path, error: OSError) -> FileIOError:
    """The error of a write into a cache that failed: full (74), not permitted (77), or what the system says (74)."""
    if error.errno in _FULL:
        return FileIOError(
            f"cannot write {path}: the disk is full, or a limit on file sizes is reached",
            hint="free some space, or name another disk with HF_HOME (MODELSCOPE_CACHE); what arrived is kept",
            code="disk-full",
        )
    if error.errno in _FORBIDDEN:
        return FileIOError(
            f"cannot write {path}: {error.strerror}",
            hint="name a folder that you may write to with HF_HOME (MODELSCOPE_CACHE)",
            code="not-permitted",
            exit_code=ExitCode.NOT_PERMITTED,
        )
    return FileIOError(f"cannot write {path}: {error.strerror or error}", hint="check the path and the disk")


@contextlib.contextmanager
def held(path: Path, waiting: Callable[[], None] | None = None) -> Iterator[None]:
    """Hold the lock ``path`` while the block runs; ``waiting`` is called once when another process has it.

    A file system without locks is no reason to fail: the hash still tells whether the file is right. Raises
    FileIOError when the lock cannot be made.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = _locked(path, waiting)
    except OSError as error:
        raise storage_error(path, error) from error
    try:
        yield
    finally:
        os.close(handle)


@contextlib.contextmanager
def held_now(path: Path) -> Iterator[bool]:
    """Whether the lock is free, and ours while the block runs; a lock that is not there counts as free."""
    try:
        handle = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        yield True
        return
    try:
        yield _try(handle)
    finally:
        os.close(handle)


def _locked(path: Path, waiting: Callable[[], None] | None) -> int:
    told = False
    while True:
        # 0664 as huggingface_hub makes it: people who share a cache wait for each other.
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o664)
        try:
            if _try(handle) and _same(handle, path):
                return handle
        except BaseException:
            os.close(handle)
            raise
        os.close(handle)
        if not told and waiting is not None:
            waiting()
        told = True
        time.sleep(_POLL_S)


def _try(handle: int) -> bool:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in {errno.EAGAIN, errno.EACCES}:
            return False
        if error.errno not in _NO_LOCKS:
            raise
    return True


def _same(handle: int, path: Path) -> bool:
    """Whether the locked file still stands under its name: somebody may have removed it while we waited."""
    try:
        there = path.stat()
    except FileNotFoundError:
        return False
    ours = os.fstat(handle)
    return (there.st_dev, there.st_ino) == (ours.st_dev, ours.st_ino)
