"""What the engine holds for one model under one setting: every tensor where it lies, every cache by kind.

The mistake it prevents: explaining an estimate with the file's tensor table, which knows neither a matrix that lies in
two buffers nor one that stays in the file. Asked when somebody wants to know and never kept: thousands of rows.
"""

import msgspec

from planner.engine.oracle import LayoutSource, Oracle
from planner.types import Report
from planner.types.explanation import CacheKind
from planner.types.model import Quantization
from planner.types.settings import Settings

__all__ = ["HeldCache", "HeldTensor", "Holdings", "holdings"]


class HeldTensor(Report, frozen=True, kw_only=True, array_like=True):
    """One tensor of the engine: its bytes, what its buffer takes for it (padding included), its place in the file.

    ``buffer`` is empty for a tensor that the engine leaves in the file; one that lies in two buffers comes twice.
    """

    name: str
    type: str
    size_bytes: int
    held_bytes: int
    buffer: str
    offset: int


class HeldCache(Report, frozen=True, kw_only=True):
    """One cache of a context: bytes per buffer type; what is ``None`` the engine does not tell."""

    kind: CacheKind
    buffers: dict[str, int]
    cells: int | None = None
    streams: int | None = None
    layers: tuple[int, ...] | None = None


class Holdings(Report, frozen=True, kw_only=True):
    """Everything that is held; ``caches`` is ``None`` where this engine cannot tell them apart."""

    tensors: tuple[HeldTensor, ...]
    caches: tuple[HeldCache, ...] | None


def holdings(
    oracle: Oracle, shape_key: str, layout: LayoutSource, quantization: Quantization, settings: Settings
) -> Holdings:
    """Tensors and caches of a model under ``settings``; raises :class:`EngineError` when the engine refuses."""
    answer = oracle.ask_about(
        "holdings", oracle.typed_layout(shape_key, layout, quantization), {"settings": msgspec.to_builtins(settings)}
    )
    return msgspec.convert(answer, Holdings)
