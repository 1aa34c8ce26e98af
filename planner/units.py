"""Formats bytes, rates, counts and durations for people; nothing else in the project rounds.

Memory is binary (GiB) because llama.cpp and every operating system count so; published file sizes are decimal (GB)
and never pass through here.
"""

__all__ = ["count", "duration", "gib", "mib", "percent", "rate"]

MIB = 1 << 20
GIB = 1 << 30


def gib(size_bytes: int | None) -> str:
    """Bytes as ``4.68 GiB``, small ones as ``38 MiB``, unknown as ``unknown``."""
    if size_bytes is None:
        return "unknown"
    if abs(size_bytes) < GIB:
        return mib(size_bytes)
    return f"{size_bytes / GIB:.2f} GiB"


def mib(size_bytes: int) -> str:
    """Bytes as ``38.1 MiB``; whole from 100 MiB on."""
    value = size_bytes / MIB
    return f"{value:.1f} MiB" if abs(value) < 100 else f"{value:.0f} MiB"


def rate(tokens_per_s: float | None) -> str:
    """Tokens per second with three significant digits: ``7.42``, ``23.1``, ``412``."""
    if tokens_per_s is None:
        return "unknown"
    digits = 2 if tokens_per_s < 10 else 1 if tokens_per_s < 100 else 0
    return f"{tokens_per_s:.{digits}f}"


def count(parameters: int | None) -> str:
    """A parameter count as ``8.19 B`` or ``494 M``."""
    if parameters is None:
        return "unknown"
    if parameters < 1_000_000_000:
        return f"{parameters / 1e6:.0f} M"
    digits = 2 if parameters < 100_000_000_000 else 0
    return f"{parameters / 1e9:.{digits}f} B"


def duration(seconds: float) -> str:
    """Seconds as ``45 s`` or ``2 min 5 s``."""
    whole = round(seconds)
    return f"{whole} s" if whole < 120 else f"{whole // 60} min {whole % 60} s"


def percent(ratio: float) -> str:
    """A ratio as ``3 %``; below ten percent with one digit."""
    value = ratio * 100
    return f"{value:.1f} %" if abs(value) < 10 else f"{value:.0f} %"
