"""What planner has left on this disk, and its removal: downloads that never ended, caches, notes; weights if asked.

The mistake it prevents is tidying other people's rooms. In caches that programs share only what planner began and did
not end is removed; whole files that were verified stay unless somebody says ``weights``, and then only those that
lie in a hub's cache, never one that another program or person put elsewhere.
"""

import contextlib
import os
import shutil
import stat
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from planner.apply.arrivals import ended, noted
from planner.apply.clean_weights import Weights, receipts_here, weights_of
from planner.errors import FileIOError
from planner.files import cache_dir, data_dir
from planner.hub.caches import huggingface, modelscope
from planner.hub.fetch_huggingface import ENDING
from planner.hub.storing import held_now
from planner.measure.lock import BusyError, measurement_lock
from planner.types.receipt import CleanReport, Leftover

__all__ = ["clean"]

_IN_USE = {
    "phantoms": "phantom models",
    "logs": "logs of servers",
    "serve": "locks of ports",
}
"""What a measurement or a server that is running may still need."""
_CACHES = {
    "headers": "headers and listings of hubs",
    "engine": "answers of the engine",
    "graphs": "graphs of the engine",
    "matplotlib": "fonts that matplotlib has found",
}
_MEASURED = {"measurements": "measurements and calibrations", "imported": "imported measurements"}
_PROBES = {"dummy_file_src", "dummy_file_dst"}
"""What huggingface_hub writes to try whether links work; a kill in that moment leaves it."""
_TEMPORARY = ("planner-phantom-*", "planner-headers-*", "planner-server-*")
_OLD_S = 3600.0
"""A temporary folder without a change for so long belongs to nobody who is still at work."""


def clean(*, remove: bool, weights: bool = False, measurements: bool = False) -> CleanReport:
    """What planner left behind; gone afterwards with ``remove``.

    ``weights`` adds the files of all receipts, ``measurements`` what was timed here or imported. Raises nothing for a
    file that cannot be removed: it is told under ``kept``.
    """
    kept: list[str] = []
    leftovers: list[Leftover] = []
    for partial in _partials():
        leftovers += _arriving(partial, remove, kept)
    for name, what in (_CACHES | _MEASURED if measurements else _CACHES).items():
        leftovers += _folder(cache_dir() / name, what, remove, kept)
    leftovers += _in_use(remove, kept)
    for folder in _temporary():
        leftovers += _folder(folder, "temporary folder of a run that was killed", remove, kept)
    for folder in _probes():
        leftovers += _folder(folder, "a trial of links by huggingface_hub", remove, kept)
    for file in sorted(data_dir().glob("*/.*.part")):
        leftovers += _files("half-written note", [file], remove, kept)
    for found in receipts_here():
        leftovers += _receipt(found, weights, remove, kept)
    if remove:
        _forget()
    return CleanReport(
        removed=remove,
        leftovers=tuple(leftovers),
        size_bytes=sum(each.size_bytes for each in leftovers),
        kept=tuple(dict.fromkeys(kept)),
    )


def _in_use(remove: bool, kept: list[str]) -> list[Leftover]:
    """Phantoms and logs, unless a measurement or a server is running."""
    with contextlib.ExitStack() as locks:
        try:
            locks.enter_context(measurement_lock())
            busy = [lock for lock in (cache_dir() / "serve").glob("*.lock") if not locks.enter_context(held_now(lock))]
        except BusyError:
            kept.append(f"{cache_dir() / 'phantoms'}: a measurement is running")
            return []
        if busy:
            kept.append(f"{cache_dir() / 'phantoms'}: a server is running ({busy[0].stem})")
            return []
        found = [_folder(cache_dir() / name, what, remove, kept) for name, what in _IN_USE.items()]
    return [each for leftovers in found for each in leftovers]


def _temporary() -> Iterator[Path]:
    """Temporary folders of ours that nobody has touched for an hour."""
    for pattern in _TEMPORARY:
        for folder in sorted(Path(tempfile.gettempdir()).glob(pattern)):
            with contextlib.suppress(OSError):
                found = folder.lstat()
                if (
                    stat.S_ISDIR(found.st_mode)
                    and found.st_uid == os.geteuid()
                    and time.time() - found.st_mtime > _OLD_S
                ):
                    yield folder


