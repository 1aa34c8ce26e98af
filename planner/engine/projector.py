"""Asks the engine what a projector (mmproj: vision or audio) holds, from its header alone.

The mistake it prevents is counting a projector as its file: compute memory comes on top, and the largest picture takes
more than the one that the engine warms up with.
"""

import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import msgspec

from planner.engine.child import EngineChild
from planner.engine.devices import PhantomDevice
from planner.engine.phantom import write_phantom
from planner.errors import BadInputError, EngineDiedError
from planner.files import phantom_folder
from planner.types import Report
from planner.types.header import Header
from planner.types.model import Layout
from planner.types.settings import FlashAttention

__all__ = ["ProjectorAnswer", "ProjectorPart", "ProjectorSettings", "ask_projector", "projector_layout"]


class ProjectorSettings(Report, frozen=True, kw_only=True):
    """What changes a projector's memory, by llama-server's names.

    ``use_gpu`` is ``--mmproj-offload``. ``image_max_tokens`` caps what a picture may take (``--image-max-tokens``,
    0: the model's own cap); ``image_min_tokens`` is a floor and caps nothing. ``batch_max_tokens`` bounds how many
    pictures of a fixed size are encoded at once (``--mtmd-batch-max-tokens``). ``threads`` are the decoding threads.
    """

    use_gpu: bool = True
    flash_attention: FlashAttention = "auto"
    image_min_tokens: int = 0
    image_max_tokens: int = 0
    batch_max_tokens: int = 1024
    threads: int = 1


class ProjectorPart(Report, frozen=True, kw_only=True):
    """One encoder of a projector. ``weights``, ``warmup`` and ``largest`` are bytes by the engine's device name.

    ``warmup`` is the compute memory after the start, ``largest`` that after the largest image of ``width`` × ``height``
    pixels (of sound: frames × bins), ``count`` of them at once, which become ``tokens`` of ``embedding_bytes``;
    ``None`` where it has no bound or the engine did not tell. ``inputs_bytes`` of it are pixels, positions and masks,
    ``work_bytes`` what the CPU's kernels take beside it (``None``: the encoder is not on the CPU).
    """

    kind: Literal["vision", "audio", "speech"]
    on_host: bool
    weights: dict[str, int]
    warmup: dict[str, int] = {}
    largest: dict[str, int] | None = None
    width: int = 0
    height: int = 0
    count: int = 0
    tokens: int = 0
    embedding_bytes: int = 0
    inputs_bytes: int | None = None
    work_bytes: int | None = None


class ProjectorAnswer(Report, frozen=True, kw_only=True):
    """The encoders of one projector under one setting, or the engine's reason for refusing it."""

    parts: tuple[ProjectorPart, ...] = ()
    refused: str | None = None


def projector_layout(header: Header) -> Layout:
    """The phantom of a projector whose header was read; raises BadInputError (``not-a-projector``) for another file."""
    if header.architecture != "clip":
        raise BadInputError(
            f"{header.name} is no projector: its architecture is {header.architecture!r}, not 'clip'",
            hint="name the mmproj-….gguf that its publisher put beside the model",
            code="not-a-projector",
        )
    return Layout(architecture="clip", metadata=dict(header.metadata), tensors=header.tensors, layers=())


def ask_projector(
    child: EngineChild,
    layout: Layout,
    settings: Sequence[ProjectorSettings],
    *,
    devices: Sequence[PhantomDevice] | None = None,
) -> list[ProjectorAnswer]:
    """What the engine would allocate for the projector ``layout`` under each of ``settings``, in order.

    ``devices`` are those of a machine that is not here, ``()`` a machine without a GPU, ``None`` the engine's own;
    the projector goes to the first. Where the engine dies over its largest picture the answer is the warm-up's alone.
    Raises EngineError when the engine refuses the question, EngineDiedError when it dies over the projector itself.
    """
    told = None if devices is None else [msgspec.to_builtins(device) for device in devices]
    with phantom_folder() as folder:
        path = Path(folder) / "mmproj.gguf"
        write_phantom(path, layout)
        return [_ask(child, path, each, told) for each in settings]


def _ask(child: EngineChild, path: Path, settings: ProjectorSettings, devices: list[object] | None) -> ProjectorAnswer:
    question = {"path": str(path), "devices": devices}
    asked = msgspec.to_builtins(settings)
    with contextlib.suppress(EngineDiedError):
        return _answer(child, {**question, "settings": [asked]})
    return _answer(child, {**question, "settings": [{**asked, "largest": False}]})


def _answer(child: EngineChild, question: dict[str, object]) -> ProjectorAnswer:
    return msgspec.convert(child.ask("projector", question)["answers"], list[ProjectorAnswer])[0]
