"""How much memory reading a model takes at its worst, beside what it holds afterwards, for each load mode.

Weights that the engine does not use where they lie in the file (repacked ones) pass through a second copy of one
tensor at a time, and direct I/O reads every tensor into an aligned buffer first. A small model with a large embedding
then needs most while it is read: a plan that only counts what stays is killed before the first token.

Order and copies as in ``src/llama-model.cpp`` (``load_tensors``), ``src/llama-model-loader.cpp``
(``load_all_data``) and ``src/llama-mmap.cpp`` (``read_aligned_chunk``) of llama.cpp at commit 0c1e57098. Copies of up
to 32 MiB do not all go back to the system: glibc's malloc keeps them for what comes next (M_MMAP_THRESHOLD and
M_TRIM_THRESHOLD of mallopt(3), both dynamic).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Dict, List, NamedTuple, Tuple  # noqa: UP035 - read at run time, by Python 3.9 too

__all__ = ["Read", "loading"]

_THRESHOLD, _LARGEST_THRESHOLD, _PAGE = 128 << 10, 32 << 20, 4096


class Read(NamedTuple):
    """One tensor as it is loaded: ``order`` is when it was made, ``host`` whether its buffer is plain memory."""

    order: int
    size_bytes: int
    host: bool


class _Copy(NamedTuple):
    """What a copy asks for and gives back beyond its tensor: malloc counts its own header, whole pages and alignment.

    So a second plain copy of one size comes from the heap, and a second aligned one from the system again.
    """

    asked_bytes: int
    freed_bytes: int


_PLAIN, _ALIGNED = _Copy(16, _PAGE), _Copy(3 * _PAGE, 2 * _PAGE)


class _Heap:
    """glibc's malloc for passing copies: which come from its heap, and what of that stays."""

    def __init__(self) -> None:
        self.kept_bytes = 0
        self.threshold_bytes = _THRESHOLD

    def passing(self, size_bytes: int, copies: Sequence[_Copy]) -> int:
        """Bytes that these copies add while they are there, to what the heap kept before; they are freed again."""
        free = before = self.kept_bytes
        mapped: list[_Copy] = []
        for each in copies:
            request = size_bytes + each.asked_bytes
            if free >= request:
                free -= request
            elif request >= self.threshold_bytes:
                mapped.append(each)
            else:
                self.kept_bytes += request - free
                free = 0
        added = self.kept_bytes - before + len(mapped) * size_bytes
        for each in mapped:
            if self.threshold_bytes < size_bytes + each.freed_bytes <= _LARGEST_THRESHOLD:
                self.threshold_bytes = size_bytes + each.freed_bytes
        if self.kept_bytes >= 2 * self.threshold_bytes:
            self.kept_bytes = 0
        return added


def loading(tensors: List[Read], file_bytes: int) -> Dict[str, Tuple[int, int, int]]:  # noqa: UP006 - Python 3.9
    """By load mode: the highest bytes in RAM while loading, and what stays free in the heap afterwards.

    The third number is the size from which on malloc asks the system instead of the heap. ``file_bytes`` are those of
    all tensors in the file.
    """
    staged = sorted((each for each in tensors if not each.host), key=lambda each: (-each.size_bytes, each.order))
    plain = sorted((each for each in tensors if each.host), key=lambda each: each.order)
    mapped = file_bytes + sum(each.size_bytes for each in staged)
    return {
        "none": _read(staged, plain, ()),
        # Locked memory is there from the start, so every copy comes on top of it.
        "mlock": _read(staged, plain, (), locked=True),
        "dio": _read(staged, plain, (_ALIGNED,)),
        "mmap": (mapped, 0, _THRESHOLD),
        "mmap+mlock": (mapped, 0, _THRESHOLD),
    }


def _read(
    staged: List[Read],  # noqa: UP006 - Python 3.9
    plain: List[Read],  # noqa: UP006 - Python 3.9
    copies: Tuple[_Copy, ...],  # noqa: UP006 - Python 3.9
    *,
    locked: bool = False,
) -> Tuple[int, int, int]:  # noqa: UP006 - Python 3.9
    """Staged tensors first, each through one plain copy beside the ``copies`` that all pass through."""
    heap = _Heap()
    held = highest = sum(each.size_bytes for each in plain) if locked else 0
    for tensors, passing in ((staged, (_PLAIN, *copies)), (plain, copies)):
        for each in tensors:
            held += 0 if locked and each.host else each.size_bytes
            before = heap.kept_bytes
            highest = max(highest, held + before + heap.passing(each.size_bytes, passing))
    return highest, heap.kept_bytes, heap.threshold_bytes
