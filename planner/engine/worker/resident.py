"""What this process itself holds in memory; Linux tells it exactly, other systems are not asked."""

from __future__ import annotations

from pathlib import Path

__all__ = ["resident_bytes"]


def resident_bytes() -> int | None:
    """Resident memory of this process, libraries in full as if nobody shared them; None where /proc does not tell."""
    try:
        with Path("/proc/self/smaps_rollup").open(encoding="ascii") as file:
            for line in file:
                if line.startswith("Rss:"):
                    return int(line.split()[1]) * 1024
    except OSError:
        return None
    return None
