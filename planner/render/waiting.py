"""How OpenMP threads wait for one another, in words; the mistake it prevents is a price that no timing shows.

Threads that spin decide decode speed on a CPU as long as each has a core to itself, and stand still where one has not.
"""

from planner.types.settings import Settings, Waiting

__all__ = ["spinning", "waits"]

_WORDS: dict[Waiting, str] = {
    "passive": "passive waiting",
    "default": "waiting left to the runtime",
    "active": "active waiting",
}


def waits(waiting: Waiting) -> str:
    """A few words for a line of facts."""
    return _WORDS[waiting]


def spinning(settings: Settings) -> str | None:
    """What to know where threads spin, as a sentence; ``None`` where they do not."""
    if settings.threads <= 1 or settings.openmp_wait == "passive":
        return None
    beside = "beside another busy program answers may take ten times as long"
    if settings.openmp_wait == "active":
        return f"OMP_WAIT_POLICY=active keeps the cores busy for minutes after each answer, and {beside}"
    return f"threads spin while they wait for one another: {beside}; OMP_WAIT_POLICY=passive is slower, and bears that"
