"""Lines, paragraphs and tables of plain text; nothing here is wider than a terminal of 100 columns.

Columns are measured before colour is added, so that an escape sequence never shifts a table.
"""

import textwrap
from collections.abc import Sequence

from planner.render.style import WIDTH, Style

__all__ = ["INDENT", "blocks", "bullets", "columns", "facts", "labelled", "paragraph", "section"]

INDENT = "  "


def paragraph(
    text: str, *, indent: str = INDENT, hanging: str | None = None, unbroken_words: bool = False
) -> list[str]:
    """The text broken at spaces into lines of at most :data:`~planner.render.style.WIDTH` columns.

    ``unbroken_words`` leaves a longer word whole: a path or an address that is to be copied.
    """
    return textwrap.wrap(
        text,
        width=WIDTH,
        initial_indent=indent,
        subsequent_indent=indent if hanging is None else hanging,
        break_on_hyphens=False,
        break_long_words=not unbroken_words,
    ) or [indent.rstrip()]


def bullets(texts: Sequence[str], style: Style) -> list[str]:
    """Each text as a list item with a hanging indent."""
    return [line for text in texts for line in paragraph(text, indent=f"{INDENT}{style.bullet} ", hanging=INDENT * 2)]


def facts(parts: Sequence[str | None], style: Style) -> str:
    """The parts that are known on one line with a separator between them."""
    return style.dot.join(part for part in parts if part)


def section(title: str, lines: Sequence[str], style: Style) -> list[str]:
    """A heading, its lines and an empty line; nothing at all when there are no lines."""
    return [style.heading(title), *lines, ""] if lines else []


def labelled(label: str, texts: Sequence[str], *, width: int = 12) -> list[str]:
    """Texts beside a label in a left column; the label stands on the first line only."""
    gap = " " * width
    lines: list[str] = []
    for text in texts:
        lines.extend(paragraph(text, indent=gap if lines else label.ljust(width - 1) + " ", hanging=gap))
    return lines


def columns(header: Sequence[str], rows: Sequence[Sequence[str]], *, right: Sequence[int] = ()) -> list[str]:
    """The lines of :func:`blocks` one after the other."""
    return [line for block in blocks(header, rows, right=right) for line in block]


def blocks(header: Sequence[str], rows: Sequence[Sequence[str]], *, right: Sequence[int] = ()) -> list[list[str]]:
    """A table, its header first, as the lines of each row; the columns numbered in ``right`` are right-aligned.

    Two spaces stand between columns. The last column wraps inside the width that the others leave.
    """
    table = [list(header), *(list(row) for row in rows)]
    widths = [max(len(row[index]) for row in table) for index in range(len(header))]
    made: list[list[str]] = []
    for row in table:
        cells = [
            cell.rjust(width) if index in right else cell.ljust(width)
            for index, (cell, width) in enumerate(zip(row[:-1], widths[:-1], strict=True))
        ]
        lead = INDENT + "".join(f"{cell}  " for cell in cells)
        last = row[-1].rjust(widths[-1]) if len(header) - 1 in right else row[-1]
        made.append(_last_column(lead, last))
    return made


def _last_column(lead: str, text: str) -> list[str]:
    if len(lead) + len(text) <= WIDTH:
        return [(lead + text).rstrip()]
    wrapped = textwrap.wrap(text, width=max(20, WIDTH - len(lead)), break_on_hyphens=False)
    gap = " " * len(lead)
    return [lead + wrapped[0], *(gap + line for line in wrapped[1:])]
