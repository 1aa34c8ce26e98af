"""What a card holds beside llama.cpp's buffers: the column "unaccounted" of the exit tables, by backend and card.

That column is what is gone from the card and stands in no buffer: the driver's context, kernels and pools, a vision
tower or a second process, and on unified memory the desktop. ``beyond_start`` leaves out what was missing before the
model was loaded, where the log tells the free memory of then (on CUDA that already is after the context was made).
Tables of ``-fit`` are projections, negative by design, and left out. The mistake it prevents: one constant for every
card.

    python bench/memory_logs_overhead.py [--logs FILE]
"""

import argparse
import re
import statistics
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from memory_logs_records import DATA, Log, read_logs

__all__ = ["Overhead", "overheads"]

_ROW = re.compile(r"- (\w+) \((.*)\)\s+\|\s*(\d+) = +(\d+) \+ \( *(\d+) = .*\) \+ +(\d+)\b")


class Overhead(NamedTuple):
    """MiB of one card in one record; ``beyond_start`` is ``None`` where the log does not tell what was free before."""

    id: str
    backend: str
    card: str
    unaccounted: int
    beyond_start: int | None


def overheads(logs: Iterable[Log]) -> list[Overhead]:
    """One entry for each card of each exit table."""
    found = []
    for log in logs:
        for line in log.breakdown or ():
            match = _ROW.search(line)
            if match is None:
                continue
            name, card, total, unaccounted = match[1], match[2], int(match[3]), int(match[6])
            start = next((gpu for gpu in log.gpus or () if gpu.startswith(f"{name} ")), "")
            free = re.search(r"- (\d+) MiB free", start)
            beyond = unaccounted - (total - int(free[1])) if free else None
            found.append(Overhead(log.id, re.sub(r"\d+$", "", name), card, unaccounted, beyond))
    return found


def main() -> int:
    """Print the table: median and most, by backend and card."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--logs", type=Path, default=DATA / "memory_logs.jsonl", help="other logs in the same form")
    rows = overheads(read_logs(parser.parse_args().logs))
    for backend, card in sorted({(row.backend, row.card) for row in rows}):
        those = [row for row in rows if (row.backend, row.card) == (backend, card)]
        all_of_it = [row.unaccounted for row in those]
        beyond = [row.beyond_start for row in those if row.beyond_start is not None]
        text = f"median {statistics.median(beyond):.0f}, most {max(beyond)}" if beyond else "not told"
        print(
            f"{backend:8}{card:50}{len(those):3} median {statistics.median(all_of_it):6.0f} most {max(all_of_it):6} "
            f"beyond what was missing at the start: {text}"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
