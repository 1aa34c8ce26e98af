"""How much memory reading a model takes at its worst, beside what it holds afterwards, for each load mode.

Weights that the engine does not use where they lie in the file (repacked ones) pass through a second copy of one
tensor at a time, and direct I/O reads every tensor into an aligned buffer first. A small model with a large embedding
then needs most while it is read: a plan that only counts what stays is killed before the first token.

Order and copies as in ``src/llama-model.cpp`` (``load_tensors``), ``src/llama-model-loader.cpp``
(``load_all_data``) and ``src/llama-mmap.cpp`` (``read_aligned_chunk``) of llama.cpp at commit 0c1e57098.
"""

from __future__ import annotations

from typing import Dict, List, NamedTuple  # noqa: UP035 - read at run time, by Python 3.9 too

__all__ = ["Read", "loading"]


class Read(NamedTuple):
    """One tensor as it is loaded: ``order`` is when it was made, ``host`` whether its buffer is plain memory."""

    order: int
    size_bytes: int
    host: bool


def loading(tensors: List[Read], file_bytes: int) -> Dict[str, int]:  # noqa: UP006 - Python 3.9
    """Highest bytes in RAM while loading, by load mode; ``file_bytes`` are those of all tensors in the file."""
    staged = sorted((each for each in tensors if not each.host), key=lambda each: (-each.size_bytes, each.order))
    plain = sorted((each for each in tensors if each.host), key=lambda each: each.order)
    locked = sum(each.size_bytes for each in plain)
    repacked = sum(each.size_bytes for each in staged)
    mapped = file_bytes + repacked
    return {
        "none": max(_highest(staged, 0, 1), locked + repacked),
        # Locked memory is there from the start, so every copy comes on top of it.
        "mlock": max(_highest(staged, locked, 1), locked + repacked),
        "dio": max(_highest(staged, 0, 2), _highest(plain, repacked, 1)),
        "mmap": mapped,
        "mmap+mlock": mapped,
    }


def _highest(tensors: List[Read], held_bytes: int, copies: int) -> int:  # noqa: UP006 - Python 3.9
    """The most that is held while these are read one after the other, each with so many passing copies of it."""
    highest = held_bytes
    for each in tensors:
        held_bytes += each.size_bytes
        highest = max(highest, held_bytes + copies * each.size_bytes)
    return highest
