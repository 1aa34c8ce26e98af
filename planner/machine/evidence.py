"""Keeps the source of every number and the reason for every gap; prevents a number that nobody can trace.

The law of :mod:`planner.types.machine` (a value has a source, a gap has a note) holds by construction for structs
whose fields pass through :meth:`Evidence.take`.
"""

from typing import TypeVar

__all__ = ["Evidence"]

T = TypeVar("T")


class Evidence:
    """Collects ``sources`` and ``notes`` while a struct's values are worked out."""

    def __init__(self) -> None:
        self.sources: dict[str, str] = {}
        self.notes: dict[str, str] = {}

    def take(self, field: str, value: T | None, source: str, missing: str = "not reported") -> T | None:
        """``value``, with ``source`` noted when there is one and ``missing`` when there is none."""
        if value is None:
            self.notes[field] = missing
        else:
            self.sources[field] = source
        return value

    def sure(self, field: str, value: T, source: str) -> T:
        """``value``, which is always there, with its source."""
        self.sources[field] = source
        return value

    def note(self, field: str, text: str) -> None:
        """Add a remark about a field; several are joined."""
        self.notes[field] = f"{self.notes[field]}; {text}" if field in self.notes else text
