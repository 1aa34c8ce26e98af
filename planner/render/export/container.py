"""What changes when a server lives in a container: its files stand elsewhere, and it listens to the container.

Two mistakes it prevents. A folder of somebody's models handed in whole: only the very files are mounted, read-only,
under plain names, so that a hostile name stands in the mount alone and never in the command. And an image that is
another one tomorrow: a reference must be pinned by digest or version.
"""

import re
from typing import NamedTuple

from planner.errors import UsageError
from planner.types.deployment import Deployment, ExportOptions

__all__ = ["INSIDE", "KEY", "USER", "Contained", "contained", "pids", "pinned"]

INSIDE = "/models"
"""The folder of the weights inside a container."""
KEY = "/run/secrets/api-key"
"""The file of keys inside a container."""
USER = 65532
"""Who the server is inside a container: nobody in particular, never root."""

_PLAIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,200}")
_REFERENCE = re.compile(
    r"(?P<name>[a-z0-9][A-Za-z0-9._/:-]*?)(:(?P<tag>\w[\w.-]{0,127}))?(@(?P<digest>sha256:[0-9a-f]{64}))?", re.ASCII
)
_VERSION = re.compile(r"(^|[-_v])b\d{3,}$|\d+\.\d+")
_VARIANTS = {"cuda": "-cuda", "rocm": "-rocm", "vulkan": "-vulkan", "sycl": "-intel"}


class Contained(NamedTuple):
    """The server inside: the words after the program, and each file by where it lies and where it stands."""

    image: str
    arguments: tuple[str, ...]
    files: tuple[tuple[str, str], ...]


def contained(deployment: Deployment, options: ExportOptions, *, form: str) -> Contained:
    """The deployment as a container sees it; raises :class:`UsageError` for Metal and for an image that is not pinned.

    Inside, the server listens to all of the container, whose port is published by the format.
    """
    if any(gpu.backend == "metal" for gpu in deployment.gpus):
        raise UsageError("this plan is for Metal, which no container sees", hint="export to script")
    names = _names(deployment.weights)
    words = [*deployment.argv[1:2], f"{INSIDE}/{names[0]}", *deployment.argv[3:]]
    words[words.index("--host", 2) + 1] = "0.0.0.0"  # noqa: S104 - of the container
    if deployment.api_key_file is not None:
        words[words.index("--api-key-file", 2) + 1] = KEY
    files = tuple((path, f"{INSIDE}/{name}") for path, name in zip(deployment.weights, names, strict=True))
    return Contained(pinned(deployment, options.image, form=form), tuple(words), files)


def pinned(deployment: Deployment, image: str | None, *, form: str) -> str:
    """The image reference, if it will be the same one tomorrow; else raises :class:`UsageError` with what to give."""
    backends = [gpu.backend for gpu in deployment.gpus]
    variant = _VARIANTS.get(backends[0], "") if backends else ""
    hint = (
        f"give --image ghcr.io/ggml-org/llama.cpp:server{variant}-bNNNN with the number of a build, or any image of "
        "llama-server with @sha256:… (docker buildx imagetools inspect IMAGE shows the digest)"
    )
    if not image:
        raise UsageError(f"{form} needs an image of llama-server", hint=hint, code="no-image")
    match = _REFERENCE.fullmatch(image)
    if match is None:
        raise UsageError(f"{image!r} is no image reference", hint=hint, code="no-image")
    if match["digest"] is None and not _VERSION.search(match["tag"] or ""):
        what = f"the tag {match['tag']!r}" if match["tag"] else "an image without a tag"
        raise UsageError(f"{what} means another image tomorrow", hint=hint, code="unpinned-image")
    return image


def pids(deployment: Deployment) -> int:
    """How many threads the container may have: those of the plan twice over, and those of the HTTP server."""
    return deployment.settings.threads + deployment.settings.threads_batch + 512


def _names(weights: tuple[str, ...]) -> tuple[str, ...]:
    """Plain names for the parts: their own where all are plain, else ``model.gguf`` or those of a split set."""
    own = tuple(path.rsplit("/", 1)[-1] for path in weights)
    if all(map(_PLAIN.fullmatch, own)) and len(set(own)) == len(own):
        return own
    if len(weights) == 1:
        return ("model.gguf",)
    return tuple(f"model-{part:05}-of-{len(weights):05}.gguf" for part in range(1, len(weights) + 1))