def _partials() -> list[Path]:
    """Every partial file of ours: those that were noted, and those that bear our ending."""
    ours = [path for root in huggingface.roots() for path in sorted(root.glob(f"models--*/blobs/*{ENDING}"))]
    return [path for path in dict.fromkeys([*noted(), *ours]) if path.is_file() and not path.is_symlink()]


def _arriving(partial: Path, remove: bool, kept: list[str]) -> list[Leftover]:
    lock = _lock_of(partial)
    with held_now(lock) as free:
        if not free:
            kept.append(f"{partial}: a fetch is at it")
            return []
        found = _files("incomplete download", [partial], remove, kept)
        if remove and found:
            ended(partial)
            if partial.name.endswith(ENDING):
                _unlink(lock)
            _prune(partial.parent)
            _prune(lock.parent)
    return found


def _lock_of(partial: Path) -> Path:
    """The lock of a fetch at Hugging Face; that of another hub lies elsewhere and is not known from the path."""
    repo = partial.parent.parent
    return repo.parent / ".locks" / repo.name / f"{partial.name.removesuffix(ENDING)}.lock"


def _receipt(found: Weights, weights: bool, remove: bool, kept: list[str]) -> Iterator[Leftover]:
    if found.gone:
        yield from _files("receipt of files that are gone", [found.path], remove, kept)
        return
    if not weights:
        return
    mine, others = weights_of(found)
    kept += [f"{path}: it lies in no hub's cache" for path in others]
    yield from _files(f"verified weights of {found.receipt.model} {found.receipt.quantization}", mine, remove, kept)
    yield from _files("receipt", [found.path], remove, kept)
    if remove:
        for path in mine:
            _prune(path.parent)


def _probes() -> Iterator[Path]:
    for root in huggingface.roots():
        for folder in sorted(root.glob("tmp*")):
            if folder.is_dir() and not folder.is_symlink() and {each.name for each in folder.iterdir()} <= _PROBES:
                yield folder


def _folder(folder: Path, what: str, remove: bool, kept: list[str]) -> list[Leftover]:
    if not folder.is_dir() or folder.is_symlink():
        return []
    files = [path for path in folder.rglob("*") if path.is_file() and not path.is_symlink()]
    size = sum(_bytes(path) for path in files)
    if remove:
        shutil.rmtree(folder, onerror=lambda _, path, error: kept.append(f"{path}: {error[1]}"))
        if folder.exists():
            return []
    return [Leftover(what=what, path=str(folder), size_bytes=size, files=len(files))]


def _files(what: str, paths: list[Path], remove: bool, kept: list[str]) -> list[Leftover]:
    found = []
    for path in paths:
        size = _bytes(path)
        try:
            if remove:
                path.unlink()
        except OSError as error:
            kept.append(f"{path}: {error.strerror or error}")
            continue
        found.append(Leftover(what=what, path=str(path), size_bytes=size))
    return found


def _forget() -> None:
    """Remove the notes of downloads of which nothing is left."""
    for partial in noted():
        if not partial.exists():
            ended(partial)
    for folder in ("arrivals", "receipts"):
        _prune(data_dir() / folder)


def _prune(folder: Path) -> None:
    """Remove a folder and the ones above it while they are empty, up to the root of a cache."""
    roots = {*huggingface.roots(), *modelscope.roots(), data_dir(), data_dir().parent}
    while folder not in roots and folder != folder.parent:
        try:
            folder.rmdir()
        except OSError:
            return
        folder = folder.parent


def _unlink(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise FileIOError(f"{path}: {error.strerror or error}", hint="remove it by hand") from error


def _bytes(path: Path) -> int:
    """Bytes that a file takes on the disk: a phantom is mostly a hole."""
    try:
        return path.lstat().st_blocks * 512
    except OSError:
        return 0
