"""One file of a repository on Hugging Face into the cache that all its tools share: checked, pinned, never half there.

The library names the place and links the file there; the bytes come by :mod:`planner.hub.transfer`, because the
library's own download starts over after a kill and compares no hash. What lies under a blob's name has the hash of that
name, or it is removed: a damaged blob would be taken for the model by every program that shares the cache.
"""

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote, urlsplit

import msgspec

from planner.errors import ExitCode, PlannerError, UnavailableError
from planner.hub import huggingface, library
from planner.hub.access import Access
from planner.hub.arrival import Arrival
from planner.hub.caches.huggingface import roots
from planner.hub.faults import Place, broken, fault_of
from planner.hub.names import is_model_file
from planner.hub.patience import PATIENCE, Clock, Patience, TransientFault, persist, within
from planner.hub.storing import held, storage_error
from planner.hub.transfer import PACE, TRANSFER, Came, Pace, Watch, transfer
from planner.types.artifact import Part

__all__ = ["ENDING", "check_names", "fetch_file", "partial_of", "pointer_path"]

_REPO = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,95}/[A-Za-z0-9_][A-Za-z0-9._-]{0,95}")
_COMMIT = re.compile(r"[0-9a-f]{40}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_ETAG = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{7,127}")
ENDING = ".planner.incomplete"
"""How the name of a file on its way ends, beside the blob that it will be; other tools take it for one of theirs."""


class _Facts(NamedTuple):
    blob: str
    size_bytes: int
    sha256: str | None


def check_names(repo: str, commit: str | None, path: str) -> None:
    """Refuse names that a hub would never give and that could lead out of a cache; raises PlannerError (65)."""
    climbing = ".." in repo or "\\" in path or "\0" in path
    if not _REPO.fullmatch(repo) or climbing or not is_model_file(path) or not _known_commit(commit):
        raise PlannerError(
            f"{repo!r} {path!r}: no repository, commit and file of a hub",
            hint="make the plan anew, or name the repository with --from",
            code="bad-name",
            exit_code=ExitCode.BAD_INPUT_FILE,
        )


def pointer_path(repo: str, commit: str, path: str) -> Path:
    """Where the file stands in the cache once it is fetched."""
    return _folder(repo) / "snapshots" / commit / path


def partial_of(repo: str, commit: str, part: Part) -> Path | None:  # noqa: ARG001 - as the other hub's
    """Where what has arrived of a file is kept until it is whole; ``None`` where only the hub could tell."""
    return _folder(repo) / "blobs" / f"{part.sha256}{ENDING}" if part.sha256 else None


def fetch_file(
    repo: str,
    commit: str,
    part: Part,
    *,
    hash_of: Callable[[Path], str],
    started: Callable[[Path], None],
    watch: Watch | None = None,
    patience: Patience = TRANSFER,
    pace: Pace = PACE,
) -> Came:
    """Bring ``part`` of the repository at ``commit`` into the cache, whole and with the right hash.

    ``hash_of`` reads a file to its end; ``started`` hears the partial file before it is made. Raises PlannerError:
    gated or not permitted (77), not there (66), changed (75), another content than named (69, ``wrong-content``), the
    network (69, 75) and the disk (74, 77).
    """
    check_names(repo, commit, part.path)
    who = _signed_in(repo)
    place = huggingface.place_of(repo, who, file=part.path)
    url = f"{who.endpoint}/{repo}/resolve/{commit}/{quote(part.path)}"
    facts = _facts(url, who, place, commit, part, patience)
    blob = _folder(repo) / "blobs" / facts.blob
    lock = roots()[0] / ".locks" / _folder(repo).name / f"{facts.blob}.lock"

    def waiting() -> None:
        if watch is not None:
            watch("waiting", place.name, 0, facts.size_bytes)

    with held(lock, waiting):
        came = _known_blob(blob, facts, hash_of) or _transferred(
            url, blob, facts, who, place, started=started, watch=watch, patience=patience, pace=pace
        )
    # The library takes the same lock to set the link.
    return came._replace(path=_placed(repo, commit, part.path, who, place, patience))


def _signed_in(repo: str) -> Access:
    try:
        return within(PATIENCE, f"hf:{repo}", lambda _: huggingface.access())
    except OSError as error:  # the login lies in a folder that is none
        raise storage_error(roots()[0], error) from error


def _transferred(
    url: str,
    blob: Path,
    facts: _Facts,
    who: Access,
    place: Place,
    *,
    started: Callable[[Path], None],
    watch: Watch | None,
    patience: Patience,
    pace: Pace,
) -> Came:
    partial = blob.with_name(f"{blob.name}{ENDING}")
    started(partial)
    received = 0
    while True:
        arrival = Arrival(partial, facts.size_bytes, on_front=_front(watch, place, facts))
        try:
            transfer(url, arrival, who, place, patience=patience, pace=pace, watch=watch)
            sha256 = arrival.finish()
        finally:
            arrival.close()
        received += arrival.received
        if facts.sha256 is None or sha256 == facts.sha256:
            break
        arrival.discard()
        if not arrival.resumed:
            raise UnavailableError(
                f"{place.name}: what arrived has another hash than the hub names; it was thrown away",
                hint="try again; if it stays so, the file at the hub or a proxy on the way is damaged",
                code="wrong-content",
            )
    _store(partial, blob)
    return Came(blob, sha256, facts.sha256 is not None, received, arrival.resumed)


