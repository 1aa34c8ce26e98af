"""A quantity that is known at a few points and asked for between them, with the side on which the truth lies.

Compute buffers grow with the context as the largest of several straight lines (convex), caches as the smallest of
several (concave: a window is full at some length). Between two points the chord of a convex curve lies above it and the
neighbours' lines below; for a concave one it is the other way round. The mistake this prevents: an interpolation that
is off by some per cent in a direction that nobody knows.
"""

import math
from bisect import bisect_left
from collections.abc import Sequence

__all__ = ["Curve"]


class Curve:
    """Values at increasing points; exact at them, bracketed between them."""

    def __init__(self, points: Sequence[int], values: Sequence[float]) -> None:
        self._points = list(points)
        self._values = list(values)
        self._slopes = [
            (self._values[i + 1] - self._values[i]) / (self._points[i + 1] - self._points[i])
            for i in range(len(points) - 1)
        ]

    def convex(self, at: float) -> tuple[float, float]:
        """The likely value, and what it cannot exceed: the chord, and the most that was told up to there.

        The likely value is where the neighbours' lines meet: exact where one bend lies between two points. A packer of
        buffers need not be monotone (Qwen3-30B-A3B takes 342 MiB on a card at 24,576 tokens, 301 at 32,768 and 338 at
        71,661), hence the most so far.
        """
        place = self._place(at)
        if place is None:
            value = self._outside(at)
            return value, value
        chord, before, after = self._lines(place, at)
        lines = [line for line in (before, after) if line is not None]
        # In the outermost intervals a neighbour is missing, and the bend may be anywhere.
        likely = max(lines) if len(lines) == 2 else chord
        return min(chord, likely), max(chord, self._most(at))

    def concave(self, at: float) -> float:
        """The value of a concave curve with one bend between two points; any other concave one lies below it."""
        place = self._place(at)
        if place is None:
            return self._outside(at)
        chord, before, after = self._lines(place, at)
        return max(chord, min(line for line in (before, after, math.inf) if line is not None))

    def _most(self, at: float) -> float:
        """The largest value at the points before ``at``."""
        return max(self._values[: bisect_left(self._points, at)])

    def _place(self, at: float) -> int | None:
        """The interval that a point lies in; ``None`` outside of all, and at a known point."""
        right = bisect_left(self._points, at)
        if right in {0, len(self._points)} or self._points[right] == at:
            return None
        return right - 1

    def _outside(self, at: float) -> float:
        """The value at a known point, the first one before it, and the last line beyond the end."""
        right = bisect_left(self._points, at)
        if right < len(self._points):
            return self._values[right]
        slope = self._slopes[-1] if self._slopes else 0.0
        return self._values[-1] + slope * (at - self._points[-1])

    def _lines(self, place: int, at: float) -> tuple[float, float | None, float | None]:
        """The chord at a point, and the lines of the intervals before and after, as far as there are any."""
        points, values, slopes = self._points, self._values, self._slopes
        since, until = at - points[place], points[place + 1] - at
        before = values[place] + slopes[place - 1] * since if place > 0 else None
        after = values[place + 1] - slopes[place + 1] * until if place + 1 < len(slopes) else None
        return values[place] + slopes[place] * since, before, after
