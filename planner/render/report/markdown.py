"""The report as GitHub Markdown: the same words and tables as the page, no drawing and no HTML.

Every string of a plan is a stranger's: what Markdown would obey in it is escaped, so that a model's name is no heading,
no link, no image and no second column. The mistake it prevents is a name that writes the rest of the document.
"""

import re
from collections.abc import Iterator, Sequence

from planner.render.report.comparison import comparison_table
from planner.render.report.sheet import Command, Sheet, sheets
from planner.render.report.tables import Fact, Table
from planner.types.plan import Plan

__all__ = ["escaped", "markdown_report"]

_OBEYED = re.compile(r"[\\`*\[\]<>|~&!$]|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])")
_AUTOLINKED = re.compile(r"(://|www\.|@)", re.IGNORECASE)
_STARTS_A_BLOCK = re.compile(r"\A(?:[-+#=]|[0-9]{1,9}[.)](?=\s|\Z))")
_FENCE = re.compile(r"`{3,}")


def markdown_report(plans: Sequence[Plan]) -> str:
    """The whole report for one plan or for several, which are then compared first."""
    told = sheets(plans)
    blocks: list[str] = []
    if len(told) > 1:
        blocks += [f"# {len(told)} plans side by side", _table(comparison_table(told))]
    for sheet in told:
        blocks += _plan(sheet, level=2 if len(told) > 1 else 1)
    return "\n\n".join(blocks) + "\n"


def escaped(text: str) -> str:
    """The text as Markdown that shows exactly this text, wherever on a line it stands; addresses are no links."""
    shown = _OBEYED.sub(r"\\\g<0>", text)
    shown = _AUTOLINKED.sub(lambda match: match.group()[:-1] + "\\" + match.group()[-1], shown)
    start = _STARTS_A_BLOCK.match(shown)
    if start is None:
        return shown
    # Of a number in front of a list item the dot is what counts, of all others the sign itself.
    return f"{shown[: start.end() - 1]}\\{shown[start.end() - 1 :]}"


def _plan(sheet: Sheet, level: int) -> Iterator[str]:
    yield _heading(level, f"{sheet.letter}: {sheet.answer}" if sheet.letter else sheet.answer)
    yield escaped(sheet.asked)
    if sheet.key_facts:
        yield _facts(sheet.key_facts)
    for title, texts in (("Warnings", sheet.warnings), ("Machine", sheet.machine), ("Choice", sheet.choice)):
        yield from _listed(level + 1, title, texts)
    yield from _listed(level + 1, "Why", sheet.why)
    yield from _listed(level + 1, "What to do next", sheet.ask_for_less)
    for title, table, text in (
        ("Memory", sheet.memory, ""),
        ("Speed", sheet.speed, ""),
        ("Quality against speed", sheet.candidates, sheet.trade_off),
    ):
        if table is not None:
            yield from (_heading(level + 1, title), *([escaped(text)] if text else []), _table(table))
    yield _heading(level + 1, "Measured samples")
    if sheet.measured is not None:
        yield _table(sheet.measured)
    if sheet.measured_notes:
        yield _list(sheet.measured_notes)
    yield from _listed(
        level + 1, "Rejected", [f"{len(lost.names)} {lost.reason}: {', '.join(lost.names)}" for lost in sheet.lost]
    )
    yield from _run(sheet, level + 1)
    yield _heading(level + 1, "Where everything comes from")
    yield _facts(sheet.sources)


def _run(sheet: Sheet, level: int) -> Iterator[str]:
    if not sheet.commands:
        return
    yield _heading(level, "Run it")
    if sheet.weights:
        yield f"Get the weights: {escaped(sheet.weights)}"
    for command in sheet.commands:
        yield escaped(command.title)
        yield _fenced(command)


def _fenced(command: Command) -> str:
    """The text between fences that are longer than any in it."""
    longest = max((len(found) for found in _FENCE.findall(command.text)), default=2)
    fence = "`" * (longest + 1)
    return f"{fence}{command.language}\n{command.text}\n{fence}"


def _heading(level: int, text: str) -> str:
    return f"{'#' * level} {escaped(text)}"


def _listed(level: int, title: str, texts: Sequence[str]) -> Iterator[str]:
    if texts:
        yield _heading(level, title)
        yield _list(texts)


def _list(texts: Sequence[str]) -> str:
    return "\n".join(f"- {escaped(text)}" for text in texts)


def _facts(facts: Sequence[Fact]) -> str:
    rows = tuple((fact.label, fact.value, fact.note) for fact in facts)
    return _table(Table(caption="", header=("fact", "value", "source or note"), rows=rows))


def _table(table: Table) -> str:
    """A GitHub table; a second line in a cell follows the first in brackets, the caption stands above."""
    lines = [
        _line(table.header),
        _line(["---:" if place in table.right else "---" for place in range(len(table.header))], raw=True),
    ]
    lines += [_line(row, bold=place == table.marked) for place, row in enumerate(table.rows)]
    drawn = "\n".join(lines)
    return f"{escaped(table.caption)}\n\n{drawn}" if table.caption else drawn


def _line(cells: Sequence[str], *, raw: bool = False, bold: bool = False) -> str:
    shown = cells if raw else [escaped(_one_line(cell)) for cell in cells]
    if bold:
        shown = [f"**{shown[0]}**", *shown[1:]]
    return f"| {' | '.join(shown)} |"


def _one_line(cell: str) -> str:
    first, *rest = cell.split("\n")
    return f"{first} ({', '.join(rest)})" if rest else first
