"""What ``planner inspect`` finds: the files that a reference names, and what the header of one of them says.

Words in it come from the file and its repository; numbers were counted from the tensor table.
"""

from planner.types import Report
from planner.types.artifact import Artifact, ArtifactKind, HubKind

__all__ = ["Contents", "FileSet", "Inspection", "Share", "file_set"]


class FileSet(Report, frozen=True, kw_only=True):
    """One model file or split set as a listing tells it, before any header is read.

    ``size_bytes`` is unknown as soon as that of one part is; ``path`` is that of the first part on this disk.
    """

    name: str
    kind: ArtifactKind
    quantization: str | None
    size_bytes: int | None
    parts: int
    complete: bool
    missing: tuple[str, ...]
    on_disk: bool
    path: str | None


class Share(Report, frozen=True, kw_only=True):
    """Tensors of one type or one group: how many, the numbers and bytes in them, and their share of all bytes."""

    name: str
    tensors: int
    values: int
    size_bytes: int
    share: float


class Contents(Report, frozen=True, kw_only=True):
    """One model's header in short.

    ``layers`` are those of the trunk, ``layers_mtp`` those of the block that predicts further tokens; ``parameters`` is
    the trunk's count, ``parameters_active`` what a token passes through, ``parameters_mtp`` what the block adds.
    ``heads`` and ``heads_kv`` are ``None`` where they differ by layer. ``bits_per_weight`` counts every tensor.
    ``chat_template_bytes`` and its hash tell the template apart; it is never run. ``file_type`` is llama.cpp's number
    of the recipe, ``recipe`` its name where it is known. ``taken_for`` is the catalogue's model that this file comes
    from, ``conversion`` whether it is that very model (its parameters agree) or one made from it, ``taken_for_why``
    what says so.
    """

    name: str
    quantization: str | None
    title: str | None
    kind: str
    architecture: str
    parameters: int
    parameters_active: int
    parameters_mtp: int | None
    layers: int
    layers_mtp: int
    context_native: int | None
    embedding: int | None
    heads: int | None
    heads_kv: int | None
    experts: int | None
    experts_used: int | None
    vocab_size: int | None
    tokenizer: str | None
    pre_tokenizer: str | None
    chat_template_sha256: str | None
    chat_template_bytes: int | None
    license: str | None
    organization: str | None
    languages: tuple[str, ...]
    base_models: tuple[str, ...]
    quantized_by: str | None
    imatrix: bool
    file_type: int | None
    recipe: str | None
    bits_per_weight: float
    header_bytes: int
    data_bytes: int
    file_bytes: int | None
    parts: int
    gguf_version: int
    alignment: int
    tensor_types: tuple[Share, ...]
    tensor_groups: tuple[Share, ...]
    taken_for: str | None
    taken_for_why: str | None
    conversion: bool
    warnings: tuple[str, ...]


class Inspection(Report, frozen=True, kw_only=True):
    """What ``planner inspect --json`` prints.

    ``contents`` is ``None`` where ``files`` holds several models and none was named: then no header was read.
    """

    schema: str = "planner/inspection/1"
    reference: str
    hub: HubKind
    name: str
    page: str | None
    commit: str | None
    gated: bool | None
    license: str | None
    base_models: tuple[str, ...]
    files: tuple[FileSet, ...]
    contents: Contents | None
    notes: tuple[str, ...]


def file_set(artifact: Artifact) -> FileSet:
    """An artifact in short."""
    return FileSet(
        name=artifact.name,
        kind=artifact.kind,
        quantization=artifact.quantization,
        size_bytes=artifact.size_bytes,
        parts=len(artifact.parts),
        complete=artifact.complete,
        missing=artifact.missing,
        on_disk=artifact.on_disk,
        path=artifact.parts[0].local_path if artifact.parts else None,
    )
