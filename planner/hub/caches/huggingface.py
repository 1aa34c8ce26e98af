"""The cache of huggingface_hub, which newer llama.cpp shares: snapshots of commits, links into a store of blobs.

``models--owner--name/snapshots/<commit>/<path>`` links to ``blobs/<oid>``, where the oid of a large file is its sha256.
The mistake it prevents is counting a file once for every commit that holds it.
"""

import os
import re
from pathlib import Path

from planner.hub.caches.walk import Walk
from planner.hub.names import artifacts_of, is_model_file
from planner.types.artifact import CacheKind, LocalModel, Part

__all__ = ["models_in", "roots"]

_OID = re.compile(r"[0-9a-f]{64}")
_COMMIT = re.compile(r"[0-9a-f]{40}")


def roots() -> list[Path]:
    """The folder of the cache, as HF_HUB_CACHE, HF_HOME and XDG_CACHE_HOME say, in the library's order."""
    for variable in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"):
        if named := os.environ.get(variable):
            return [_expanded(named)]
    if home := os.environ.get("HF_HOME"):
        return [_expanded(home) / "hub"]
    caches = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return [_expanded(caches) / "huggingface" / "hub"]


def models_in(root: Path, walk: Walk, *, source: CacheKind = "huggingface") -> list[LocalModel]:
    """The models of every repository in the cache, each file once, the commit of ``main`` first."""
    found: list[LocalModel] = []
    for folder in walk.folders(root):
        prefix, _, name = folder.name.partition("--")
        owner, _, short = name.partition("--")
        if prefix != "models" or not owner or not short:
            continue
        found += _in_repository(folder, f"{owner}/{short}", walk, source)
    return found


def _in_repository(folder: Path, repo: str, walk: Walk, source: CacheKind) -> list[LocalModel]:
    main = _main_commit(folder)
    snapshots = walk.folders(folder / "snapshots")
    snapshots.sort(key=lambda snapshot: snapshot.name != main)
    seen: set[tuple[str, str]] = set()
    found: list[LocalModel] = []
    for snapshot in snapshots:
        parts = [part for file in walk.files(snapshot) if (part := _part(file, snapshot, walk)) is not None]
        commit = snapshot.name if _COMMIT.fullmatch(snapshot.name) else None
        for artifact in artifacts_of(parts, hub="hf", repo=repo, commit=commit):
            # A file that is the same in two commits is one file.
            marks = {(part.path, part.sha256 or str(part.local_path)) for part in artifact.parts}
            if marks <= seen:
                continue
            seen |= marks
            found.append(
                LocalModel(source=source, name=f"{repo}/{artifact.name}", artifact=artifact, hub="hf", repo=repo)
            )
    return found


def _main_commit(folder: Path) -> str | None:
    try:
        return (folder / "refs" / "main").read_text(encoding="ascii").strip()[:40]
    except (OSError, UnicodeDecodeError):
        return None


def _part(file: Path, snapshot: Path, walk: Walk) -> Part | None:
    path = file.relative_to(snapshot).as_posix()
    return walk.part(file, path, sha256=_linked_oid(file)) if is_model_file(path) else None


def _linked_oid(file: Path) -> str | None:
    """The sha256 in the name of the blob that a snapshot's file links to."""
    try:
        name = file.readlink().name
    except OSError:
        return None
    return name if _OID.fullmatch(name) else None


def _expanded(text: str) -> Path:
    return Path(os.path.expandvars(text)).expanduser()
