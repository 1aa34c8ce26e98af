"""Models that other programs have fetched already, and which of a repository's files they are.

The mistake it prevents is a second download of fifty gigabytes, and its opposite: taking a file for the repository's
because it is called the same. A copy counts when its sha256 is the listed one, or when its name, repository and size
are.
"""

from collections.abc import Callable
from pathlib import Path

import msgspec

from planner.hub.caches import huggingface, llama_cpp, lm_studio, modelscope, ollama
from planner.hub.caches.walk import Walk
from planner.types.artifact import Artifact, HubKind, LocalModel, LocalScan, Part, Repository

__all__ = ["from_copies", "local_models", "local_scan", "with_copies"]

_CACHES: tuple[tuple[Callable[[], list[Path]], Callable[[Path, Walk], list[LocalModel]]], ...] = (
    (huggingface.roots, huggingface.models_in),
    (modelscope.roots, modelscope.models_in),
    (llama_cpp.roots, llama_cpp.models_in),
    (lm_studio.roots, lm_studio.models_in),
    (ollama.roots, ollama.models_in),
)


def local_scan() -> LocalScan:
    """All models in the caches of this machine, and what could not be looked at; no weights are read."""
    models: list[LocalModel] = []
    notes: list[str] = []
    looked_at: set[Path] = set()
    for roots, models_in in _CACHES:
        for root in _there(roots, notes):
            walk = Walk()
            models += [model for model in models_in(root, walk) if not _known(model, looked_at)]
            notes += walk.notes
    return LocalScan(models=tuple(models), notes=tuple(dict.fromkeys(notes)))


def _there(roots: Callable[[], list[Path]], notes: list[str]) -> list[Path]:
    try:
        return roots()
    except RuntimeError:  # a user without a home folder, as in some containers
        notes.append("there is no home folder to look for models in")
        return []


def local_models() -> tuple[LocalModel, ...]:
    """The models in the caches of this machine, incomplete sets included."""
    return local_scan().models


def with_copies(repository: Repository, local: tuple[LocalModel, ...]) -> Repository:
    """The repository, with ``local_path`` set on every part of which a copy is on this disk."""
    by_hash: dict[str, Part] = {}
    by_name: dict[tuple[str, str], Part] = {}
    for model in local:
        for part in model.artifact.parts:
            if part.sha256 is not None:
                by_hash.setdefault(part.sha256, part)
            if model.hub == repository.hub and model.repo is not None:
                by_name.setdefault((model.repo.lower(), part.path), part)

    def copied(part: Part) -> Part:
        copy = by_hash.get(part.sha256 or "") or by_name.get((repository.name.lower(), part.path))
        return part if copy is None or _other(part, copy) else msgspec.structs.replace(part, local_path=copy.local_path)

    def held(artifact: Artifact) -> Artifact:
        return msgspec.structs.replace(artifact, parts=tuple(copied(part) for part in artifact.parts))

    return msgspec.structs.replace(repository, artifacts=tuple(held(artifact) for artifact in repository.artifacts))


def from_copies(hub: HubKind, repo: str, local: tuple[LocalModel, ...]) -> Repository | None:
    """What is known of a repository from the copies on this disk alone, or None when there is none."""
    held = [model for model in local if model.hub == hub and (model.repo or "").lower() == repo.lower()]
    if not held:
        return None
    note = "only what is on this disk is listed: the network may not be used"
    return Repository(hub=hub, name=repo, artifacts=tuple(model.artifact for model in held), notes=(note,))


def _other(part: Part, copy: Part) -> bool:
    """Whether a copy is certainly not the listed file."""
    pairs = ((part.sha256, copy.sha256), (part.size_bytes, copy.size_bytes))
    return any(listed is not None and found is not None and listed != found for listed, found in pairs)


def _known(model: LocalModel, looked_at: set[Path]) -> bool:
    """Whether the same files were found in another cache already: two programs may share one folder."""
    paths = {Path(part.local_path).absolute() for part in model.artifact.parts if part.local_path}
    known = bool(paths) and paths <= looked_at and model.source != "ollama"
    looked_at |= paths
    return known
