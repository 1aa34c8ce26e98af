"""Fetches the files of a plan: what is here is verified, what is missing comes, and a receipt says that all is right.

The mistake it prevents is a false "ready". The receipt is the last thing written; every way out before it (a cut, a
kill, a wrong byte, a full disk) leaves the plan without one, and the next run goes on where this one ended.
"""

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from planner import __version__
from planner.apply.arrivals import begun, ended
from planner.apply.fetch_here import Here, find_here, receipt_file
from planner.apply.fetch_source import wanted_files
from planner.apply.fetch_space import check_space
from planner.apply.receipts import hash_file, read_receipt, receipt_key, receipt_path
from planner.errors import BadInputError, FileIOError, MissingInputError
from planner.files import atomic_write
from planner.gguf.template import chat_template_sha256
from planner.hub import fetch_huggingface, fetch_modelscope
from planner.hub.caches import huggingface as huggingface_cache
from planner.hub.caches import modelscope as modelscope_cache
from planner.hub.faults import offline as offline_error
from planner.hub.huggingface import switched_off
from planner.hub.patience import Patience
from planner.hub.transfer import PACE, TRANSFER, Came, Pace, Watch
from planner.render.json import to_json
from planner.types.artifact import Artifact, Part
from planner.types.plan import Plan
from planner.types.receipt import Fetched, Receipt, ReceiptFile

__all__ = ["fetch"]


class _Way(NamedTuple):
    """How a file comes: the patience and pace of its transfer, and who watches."""

    patience: Patience
    pace: Pace
    watch: Watch | None


def fetch(
    plan: Plan,
    *,
    source: str | None = None,
    also: tuple[str, ...] = (),
    accept: bool = False,
    offline: bool = False,
    watch: Watch | None = None,
    patience: Patience = TRANSFER,
    pace: Pace = PACE,
) -> Fetched:
    """Bring every file of the plan onto this disk, verified, and write the receipt.

    ``source`` names the repository for a plan that names none, ``also`` companions (a projector, a draft model);
    ``accept`` takes weights of another size than planned. Raises PlannerError: see docs/fetch.md for the codes.
    """
    wanted = wanted_files(plan, source=source, also=also, accept=accept, offline=offline)
    before = read_receipt(plan)
    notes = list(wanted.notes)
    here: dict[tuple[int, int], ReceiptFile] = {}
    for number, artifact in enumerate(wanted.artifacts):
        found = find_here(artifact, before, watch)
        notes += found.notes
        here.update({(number, index): file for index, file in found.files.items()})
        _refuse_unreachable(artifact, found, offline=offline)
    _check_room(wanted.artifacts, here)
    way = _Way(patience, pace, watch)
    received = resumed = 0
    files: list[ReceiptFile] = []
    for number, artifact in enumerate(wanted.artifacts):
        for index, part in enumerate(artifact.parts):
            known = here.get((number, index))
            if known is None:
                came = _came(artifact, part, way)
                received, resumed = received + came.received_bytes, resumed + came.resumed_bytes
                known = receipt_file(came.path, part, artifact.kind, came.sha256, compared=came.compared)
            files.append(known)
    notes += [
        f"the hub names no hash of {file.path}: it was hashed, not compared" for file in files if not file.compared
    ]
    receipt = _receipt(plan, wanted.artifacts[0], tuple(files))
    path = receipt_path(receipt.plan_key)
    _write(path, receipt)
    return Fetched(
        receipt=receipt,
        receipt_path=str(path),
        received_bytes=received,
        resumed_bytes=resumed,
        notes=tuple(dict.fromkeys(notes)),
    )


def _refuse_unreachable(artifact: Artifact, found: Here, *, offline: bool) -> None:
    """Say early what cannot be fetched at all: an address, a local file that is gone, anything without the network."""
    missing = next((part for index, part in enumerate(artifact.parts) if index not in found.files), None)
    if missing is None:
        return
    if artifact.hub in {"local", "url"} or artifact.repo is None:
        where = missing.local_path or missing.url or missing.path
        raise MissingInputError(
            f"{where}: it is not here, and only files of Hugging Face and ModelScope can be fetched",
            hint="download it yourself and name it with --weights, or name a repository with --from",
            code="not-fetchable",
        )
    if offline or switched_off():
        raise offline_error(f"{missing.path} of {artifact.hub}:{artifact.repo}")


