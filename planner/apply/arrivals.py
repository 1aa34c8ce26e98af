"""Which downloads were begun and not ended: noted before the first byte, forgotten after the last.

The mistake it prevents is cleaning up by guess. In caches that other programs share, ``.incomplete`` may be anybody's;
what is noted here is ours, also after the variables that name the caches have changed.
"""

import contextlib
import hashlib
from pathlib import Path

import msgspec

from planner.errors import FileIOError
from planner.files import atomic_write, data_dir
from planner.types import Report

__all__ = ["begun", "ended", "noted"]

_LONGEST_BYTES = 64 << 10


class _Begun(Report, frozen=True, kw_only=True):
    path: str


def begun(path: Path) -> None:
    """Note that ``path`` is about to arrive.

    Raises FileIOError where nothing can be noted: then no receipt could be written either, which is better known before
    the download than after it.
    """
    note = _note(path)
    try:
        atomic_write(note, msgspec.json.encode(_Begun(path=str(path.absolute()))))
    except FileIOError as error:
        raise FileIOError(
            error.message,
            hint="set PLANNER_DATA_DIR to a folder that you may write to",
            code=error.code,
            exit_code=error.exit_code,
        ) from error


def ended(path: Path) -> None:
    """Forget a download that is whole or was thrown away."""
    with contextlib.suppress(OSError):
        _note(path).unlink()


def noted() -> tuple[Path, ...]:
    """The partial files of all downloads that were begun and not ended, whether or not they are still there."""
    found: list[Path] = []
    with contextlib.suppress(OSError):
        for note in sorted(_folder().glob("*.json")):
            with contextlib.suppress(OSError, msgspec.MsgspecError):
                if note.stat().st_size <= _LONGEST_BYTES:
                    found.append(Path(msgspec.json.decode(note.read_bytes(), type=_Begun).path))
    return tuple(found)


def _note(path: Path) -> Path:
    return _folder() / f"{hashlib.sha256(str(path.absolute()).encode()).hexdigest()}.json"


def _folder() -> Path:
    return data_dir() / "arrivals"
