"""Model files wherever they lie: what a reference names, what a repository holds, what is already on this disk.

The mistake it prevents is taking one file for the model: a model may be a set of files of which one is missing, and
beside it lie projectors, draft heads and importance matrices that are no candidates at all.
"""

from typing import Literal

from planner.types import Report

__all__ = [
    "Artifact",
    "ArtifactKind",
    "CacheKind",
    "HeaderFile",
    "HubKind",
    "LocalModel",
    "LocalScan",
    "Part",
    "Reference",
    "Repository",
]

HubKind = Literal["hf", "ms", "url", "local"]
"""Where files come from: Hugging Face, ModelScope, any https server, this disk."""

ArtifactKind = Literal["model", "mmproj", "mtp", "draft", "adapter", "imatrix"]
"""What a file set is for: weights to run, a vision projector, a multi-token-prediction head, another draft model for
speculative decoding, a LoRA adapter, an importance matrix."""

CacheKind = Literal["huggingface", "modelscope", "llama.cpp", "lm-studio", "ollama"]
"""The program whose cache holds a file."""


class Reference(Report, frozen=True, kw_only=True):
    """What the user named: one repository, one address or one path, with the narrowing that was asked for.

    ``text`` is what was written, free of secrets. ``repo`` is ``owner/name``; ``file`` is a path inside it.
    """

    kind: HubKind
    text: str
    repo: str | None = None
    file: str | None = None
    revision: str | None = None
    quantization: str | None = None
    url: str | None = None
    path: str | None = None


class Part(Report, frozen=True, kw_only=True):
    """One file of a set: its path in the repository (or on disk), and all that pins its content.

    ``sha256`` is the hash of the whole file as the hub or the cache names it, never computed here. ``local_path`` is
    set when the very bytes are on this disk already.
    """

    path: str
    url: str | None = None
    size_bytes: int | None = None
    sha256: str | None = None
    etag: str | None = None
    local_path: str | None = None


class Artifact(Report, frozen=True, kw_only=True):
    """One model file or one split set, its parts in order; ``missing`` names the parts that are not there."""

    hub: HubKind
    name: str
    kind: ArtifactKind = "model"
    quantization: str | None = None
    parts: tuple[Part, ...] = ()
    missing: tuple[str, ...] = ()
    repo: str | None = None
    commit: str | None = None

    @property
    def complete(self) -> bool:
        """Whether every part of the set is there."""
        return bool(self.parts) and not self.missing

    @property
    def size_bytes(self) -> int | None:
        """Bytes of all parts together; unknown as soon as one is unknown or missing."""
        sizes = [part.size_bytes for part in self.parts if part.size_bytes is not None]
        return sum(sizes) if self.complete and len(sizes) == len(self.parts) else None

    @property
    def on_disk(self) -> bool:
        """Whether the whole set lies on this disk already."""
        return self.complete and all(part.local_path is not None for part in self.parts)


class Repository(Report, frozen=True, kw_only=True):
    """What a repository, an address or a folder holds, as listed at ``commit``.

    ``gated`` says that access has to be asked for on ``page``. ``listed_at`` (UTC) is set when the listing is an
    earlier one, taken from the cache because the network may not be used.
    """

    hub: HubKind
    name: str
    page: str | None = None
    revision: str | None = None
    commit: str | None = None
    gated: bool | None = None
    licence: str | None = None
    tags: tuple[str, ...] = ()
    base_models: tuple[str, ...] = ()
    artifacts: tuple[Artifact, ...] = ()
    notes: tuple[str, ...] = ()
    listed_at: str | None = None

    @property
    def models(self) -> tuple[Artifact, ...]:
        """The artifacts that are weights to run."""
        return tuple(artifact for artifact in self.artifacts if artifact.kind == "model")


class HeaderFile(Report, frozen=True, kw_only=True):
    """The header of one part as a file on this disk, and the size of the whole file it was taken from.

    For a file that is here, ``path`` is that file itself. Otherwise it holds the header's bytes only; ``file_bytes`` is
    what the whole file has, unknown when the server did not say.
    """

    path: str
    file_bytes: int | None
    part: Part
    header_sha256: str | None = None


class LocalModel(Report, frozen=True, kw_only=True):
    """A file set that another program has fetched: in whose cache, from which repository as far as is known."""

    source: CacheKind
    name: str
    artifact: Artifact
    hub: HubKind | None = None
    repo: str | None = None

    @property
    def complete(self) -> bool:
        """Whether every part is there."""
        return self.artifact.complete


class LocalScan(Report, frozen=True, kw_only=True):
    """All models in the caches of this machine, and what could not be looked at."""

    models: tuple[LocalModel, ...] = ()
    notes: tuple[str, ...] = ()
