"""What a walk through a header found: positions, not values, because an array may be large and is rarely needed."""

from typing import NamedTuple

from planner.types import Report

__all__ = ["KeySpot", "SplitSpot", "TensorRow", "Walked"]


class KeySpot(NamedTuple):
    """Where a value stands: ``type`` is ``u32``, ``str``, or ``[str]`` for an array.

    ``offset`` is the first byte of the value itself; ``length`` counts elements of an array, bytes of a string, else 1.
    """

    type: str
    offset: int
    length: int


class TensorRow(NamedTuple):
    """One line of the tensor table: dims in ggml order, as many as the file states; ``offset`` in the data section."""

    name: str
    dims: tuple[int, ...]
    type: str
    offset: int
    size_bytes: int


class SplitSpot(NamedTuple):
    """Which part of a split model a file is: ``part`` counts from 0, ``tensors`` is the number in all parts."""

    part: int
    parts: int
    tensors: int | None


class Walked(Report, frozen=True, kw_only=True):
    """A header that passed every check.

    ``header_bytes`` is where the tensor table ends, ``data_offset`` where the data begin, ``data_bytes`` their length
    (the padding behind the last tensor not counted). ``architecture`` is ``None`` in the later parts of a split model
    and in files that are no model.
    """

    version: int
    alignment: int
    architecture: str | None
    split: SplitSpot | None
    keys: dict[str, KeySpot]
    tensors: tuple[TensorRow, ...]
    header_bytes: int
    data_offset: int
    data_bytes: int
    warnings: tuple[str, ...] = ()
