"""Headers and listings that were read before, so that the next question about the same file needs no network at all.

A header is kept under the hash of its own bytes and checked against it on every use; an index entry says which file it
belongs to. The mistake it prevents is answering for a file that has changed: an entry counts only while the listing
names the same content (its sha256, or address, ETag and size), and a damaged one is simply read again.
"""

import atexit
import functools
import hashlib
import shutil
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

import msgspec

from planner.errors import FileIOError
from planner.files import cache_dir, try_atomic_write
from planner.hub.access import origin_of
from planner.hub.header_bytes import HeaderBytes
from planner.types import Report
from planner.types.artifact import Artifact, HeaderFile, Part, Repository

__all__ = ["known_header", "known_listing", "remember_header", "remember_listing"]

_LONGEST_ENTRY_BYTES = 32 << 20

Kept = TypeVar("Kept")


class _Entry(Report, frozen=True, kw_only=True):
    """Which file a kept header belongs to; addresses here hold no secret, because references with one are refused."""

    key: str
    header_sha256: str
    header_bytes: int
    file_bytes: int | None
    url: str | None
    repo: str | None
    commit: str | None
    path: str
    etag: str | None
    sha256: str | None
    fetched_at: str


class _Listing(Report, frozen=True, kw_only=True):
    key: str
    listed_at: str
    repository: Repository


def known_header(artifact: Artifact, part: Part) -> HeaderFile | None:
    """The header of ``part`` from the cache, or None when it is not there, damaged, or of other content."""
    for key in _keys(artifact, part):
        entry = _read(_index_path(key), _Entry)
        if entry is None or entry.key != key or _disagree(entry, part):
            continue
        path = _header_path(entry.header_sha256)
        try:
            data = path.read_bytes()
        except OSError:
            continue
        if hashlib.sha256(data).hexdigest() == entry.header_sha256:
            file_bytes = part.size_bytes if part.size_bytes is not None else entry.file_bytes
            return HeaderFile(path=str(path), file_bytes=file_bytes, part=part, header_sha256=entry.header_sha256)
    return None


def remember_header(artifact: Artifact, part: Part, header: HeaderBytes) -> HeaderFile:
    """Keep a header that was just read, and give it as a file; a cache that cannot be written costs only the next time.

    Raises :class:`planner.errors.FileIOError` when no folder at all can be written.
    """
    digest = hashlib.sha256(header.data).hexdigest()
    path = _header_path(digest)
    if not try_atomic_write(path, header.data):
        path = _folder_of_this_run() / f"{digest}.gguf"
        if not try_atomic_write(path, header.data):
            raise FileIOError(f"cannot write {path}", hint="free some disk space, or set TMPDIR and PLANNER_CACHE_DIR")
    for key in _keys(artifact, part):
        entry = _Entry(
            key=key,
            header_sha256=digest,
            header_bytes=len(header.data),
            file_bytes=header.file_bytes,
            url=part.url,
            repo=artifact.repo,
            commit=artifact.commit or header.commit,
            path=part.path,
            etag=part.etag or header.etag,
            sha256=part.sha256,
            fetched_at=_now(),
        )
        try_atomic_write(_index_path(key), msgspec.json.format(msgspec.json.encode(entry)))
    return HeaderFile(path=str(path), file_bytes=header.file_bytes, part=part, header_sha256=digest)


def remember_listing(key: str, repository: Repository) -> None:
    """Keep a listing for the time when the network may not be used; ``key`` is the reference without narrowing."""
    listing = _Listing(key=key, listed_at=_now(), repository=repository)
    try_atomic_write(_listing_path(key), msgspec.json.encode(listing))


def known_listing(key: str) -> Repository | None:
    """The last listing that was kept under ``key``, with the time it was made, or None."""
    listing = _read(_listing_path(key), _Listing)
    if listing is None or listing.key != key:
        return None
    return msgspec.structs.replace(listing.repository, listed_at=listing.listed_at)


def _keys(artifact: Artifact, part: Part) -> list[str]:
    """What identifies a file's content, the surest first; a file that nothing pins has no key.

    The server is part of each: a file's hash cannot be checked from its header, so what one server says about a hash is
    never believed for another's file.
    """
    if part.url is None:
        return []
    origin = origin_of(part.url)
    keys = [f"{origin} sha256 {part.sha256}"] if part.sha256 else []
    if artifact.repo and artifact.commit:
        keys.append(f"{origin} {artifact.repo}@{artifact.commit}/{part.path}")
    if part.etag:
        keys.append(f"{part.url} {part.etag} {part.size_bytes}")
    return keys


def _disagree(entry: _Entry, part: Part) -> bool:
    """Whether a listing that is newer than the entry says something else about the file."""
    pairs = ((entry.sha256, part.sha256), (entry.file_bytes, part.size_bytes))
    return any(kept is not None and said is not None and kept != said for kept, said in pairs)


def _header_path(digest: str) -> Path:
    return cache_dir() / "headers" / digest[:2] / f"{digest}.gguf"


def _index_path(key: str) -> Path:
    return cache_dir() / "headers" / "index" / f"{_hash(key)}.json"


def _listing_path(key: str) -> Path:
    return cache_dir() / "headers" / "listings" / f"{_hash(key)}.json"


def _hash(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _read(path: Path, form: type[Kept]) -> Kept | None:
    try:
        if path.stat().st_size > _LONGEST_ENTRY_BYTES:
            return None
        return msgspec.json.decode(path.read_bytes(), type=form)
    except (OSError, msgspec.MsgspecError):
        return None


@functools.cache
def _folder_of_this_run() -> Path:
    """A folder that goes with the process, for when the cache cannot be written."""
    try:
        folder = tempfile.mkdtemp(prefix="planner-headers-")
    except OSError as error:
        raise FileIOError(
            f"no folder for headers: {error.strerror or error}", hint="free some disk space, or set TMPDIR"
        ) from error
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return Path(folder)
