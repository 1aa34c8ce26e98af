"""A phantom of the planned model that can be served: random weights of the very types, and a vocabulary of bytes.

It tests the whole path (server, memory, speed) where no weights can be had; its answers are noise. The mistake it
prevents is a disk that fills with such files: each goes with its run, and what a killed run left goes with the next.
"""

import contextlib
import fcntl
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from planner import catalogue, hub
from planner.apply.serve_weights import Weights
from planner.engine.byte_vocabulary import with_byte_vocabulary
from planner.engine.child import EngineChild
from planner.engine.headers import read_header
from planner.engine.oracle import Oracle
from planner.engine.phantom import write_phantom
from planner.errors import BadInputError, FileIOError
from planner.files import cache_dir
from planner.gguf.ggml_types import tensor_bytes
from planner.gguf.layout import header_layout
from planner.types.model import Layout
from planner.types.plan import Candidate
from planner.units import gib

__all__ = ["phantom_weights", "planned_layout", "sweep"]

_PREFIX = "served-"
_LOCK = "in-use"
_HEADER_BYTES = 64 << 20  # of a vocabulary of words, generously


@contextlib.contextmanager
def phantom_weights(
    chosen: Candidate, *, engine_python: str | None = None, tell: Callable[[str], None], folder: Path | None = None
) -> Iterator[Weights]:
    """A phantom of what was chosen, as a file that lives as long as the context.

    Raises :class:`FileIOError` (code ``disk-full``) when the disk has no room for it, :class:`BadInputError` for a
    model that has no phantom, and what the engine's child raises.
    """
    parent = folder or cache_dir() / "phantoms"
    sweep(parent)
    try:
        layout = with_byte_vocabulary(planned_layout(chosen, engine_python))
    except ValueError as error:
        raise BadInputError(
            f"no phantom of {chosen.model} can be served: {error}", hint="name a real file with --weights"
        ) from error
    needed = sum(tensor_bytes(tensor.type, tensor.dims) for tensor in layout.tensors) + _HEADER_BYTES
    with _own_folder(parent) as own:
        free = shutil.disk_usage(own).free
        if free < needed:
            raise FileIOError(
                f"a phantom of {chosen.model} takes {gib(needed)} of disk, {own} has {gib(free)} free",
                hint="free some space, or set PLANNER_CACHE_DIR to a folder on another disk",
                code="disk-full",
            )
        tell(f"writing a phantom of {chosen.model} in {chosen.quantization} ({gib(needed)}, random weights)")
        path = own / "phantom.gguf"
        write_phantom(path, layout, random_seed=1)
        yield Weights((path,), "phantom")


def planned_layout(chosen: Candidate, engine_python: str | None) -> Layout:
    """The planned model's tensors with their types: of the catalogue's model, or of the header of the planned file."""
    known = catalogue.load()
    model = known.models.get(chosen.model)
    recipe = known.quantizations.get(chosen.quantization)
    with EngineChild(engine_python) as child:
        if model is not None and recipe is not None:
            with Oracle(child, devices=()) as oracle:
                return oracle.typed_layout(known.shape_key(model), lambda: known.layout(model), recipe)
        if chosen.artifact is None:
            raise BadInputError(
                f"the plan's model {chosen.model} is not in the catalogue and the plan names no file of it",
                hint="plan again with this planner",
            )
        files = hub.header_files(chosen.artifact)
        header = read_header(
            child,
            [Path(each.path) for each in files],
            file_bytes=[each.file_bytes for each in files],
            name=chosen.artifact.name,
        )
    return header_layout(header)


def sweep(parent: Path) -> None:
    """Remove the phantoms of runs that were killed; those in use are locked by theirs and stay."""
    for each in parent.glob(f"{_PREFIX}*"):
        with contextlib.suppress(OSError):
            handle = os.open(each / _LOCK, os.O_RDWR | os.O_CLOEXEC)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(each, ignore_errors=True)
            finally:
                os.close(handle)


@contextlib.contextmanager
def _own_folder(parent: Path) -> Iterator[Path]:
    """A folder that is locked while it is used, and goes with its context."""
    try:
        parent.mkdir(parents=True, exist_ok=True)
        own = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=parent))
        handle = os.open(own / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise FileIOError(
            f"no folder for a phantom in {parent}: {error.strerror or error}",
            hint="set PLANNER_CACHE_DIR to a folder that you may write to",
        ) from error
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield own
    finally:
        os.close(handle)
        shutil.rmtree(own, ignore_errors=True)
