"""How a token's attention walks over the cache of keys and values: what no prefetcher reaches, and who waits for whom.

The mistakes it prevents: counting cells by what a sequence has, where each thread has a fixed stretch of the cache and
the last stretches are empty; and counting bytes alone, where the rows of one head lie a kilobyte apart and each of them
is fetched from far. Source of the rules: ``ops.cpp`` of ggml-cpu and ``llama-kv-cache.cpp`` at commit 0c1e57098.
Pure.
"""

import math
from typing import NamedTuple

__all__ = ["NEAR_UNKNOWN", "Near", "Walk", "waited_for", "walked"]

_FAR_ROWS = 1024
"""Bytes of the keys of all heads in a cell: so far apart lie the rows of one head. From so many on the prefetchers of a
core do not follow; below, they fail as often as the distance is a share of it."""
_SHORT_ROW = 128
"""Bytes of a row, two cache lines, that are followed to that distance, and cost a quarter at twice that."""

_CELLS_STEP, _CELLS_SPLIT = 256, 512
"""Attention looks at cells in steps of the first number, and from the second on each thread has its stretch of them."""
_SHORT_SHARE = 0.25
_USUAL_ROW_BYTES = 512  # of keys and values of a head of 128 in f16
_AGAIN_FROM_FAR = 2.0
"""How much more a row that another head has fetched takes where the caches of the cores do not hold it any more."""
_PAGE_BYTES = 4096
_PAGES = (2048, 4096)
"""Pages that a core has walked over from which on it begins to forget the first ones, and has forgotten them all."""
_PAGE_OF_A_ROW = 0.2
"""What looking up a forgotten page takes for a usual row, as a share of fetching it from far."""


class Near(NamedTuple):
    """The cache that each core has for itself (its second level), and how many cores compute; 0 bytes is unknown."""

    bytes_per_core: int = 0
    cores: int = 1


NEAR_UNKNOWN = Near()
"""Where nobody tells: nothing spills."""


class Walk(NamedTuple):
    """One token's way over ``cells`` of one layer, of which ``key_bytes`` and ``row_bytes`` (with values) are a head's.

    ``by_cells`` says that threads share the cells and not the heads.
    """

    heads: int
    kv_heads: int
    key_bytes: int
    row_bytes: int
    cells: float
    by_cells: bool


def waited_for(near: Near, *, cells: int, seen: float) -> float:
    """``seen`` cells as if every thread had as many of them as the one that has most; there is room for ``cells``.

    Each thread has a stretch of all cells looked at, and the last ones are empty: of 512 tokens the first of two
    threads has 384 and the second 128. So a depth of 1,024 takes as long as 1,280 do by themselves.
    """
    looked_at = min(cells, _CELLS_STEP * math.ceil((seen + 0.5) / _CELLS_STEP))
    if looked_at < _CELLS_SPLIT:
        return seen
    return near.cores * min(seen, math.ceil(looked_at / near.cores))


def walked(near: Near, walk: Walk) -> tuple[float, float]:
    """Rows of a cell that no prefetcher follows to: those that come from far, and those that another head has fetched.

    Each head of the cache once from far. The heads that share it again, three times as long where the caches of the
    cores do not hold what all cells of that head are. Where each head walks over more pages than a core remembers,
    every page costs a part of a row more. Fitted to 12 shapes on two cores of AMD EPYC (1 to 16 heads in the cache,
    64, 128 and 256 wide, 1 to 8 sharing one, 512 to 8,192 cells), all 60 within 13 %, 5 % in the mean: 50 ns a row
    from far, 6 again, and beside them 0.06 ns a byte (``bench/attention.py``).
    """
    stride = walk.key_bytes * walk.kv_heads
    if walk.kv_heads == 1:
        return 0.0, 0.0
    if walk.key_bytes <= _SHORT_ROW:
        apart = _SHORT_SHARE * min(1.0, max(0.0, (stride - _FAR_ROWS) / _FAR_ROWS))
    else:
        apart = min(1.0, stride / _FAR_ROWS)
    cores = near.cores if walk.by_cells else 1
    held = near.bytes_per_core * cores
    gone = max(0.0, 1 - held / (walk.cells * walk.row_bytes)) if held else 0.0
    usual = walk.row_bytes / _USUAL_ROW_BYTES
    pages = min(1.0, 2 * stride / _PAGE_BYTES)  # of a cell, for its key and its value
    forgotten = min(1.0, max(0.0, (walk.cells * pages / cores - _PAGES[0]) / (_PAGES[1] - _PAGES[0])))
    far = walk.kv_heads + walk.heads * usual * pages * forgotten * _PAGE_OF_A_ROW
    again = (walk.heads - walk.kv_heads) * usual * (1 + _AGAIN_FROM_FAR * gone)
    return apart * far, apart * again
