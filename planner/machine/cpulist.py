"""The kernel's lists of CPUs (``0-3,8``) as sets; prevents ``range(10**9)`` from a hostile file."""

from planner.machine.answers import natural

__all__ = ["cpu_list"]

_MOST = 65536


def cpu_list(text: str | None) -> frozenset[int]:
    """CPU numbers of a kernel list; parts that cannot be understood are left out."""
    numbers: set[int] = set()
    for part in (text or "").strip().split(",")[:_MOST]:
        first, dash, last = part.partition("-")
        low = natural(first)
        high = natural(last) if dash else low
        if low is None or high is None or not low <= high < _MOST:
            continue
        numbers.update(range(low, high + 1))
    return frozenset(numbers)