def _front(watch: Watch | None, place: Place, facts: _Facts) -> Callable[[int], None] | None:
    if watch is None:
        return None
    return lambda done: watch("checking", place.name, done, facts.size_bytes)


def _store(partial: Path, blob: Path) -> None:
    try:
        os.replace(partial, blob)  # noqa: PTH105 - atomic, on the same disk
    except OSError as error:
        raise storage_error(blob, error) from error


def _known_blob(blob: Path, facts: _Facts, hash_of: Callable[[Path], str]) -> Came | None:
    """The blob when it is there and right; a damaged one is removed and counts as not there."""
    try:
        if not blob.is_file():
            return None
        if blob.stat().st_size == facts.size_bytes:
            sha256 = hash_of(blob)
            if facts.sha256 in {None, sha256}:
                return Came(blob, sha256, facts.sha256 is not None, 0, 0)
        blob.unlink()
    except OSError as error:
        raise storage_error(blob, error) from error
    return None


def _facts(url: str, who: Access, place: Place, commit: str, part: Part, patience: Patience) -> _Facts:
    """What the hub says now about the file, in agreement with what the plan says of it."""
    asked = _for_question(patience)

    def question(clock: Clock) -> Any:  # noqa: ANN401 - the library's struct
        return persist(asked, clock, lambda: _metadata(url, who, place, clock, asked))

    found = within(asked, place.name, question)
    etag, size = found.etag, found.size
    if isinstance(found.commit_hash, str) and found.commit_hash.lower() != commit:
        raise _changed(place, "the hub shows another commit than the planned one")
    known = isinstance(found.commit_hash, str) and isinstance(size, int) and size > 0
    if not known or not isinstance(etag, str) or not _ETAG.fullmatch(etag):
        raise UnavailableError(
            f"{place.name}: the hub does not tell its commit, its size and its ETag",
            hint="check HF_ENDPOINT: it names no hub, or a mirror that leaves these out",
            code="unexpected-answer",
        )
    named = etag.lower() if _SHA256.fullmatch(etag.lower()) else None
    if part.size_bytes not in {None, size} or (named and part.sha256 not in {None, named}):
        raise _changed(place, "it is another file than the planned one")
    return _Facts(etag, size, part.sha256 or named)


def _for_question(patience: Patience) -> Patience:
    """The patience of a transfer as one for a short question: no pause or deadline is longer than usual there."""
    return msgspec.structs.replace(
        patience,
        deadline_s=min(patience.deadline_s, PATIENCE.deadline_s),
        idle_s=min(patience.idle_s, PATIENCE.idle_s),
        retries=min(patience.retries, PATIENCE.retries),
        longest_wait_s=min(patience.longest_wait_s, PATIENCE.longest_wait_s),
    )


def _metadata(url: str, who: Access, place: Place, clock: Clock, patience: Patience) -> Any:  # noqa: ANN401 - the same
    timeout_s = min(patience.idle_s, max(0.1, clock.left_s))
    try:
        return library.file_metadata(url, endpoint=who.endpoint, token=_token(who), timeout_s=timeout_s)
    except Exception as error:  # noqa: BLE001 - the library's own kinds, told in our words
        raise _told(error, who, place) from None


def _placed(repo: str, commit: str, path: str, who: Access, place: Place, patience: Patience) -> Path:
    asked = _for_question(patience)

    def attempt() -> Path:
        try:
            return library.place_in_cache(
                repo, path, commit=commit, cache=roots()[0], endpoint=who.endpoint, token=_token(who)
            )
        except Exception as error:  # noqa: BLE001 - the same
            raise _told(error, who, place) from None

    return within(asked, place.name, lambda clock: persist(asked, clock, attempt))


def _told(error: Exception, who: Access, place: Place) -> Exception:
    """The library's exception in our words: an answer, a broken connection, a disk; else itself."""
    for cause in (error, error.__cause__):
        response = getattr(cause, "response", None)
        if response is not None:
            return fault_of(int(response.status_code), response.headers, place)
        fault = broken(cause, urlsplit(who.endpoint).hostname or who.endpoint, place.name) if cause else None
        if fault is not None:
            return fault
    if type(error) in {OSError, PermissionError, FileExistsError, NotADirectoryError, IsADirectoryError}:
        return storage_error(roots()[0], error) if isinstance(error, OSError) else error
    kinds = {kind.__name__ for kind in type(error).__mro__}
    client = type(error).__module__.partition(".")[0] in {"httpx", "httpx2"}  # sent in circles, answers in no form
    if client or kinds & {"LocalEntryNotFoundError", "FileMetadataError"}:
        lost = UnavailableError(
            f"{place.name}: the hub does not say where it is", hint="check HF_ENDPOINT", code="unexpected-answer"
        )
        return TransientFault(lost)
    return error


def _changed(place: Place, what: str) -> PlannerError:
    return PlannerError(f"{place.name}: {what}", hint="make the plan anew", code="changed", exit_code=ExitCode.BUSY)


def _token(who: Access) -> str | None:
    return who.headers_for(who.endpoint).get("authorization", "").removeprefix("Bearer ") or None


def _folder(repo: str) -> Path:
    return roots()[0] / f"models--{repo.replace('/', '--')}"


def _known_commit(commit: str | None) -> bool:
    return commit is None or _COMMIT.fullmatch(commit) is not None
