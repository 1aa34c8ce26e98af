"""Where each MiB of an estimate comes from: parts by device that add up to the byte.

The mistake it prevents: a breakdown that is computed beside the estimate and disagrees with it. The parts of a device
sum to the total of the same device in :class:`planner.types.plan.DeviceMemory`; what they cannot explain is a part of
its own (``unaccounted``), never spread over the others.
"""

from typing import Literal

from planner.types import Report
from planner.types.plan import Candidate

__all__ = ["CacheKind", "DeviceParts", "Explanation", "Form", "Part", "PartName", "Section", "TypeBytes"]

Section = Literal["weights", "cache", "compute", "overhead"]
Form = Literal["mapped", "private", "repacked"]
CacheKind = Literal["attention", "window", "recurrent", "indexer", "compressed", "compressor", "unknown"]
PartName = Literal[
    "embedding",
    "tied-embedding",
    "lookup",
    "attention",
    "window-attention",
    "latent-attention",
    "recurrent-attention",
    "indexer",
    "feed-forward",
    "routed-experts",
    "shared-experts",
    "routers",
    "norms",
    "connections",
    "other",
    "head",
    "head-copy",
    "mtp",
    "padding",
    "shared-pages",
    "attention-cache",
    "window-cache",
    "recurrent-cache",
    "indexer-cache",
    "compressed-cache",
    "compressor-cache",
    "unknown-cache",
    "compute",
    "pinned-compute",
    "output",
    "work",
    "process",
    "engine-structures",
    "driver",
    "process-and-driver",
    "companions",
    "server",
    "margin",
    "unaccounted",
]


class TypeBytes(Report, frozen=True, kw_only=True):
    """Tensors of one ggml type in a part: how many, and their bytes without padding."""

    type: str
    tensors: int
    size_bytes: int


class Part(Report, frozen=True, kw_only=True):
    """One line of the table.

    ``form`` says how weights are held: pages of the mapped file, read into a private buffer, or repacked (a second
    form beside the file). ``layers`` are the numbers of the layers that the part belongs to. A cache has ``cells`` in
    each of ``streams`` streams, and ``cell_bytes`` for one cell in one layer where all are equal. ``buffer`` is the
    engine's name for a compute buffer. ``size_bytes`` is negative for ``shared-pages`` alone: what GPU and host hold
    once although both rows count it.
    """

    name: PartName
    section: Section
    size_bytes: int
    form: Form | None = None
    tensors: int = 0
    types: tuple[TypeBytes, ...] = ()
    layers: tuple[int, ...] = ()
    cells: int | None = None
    streams: int | None = None
    cell_bytes: int | None = None
    buffer: str = ""


class DeviceParts(Report, frozen=True, kw_only=True):
    """The parts of one device; their bytes sum to ``total_bytes``, always."""

    device: str
    total_bytes: int
    parts: tuple[Part, ...]


class Explanation(Report, frozen=True, kw_only=True):
    """The document of ``planner estimate --explain``: an estimate and what it is made of.

    ``not_loaded`` are tensors that the file holds and the engine leaves there; they take no memory.
    """

    schema: str = "planner/explanation/1"
    estimate: Candidate
    devices: tuple[DeviceParts, ...]
    not_loaded: tuple[Part, ...] = ()
