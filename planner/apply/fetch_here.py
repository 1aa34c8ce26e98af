"""What of a plan is on this disk already, whoever fetched it: counted only after its every byte was read and hashed.

The mistake it prevents is a second download of fifty gigabytes, and its opposite: a file that is cut, damaged or
another one under the right name. What an earlier receipt covers is not read again while the file is the same.
"""

from pathlib import Path
from typing import NamedTuple

from planner.apply.receipts import hash_file, known_hash
from planner.errors import FileIOError
from planner.hub import fetch_huggingface, fetch_modelscope
from planner.hub.local_caches import local_models, with_copies
from planner.hub.transfer import Watch
from planner.types.artifact import Artifact, ArtifactKind, Part, Repository
from planner.types.receipt import Receipt, ReceiptFile

__all__ = ["Here", "find_here", "receipt_file"]


class Here(NamedTuple):
    """The parts of one artifact that are here, by their number, and what was found and not taken."""

    files: dict[int, ReceiptFile]
    notes: tuple[str, ...]


def find_here(artifact: Artifact, before: Receipt | None, watch: Watch | None = None) -> Here:
    """The verified copies of an artifact's parts: in the hub's cache, where the plan says, in other programs' caches.

    ``before`` is an earlier receipt, whose hashes hold for files that were not changed since.
    """
    files: dict[int, ReceiptFile] = {}
    notes: list[str] = []
    copies: Artifact | None = None
    for index, part in enumerate(artifact.parts):
        found = _first(_candidates(artifact, part), part, artifact.kind, before, notes, watch)
        if found is None:
            copies = _copies(artifact) if copies is None else copies
            others = [Path(path)] if (path := copies.parts[index].local_path) else []
            found = _first(others, part, artifact.kind, before, notes, watch)
        if found is not None:
            files[index] = found
    return Here(files, tuple(notes))


def receipt_file(path: Path, part: Part, kind: ArtifactKind, sha256: str, *, compared: bool) -> ReceiptFile:
    """What a receipt says about a file that was just read to its end; raises FileIOError when it is gone again."""
    try:
        found = path.stat()
    except OSError as error:
        raise FileIOError(f"{path}: {error.strerror or error}", hint="try again") from error
    return ReceiptFile(
        kind=kind,
        path=part.path,
        size_bytes=found.st_size,
        sha256=sha256,
        compared=compared,
        local_path=str(path.absolute()),
        modified_ns=found.st_mtime_ns,
        inode=found.st_ino,
    )


def _candidates(artifact: Artifact, part: Part) -> list[Path]:
    found = []
    if artifact.repo is not None and artifact.hub in {"hf", "ms"}:
        fetch_huggingface.check_names(artifact.repo, artifact.commit, part.path)
        if artifact.hub == "ms":
            found.append(fetch_modelscope.pointer_path(artifact.repo, artifact.commit, part.path))
        elif artifact.commit is not None:
            found.append(fetch_huggingface.pointer_path(artifact.repo, artifact.commit, part.path))
    if part.local_path is not None:
        found.append(Path(part.local_path))
    return found


def _copies(artifact: Artifact) -> Artifact:
    repository = Repository(hub=artifact.hub, name=artifact.repo or artifact.name, artifacts=(artifact,))
    return with_copies(repository, local_models()).artifacts[0]


def _first(
    paths: list[Path],
    part: Part,
    kind: ArtifactKind,
    before: Receipt | None,
    notes: list[str],
    watch: Watch | None,
) -> ReceiptFile | None:
    for path in dict.fromkeys(paths):
        try:
            if not path.is_file():
                continue
            size = path.stat().st_size
            right = part.size_bytes in {None, size}
            sha256 = _hash(path, size, before, watch) if right else ""
        except OSError as error:
            notes.append(f"{path}: {error.strerror or error}")
            continue
        if right and part.sha256 in {None, sha256}:
            return receipt_file(path, part, kind, sha256, compared=part.sha256 is not None)
        notes.append(f"{path} is not the file of the plan ({size} bytes), and was not taken")
    return None


def _hash(path: Path, size: int, before: Receipt | None, watch: Watch | None) -> str:
    known = known_hash(before, path.absolute())
    if known is not None:
        return known
    done = 0

    def on_bytes(count: int) -> None:
        nonlocal done
        done += count
        if watch is not None:
            watch("checking", path.name, done, size)

    return hash_file(path, on_bytes)
