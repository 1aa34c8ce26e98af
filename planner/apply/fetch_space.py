"""Whether the disk has room for what is to come, told before the first byte: the library only warns."""

import os
from collections.abc import Iterable
from pathlib import Path

from planner.errors import FileIOError
from planner.units import gib

__all__ = ["check_space"]

_MARGIN_SHARE = 0.01
_MARGIN_BYTES = 64 << 20
"""What stays free beside the files: the receipt, and what other programs write meanwhile."""


def check_space(folder: Path, missing_bytes: int) -> None:
    """Raise FileIOError (74, ``disk-full``) naming what is missing when ``missing_bytes`` do not fit into ``folder``.

    A disk that does not tell its room is not asked twice.
    """
    if missing_bytes <= 0:
        return
    there = _nearest((folder, *folder.parents))
    try:
        room = os.statvfs(there)
    except OSError:
        return
    if not room.f_blocks:
        return  # no disk at all: what is wrong there is told by the first write
    free = room.f_bavail * room.f_frsize
    needed = missing_bytes + int(missing_bytes * _MARGIN_SHARE) + _MARGIN_BYTES
    if needed > free:
        raise FileIOError(
            f"{folder}: {gib(missing_bytes)} are to come, {gib(free)} are free: {gib(needed - free)} more are needed",
            hint="free some space (planner clean tells what is ours), or name another disk with HF_HOME or "
            "MODELSCOPE_CACHE",
            code="disk-full",
        )


def _nearest(folders: Iterable[Path]) -> Path:
    return next((folder for folder in folders if folder.exists()), Path("/"))
