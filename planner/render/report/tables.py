"""A table before it is HTML or Markdown: a caption, a header, rows of finished words, and which columns are numbers.

The mistake it prevents is two formats of one report that word, round or order a number differently.
"""

from dataclasses import dataclass

__all__ = ["Fact", "Table"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Fact:
    """One thing with its value and, where there is one, the place it was read or the reason that it is unknown."""

    label: str
    value: str
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """Finished words in rows, each as long as the header; ``right`` are the columns that hold numbers.

    A line break in a cell sets a lesser part below the main one. ``row_ids`` name the rows that something links to,
    ``marked`` is the row that is the choice.
    """

    caption: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    right: tuple[int, ...] = ()
    row_ids: tuple[str, ...] = ()
    marked: int | None = None
