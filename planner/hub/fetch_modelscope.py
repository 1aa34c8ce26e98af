"""One file of a repository on ModelScope into the cache that all its tools share, through the hub part of its library.

The library resumes and hashes; what it leaves is hashed once more here, because it takes a file without a listed hash
by its size alone. It is watched from outside: its own bar belongs to its own program.
"""

import hashlib
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from planner.errors import MissingInputError, PlannerError, UnavailableError
from planner.hub import library, modelscope
from planner.hub.access import Access
from planner.hub.caches.modelscope import roots
from planner.hub.faults import Place, refusal
from planner.hub.fetch_huggingface import check_names
from planner.hub.patience import rate_limited
from planner.hub.storing import held, storage_error
from planner.hub.transfer import Came, Watch
from planner.types.artifact import Part

__all__ = ["ENDING", "fetch_file", "partial_of", "pointer_path"]

ENDING = ".incomplete"
"""How the name of a file on its way ends, as modelscope_hub 0.5.1 writes it."""

_DEFAULT_REVISION = "master"
_LOOK_S = 0.25


def pointer_path(repo: str, commit: str | None, path: str) -> Path:
    """Where the file stands in the cache once it is fetched."""
    folder = roots()[0] / "models" / repo.replace("/", "--")
    return folder / "snapshots" / (commit or _DEFAULT_REVISION) / path


def partial_of(repo: str, commit: str | None, part: Part) -> Path:
    """Where what has arrived of a file is kept until it is whole."""
    whole = pointer_path(repo, commit, part.path)
    return whole.with_name(f"{whole.name}{ENDING}")


def fetch_file(
    repo: str,
    commit: str | None,
    part: Part,
    *,
    hash_of: Callable[[Path], str],
    started: Callable[[Path], None],
    watch: Watch | None = None,
) -> Came:
    """Bring ``part`` of the repository at ``commit`` into the cache, whole and with the right hash.

    As :func:`planner.hub.fetch_huggingface.fetch_file`; raises UnavailableError (``modelscope-missing``) where the
    library is not installed.
    """
    check_names(repo, commit, part.path)
    who = modelscope.access()
    place = modelscope.place_of(repo, who, file=part.path)
    api = library.modelscope_api(endpoint=who.endpoint, token=_token(who), cache=roots()[0])
    total = part.size_bytes or 0

    def waiting() -> None:
        if watch is not None:
            watch("waiting", place.name, 0, total)

    with held(_lock(repo, part.path), waiting):
        partial = partial_of(repo, commit, part)
        resumed, since_ns = _size(partial), time.time_ns()
        started(partial)
        path = _downloaded(api, repo, commit, part, place, _Eye(partial, place, total, watch))
        sha256 = hash_of(path)
        if part.sha256 is not None and sha256 != part.sha256:
            path.unlink(missing_ok=True)
            raise _wrong_content(place)
    found = path.stat()
    if found.st_mtime_ns < since_ns:  # nothing was written to it: it was whole already
        return Came(path, sha256, part.sha256 is not None, 0, 0)
    front = min(resumed, found.st_size)
    return Came(path, sha256, part.sha256 is not None, found.st_size - front, front)


class _Eye:
    """Looks at the size of a partial file now and then while the block runs, and tells it."""

    def __init__(self, partial: Path, place: Place, total: int, watch: Watch | None) -> None:
        self._partial, self._place, self._total, self._watch = partial, place, total, watch
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._look, name="planner-watch", daemon=True)

    def __enter__(self) -> None:
        if self._watch is not None:
            self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._done.set()
        if self._thread.is_alive():
            self._thread.join()

    def _look(self) -> None:
        while self._watch is not None and not self._done.wait(_LOOK_S):
            self._watch("fetching", self._place.name, _size(self._partial), self._total)


def _downloaded(api: Any, repo: str, commit: str | None, part: Part, place: Place, eye: _Eye) -> Path:  # noqa: ANN401 - the library's client
    try:
        with eye:
            found = api.download_file(
                repo,
                "model",
                part.path,
                revision=commit or _DEFAULT_REVISION,
                cache_dir=roots()[0],
                expected_sha256=part.sha256,
                file_size=part.size_bytes,
            )
    except Exception as error:
        fault = _told(error, place)
        if fault is None:
            raise
        raise fault from None
    return Path(found)


def _told(error: Exception, place: Place) -> PlannerError | None:
    """The library's exception in our words; its own may hold an address with a signature and is not repeated."""
    kinds = {kind.__name__ for kind in type(error).__mro__}
    status = getattr(error, "status_code", None)
    if "FileIntegrityError" in kinds:
        return _wrong_content(place)
    if "RateLimitError" in kinds:
        wait_s = getattr(error, "retry_after", None)
        return rate_limited(place.name, float(wait_s) if isinstance(wait_s, int | float) else None)
    if kinds & {"AuthenticationError", "PermissionDeniedError"}:
        return refusal(status if status in {401, 403} else 403, {}, place)
    if "NotExistError" in kinds:
        return MissingInputError(
            f"{place.name}: it is not there, or it is private", hint="make the plan anew", code="not-found"
        )
    if "HubError" in kinds or type(error).__module__.partition(".")[0] in {"requests", "urllib3"}:
        broken = isinstance(status, int) and status >= 500
        what = f"the server has a fault of its own (status {status})" if broken else "the connection broke"
        return UnavailableError(
            f"{place.name}: {what}",
            hint="check the connection, or try again later",
            code="service-fault" if broken else "cut-off",
        )
    return storage_error(roots()[0], error) if isinstance(error, OSError) else None


def _wrong_content(place: Place) -> UnavailableError:
    return UnavailableError(
        f"{place.name}: what arrived is not the file that the hub lists; it was thrown away",
        hint="try again; if it stays so, the file at the hub or a proxy on the way is damaged",
        code="wrong-content",
    )


def _lock(repo: str, path: str) -> Path:
    digest = hashlib.sha256(f"{repo}\0{path}".encode()).hexdigest()
    return roots()[0] / ".lock" / f"planner-{digest}.lock"


def _token(who: Access) -> str | None:
    return who.headers_for(who.endpoint).get("authorization", "").removeprefix("Bearer ") or None


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0
