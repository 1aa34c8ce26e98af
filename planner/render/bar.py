"""A memory bar in characters: what of a device's memory goes where, readable without colour.

Every part that is not zero gets at least one cell, so that a small buffer is never drawn as if it were not there; the
cells always add up to the width.
"""

from planner import units
from planner.render.style import Segment, Style
from planner.types.plan import DeviceMemory

__all__ = ["BAR_CELLS", "SEGMENTS", "allot", "bar", "legend", "parts"]

BAR_CELLS = 60

SEGMENTS = (
    Segment("weights", "█", "W", "\x1b[34m"),
    Segment("cache", "▓", "K", "\x1b[36m"),
    Segment("compute", "▒", "C", "\x1b[35m"),
    Segment("overhead", "░", "o", "\x1b[33m"),
    Segment("server", "≈", "s", "\x1b[32m"),
    Segment("reserve", "/", "/", "\x1b[2m"),
    Segment("free", "·", ".", "\x1b[2m"),
)


def parts(memory: DeviceMemory) -> tuple[int, ...]:
    """Bytes of weights, cache, compute, overhead, what a server may keep, reserve, and what stays free.

    In the order of :data:`SEGMENTS`. A server's share of the overhead is set apart: it comes with use, if at all.
    """
    overhead = memory.overhead_bytes - memory.server_bytes
    used = (memory.weights_bytes, memory.cache_bytes, memory.compute_bytes, overhead, memory.server_bytes)
    return (*used, memory.reserve_bytes, max(0, memory.headroom_bytes or 0))


def allot(sizes: tuple[int, ...], cells: int) -> tuple[int, ...]:
    """``cells`` shared out in proportion to the sizes (largest remainder), at least one for each size above zero."""
    whole = sum(sizes)
    if whole <= 0:
        return (0,) * len(sizes)
    shares = [size * cells / whole for size in sizes]
    counts = [max(1, int(share)) if size else 0 for size, share in zip(sizes, shares, strict=True)]
    while sum(counts) != cells:
        step = 1 if sum(counts) < cells else -1
        # The cell goes to the part that is furthest from its due, or comes from the one furthest above it.
        gaps = [(share - count) * step for share, count in zip(shares, counts, strict=True)]
        allowed = [index for index, size in enumerate(sizes) if size and (step > 0 or counts[index] > 1)]
        counts[max(allowed, key=lambda index: gaps[index])] += step
    return tuple(counts)


def bar(memory: DeviceMemory, style: Style) -> str:
    """The bar of one device: :data:`BAR_CELLS` glyphs, the whole being what the device offers (or what is needed)."""
    counts = allot(parts(memory), BAR_CELLS)
    return "".join(style.segment(segment, count) for segment, count in zip(SEGMENTS, counts, strict=True))


def legend(memory: DeviceMemory, style: Style) -> list[str]:
    """What each glyph stands for, with its size, two parts of three a line."""
    entries = [
        f"{style.segment(segment)} {segment.name} {units.gib(size)}"
        for segment, size in zip(SEGMENTS, parts(memory), strict=True)
        if size
    ]
    return ["   ".join(entries[start : start + 4]) for start in range(0, len(entries), 4)]
