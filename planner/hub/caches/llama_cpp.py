"""The cache of llama.cpp's own downloads: one flat folder with manifests beside it, or the layout of Hugging Face.

The flat names join owner, repository and file with ``_``, which also stands inside them, so the name alone does not say
where one ends; the manifest (``manifest=owner=repo=tag.json``) and the note of each file (``….gguf.json``) do.
"""

import os
import re
import sys
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import msgspec

from planner.hub.caches import huggingface
from planner.hub.caches.walk import Walk
from planner.hub.names import artifacts_of, is_model_file
from planner.types.artifact import LocalModel, Part

__all__ = ["models_in", "roots"]

_MANIFEST = re.compile(r"manifest=(?P<owner>[^=]+)=(?P<name>[^=]+)=(?P<tag>[^=]+)\.json")
_SHA256 = re.compile(r"[0-9a-f]{64}")


def roots() -> list[Path]:
    """The folder of the cache: LLAMA_CACHE, else ``llama.cpp`` in the system's place for caches."""
    if named := os.environ.get("LLAMA_CACHE"):
        return [Path(named).expanduser()]
    home = "~/Library/Caches" if sys.platform == "darwin" else os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return [Path(home).expanduser() / "llama.cpp"]


def models_in(root: Path, walk: Walk) -> list[LocalModel]:
    """The models in the cache, whichever way its llama.cpp wrote them."""
    files = list(walk.files(root, depth=0))
    owners = _owners(files, walk)
    by_repo: dict[str | None, list[Part]] = {}
    for file in files:
        if not is_model_file(file.name) or (part := walk.part(file, file.name)) is None:
            continue
        repo, path, sha256 = owners.get(file.name) or _by_prefix(file.name, owners) or _by_note(file, walk)
        by_repo.setdefault(repo, []).append(msgspec.structs.replace(part, path=path, sha256=sha256))
    found = [
        LocalModel(
            source="llama.cpp",
            name=f"{repo}/{artifact.name}" if repo else artifact.name,
            artifact=artifact,
            hub="hf" if repo else None,
            repo=repo,
        )
        for repo, parts in by_repo.items()
        for artifact in artifacts_of(parts, hub="hf" if repo else "local", repo=repo)
    ]
    return found + huggingface.models_in(root, walk, source="llama.cpp")


Owned = tuple[str | None, str, str | None]
"""Repository, path in it, and sha256 of a cached file, as far as they are known."""


def _owners(files: list[Path], walk: Walk) -> dict[str, Owned]:
    """What the manifests say about the flat names."""
    owners: dict[str, Owned] = {}
    for file in files:
        match = _MANIFEST.fullmatch(file.name)
        if match is None:
            continue
        repo = f"{match['owner']}/{match['name']}"
        manifest = walk.document(file)
        for key in ("ggufFile", "mmprojFile"):
            entry = manifest.get(key) if isinstance(manifest, dict) else None
            path = entry.get("rfilename") if isinstance(entry, dict) else None
            if isinstance(path, str) and is_model_file(path):
                flat = f"{match['owner']}_{match['name']}_{path}".replace("/", "_")
                owners[flat] = (repo, path, _sha256(entry))
    return owners


def _by_prefix(name: str, owners: dict[str, Owned]) -> Owned | None:
    """A later part of a split set belongs where the first part does, which alone stands in the manifest."""
    for repo, _, _ in owners.values():
        prefix = f"{repo}_".replace("/", "_")
        if name.startswith(prefix):
            return repo, name.removeprefix(prefix), None
    return None


def _by_note(file: Path, walk: Walk) -> Owned:
    """The address that older releases note beside each file."""
    note = walk.document(file.with_name(f"{file.name}.json"))
    url = note.get("url") if isinstance(note, dict) else None
    segments = urlsplit(url).path.split("/") if isinstance(url, str) else []
    if len(segments) > 5 and segments[3] == "resolve" and is_model_file("/".join(segments[5:])):
        return f"{segments[1]}/{segments[2]}", "/".join(segments[5:]), None
    return None, file.name, None


def _sha256(entry: Any) -> str | None:  # noqa: ANN401 - JSON that another program wrote
    lfs = entry.get("lfs") if isinstance(entry, dict) else None
    value = lfs.get("sha256") if isinstance(lfs, dict) else None
    return value if isinstance(value, str) and _SHA256.fullmatch(value) else None