def _check_room(artifacts: tuple[Artifact, ...], here: dict[tuple[int, int], ReceiptFile]) -> None:
    missing: dict[Path, int] = {}
    for number, artifact in enumerate(artifacts):
        root = _root(artifact)
        for index, part in enumerate(artifact.parts):
            if (number, index) not in here:
                missing[root] = missing.get(root, 0) + (part.size_bytes or 0) - _arrived(artifact, part)
    for root, missing_bytes in missing.items():
        check_space(root, missing_bytes)


def _root(artifact: Artifact) -> Path:
    roots = modelscope_cache.roots() if artifact.hub == "ms" else huggingface_cache.roots()
    return roots[0]


def _arrived(artifact: Artifact, part: Part) -> int:
    """Bytes that an earlier run has brought of a file."""
    repo = artifact.repo or ""
    fetch_huggingface.check_names(repo, artifact.commit, part.path)
    if artifact.hub == "ms":
        partial: Path | None = fetch_modelscope.partial_of(repo, artifact.commit, part)
    else:
        partial = fetch_huggingface.partial_of(repo, artifact.commit or "", part)
    try:
        return min(partial.stat().st_size, part.size_bytes or 0) if partial is not None else 0
    except OSError:
        return 0


def _came(artifact: Artifact, part: Part, way: _Way) -> Came:
    partials: list[Path] = []

    def started(partial: Path) -> None:
        partials.append(partial)
        begun(partial)

    hash_of = _hasher(way.watch, part)
    repo = artifact.repo or ""
    if artifact.hub == "ms":
        came = fetch_modelscope.fetch_file(
            repo, artifact.commit, part, hash_of=hash_of, started=started, watch=way.watch
        )
    else:
        came = fetch_huggingface.fetch_file(
            repo,
            artifact.commit or "",
            part,
            hash_of=hash_of,
            started=started,
            watch=way.watch,
            patience=way.patience,
            pace=way.pace,
        )
    for partial in partials:
        ended(partial)
    return came


def _hasher(watch: Watch | None, part: Part) -> Callable[[Path], str]:
    def hash_of(path: Path) -> str:
        done = 0

        def on_bytes(count: int) -> None:
            nonlocal done
            done += count
            if watch is not None:
                watch("checking", part.path, done, part.size_bytes or 0)

        return hash_file(path, on_bytes)

    return hash_of


def _receipt(plan: Plan, artifact: Artifact, files: tuple[ReceiptFile, ...]) -> Receipt:
    first = Path(next(file.local_path for file in files if file.kind == "model"))
    try:
        template = chat_template_sha256(first)
    except BadInputError as error:
        raise BadInputError(f"{first}: {error.message}", hint=error.hint, code=error.code) from error
    except OSError as error:
        raise FileIOError(f"{first}: {error.strerror or error}", hint="try again") from error
    chosen = plan.chosen
    return Receipt(
        plan_key=receipt_key(plan),
        model=chosen.model if chosen is not None else "",
        quantization=chosen.quantization if chosen is not None else "",
        hub=artifact.hub,
        repo=artifact.repo,
        commit=artifact.commit,
        files=files,
        chat_template_sha256=template,
        fetched_at=datetime.now(UTC).isoformat(timespec="seconds"),
        created_by=f"llama-planner {__version__}",
    )


def _write(path: Path, receipt: Receipt) -> None:
    try:
        atomic_write(path, to_json(receipt))
    except FileIOError as error:
        raise FileIOError(
            error.message,
            hint="the files are here and verified; set PLANNER_DATA_DIR to a folder that you may write to",
            code=error.code,
            exit_code=error.exit_code,
        ) from error
