"""The models of Ollama: manifests that name blobs, and blobs that are GGUF files without the name of one.

``manifests/<host>/<owner>/<model>/<tag>`` is a JSON list of layers, ``blobs/sha256-<digest>`` their content. A model
pulled from Hugging Face keeps its repository in the path. The quantization stands in the configuration's blob.
"""

import os
import re
from pathlib import Path
from typing import Any

from planner.hub.caches.walk import Walk
from planner.hub.names import quantization_of
from planner.types.artifact import Artifact, ArtifactKind, HubKind, LocalModel

__all__ = ["models_in", "roots"]

_DIGEST = re.compile(r"sha256:(?P<hex>[0-9a-f]{64})")
_LAYERS: dict[str, ArtifactKind] = {
    "application/vnd.ollama.image.model": "model",
    "application/vnd.ollama.image.projector": "mmproj",
    "application/vnd.ollama.image.adapter": "adapter",
}
_HUGGING_FACE = {"hf.co", "huggingface.co"}


def roots() -> list[Path]:
    """The folder of models: OLLAMA_MODELS, else the user's and the one of the system's service."""
    if named := os.environ.get("OLLAMA_MODELS"):
        return [Path(named).expanduser()]
    return [Path("~/.ollama/models").expanduser(), Path("/usr/share/ollama/.ollama/models")]


def models_in(root: Path, walk: Walk) -> list[LocalModel]:
    """The models of every manifest."""
    found: list[LocalModel] = []
    base = root / "manifests"
    for file in walk.files(base):
        manifest = walk.document(file)
        if isinstance(manifest, dict):
            found += _in_manifest(manifest, file.relative_to(base).parts, root / "blobs", walk)
    return found


def _in_manifest(manifest: dict[str, Any], where: tuple[str, ...], blobs: Path, walk: Walk) -> list[LocalModel]:
    if len(where) < 3:
        return []
    host, *owner, model, tag = where
    hub: HubKind | None = "hf" if host in _HUGGING_FACE else None
    repo = "/".join((*owner, model)) if hub else None
    name = f"{model}:{tag}" if owner == ["library"] else f"{'/'.join((*owner, model))}:{tag}"
    label = _label(manifest.get("config"), blobs, walk) or quantization_of(tag)
    layers = manifest.get("layers")
    found = []
    for layer in layers if isinstance(layers, list) else []:
        artifact = _artifact(layer, name, label, blobs, walk)
        if artifact is not None:
            found.append(LocalModel(source="ollama", name=name, artifact=artifact, hub=hub, repo=repo))
    return found


def _artifact(layer: Any, name: str, label: str | None, blobs: Path, walk: Walk) -> Artifact | None:  # noqa: ANN401 - JSON that another program wrote
    kind = _LAYERS.get(str(layer.get("mediaType"))) if isinstance(layer, dict) else None
    digest = _DIGEST.fullmatch(str(layer.get("digest"))) if kind else None
    if kind is None or digest is None:
        return None
    blob = blobs / f"sha256-{digest['hex']}"
    part = walk.part(blob, blob.name, sha256=digest["hex"])
    cut = part is not None and isinstance(layer.get("size"), int) and layer["size"] != part.size_bytes
    return Artifact(
        hub="local",
        name=name,
        kind=kind,
        quantization=label if kind == "model" else None,
        parts=() if part is None or cut else (part,),
        missing=(blob.name,) if part is None or cut else (),
    )


def _label(config: Any, blobs: Path, walk: Walk) -> str | None:  # noqa: ANN401 - JSON that another program wrote
    digest = _DIGEST.fullmatch(str(config.get("digest"))) if isinstance(config, dict) else None
    document = walk.document(blobs / f"sha256-{digest['hex']}") if digest else None
    label = document.get("file_type") if isinstance(document, dict) else None
    return quantization_of(label) if isinstance(label, str) else None
