"""How the text may look: colour and block characters only where the terminal shows them, plain letters elsewhere.

The mistake it prevents is meaning that lives in colour alone: every function here may do nothing at all, and the
text still says the same.
"""

from dataclasses import dataclass

__all__ = ["PLAIN", "WIDTH", "Segment", "Style"]

WIDTH = 100
"""The widest line that the text renderers write."""

_RESET = "\x1b[0m"


@dataclass(frozen=True, slots=True)
class Segment:
    """One part of a memory bar: its glyph with and without Unicode, and its ANSI colour."""

    name: str
    glyph: str
    letter: str
    colour: str


@dataclass(frozen=True, slots=True)
class Style:
    """What the reader's terminal can show; :data:`PLAIN` is the default and suits files and pipes."""

    colour: bool = False
    unicode: bool = True

    def heading(self, text: str) -> str:
        """The text as a section heading (bold)."""
        return self._wrap("\x1b[1m", text)

    def good(self, text: str) -> str:
        """The text as good news (green)."""
        return self._wrap("\x1b[32m", text)

    def bad(self, text: str) -> str:
        """The text as bad news (red)."""
        return self._wrap("\x1b[31m", text)

    def warn(self, text: str) -> str:
        """The text as a warning (yellow)."""
        return self._wrap("\x1b[33m", text)

    def faint(self, text: str) -> str:
        """The text as an aside (dim)."""
        return self._wrap("\x1b[2m", text)

    def segment(self, segment: Segment, cells: int = 1) -> str:
        """``cells`` glyphs of one part of a memory bar."""
        return self._wrap(segment.colour, (segment.glyph if self.unicode else segment.letter) * cells)

    @property
    def dot(self) -> str:
        """The separator between facts on one line."""
        return " · " if self.unicode else " | "

    @property
    def bullet(self) -> str:
        """The mark in front of a list item."""
        return "•" if self.unicode else "-"

    @property
    def dash(self) -> str:
        """The sign between two ends of a range."""
        return "–" if self.unicode else "-"

    @property
    def times(self) -> str:
        """The multiplication sign."""
        return "×" if self.unicode else "x"

    def _wrap(self, code: str, text: str) -> str:
        return f"{code}{text}{_RESET}" if self.colour and text else text


PLAIN = Style()
