"""Errors of each tool's answers against the real loads, as one table.

An error is (said / true − 1) in per cent: below zero the tool promises less than is held, which ends in a kill;
above it memory stays unused. Medians are of absolute errors.
"""

import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

Row = Mapping[str, Any]
Summary = dict[str, dict[str, Any]]

# (column, the answer's part, the truth's part); a tool without "resident" is judged by its total.
COLUMNS = (
    ("resident", "resident", "resident"),
    ("reserved", "total", "reserved"),
    ("weights", "weights", "weights"),
    ("cache", "cache", "cache"),
    ("compute", "compute", "compute"),
    ("context", "context", "context"),
)


def error_percent(row: Row, tool: str, said: str, true: str) -> float | None:
    """One answer's error in per cent; ``None`` where the tool does not tell that part."""
    answer = row["answers"].get(tool, {})
    value = answer.get(said, answer.get("total") if said == "resident" else None)
    return None if value is None else 100 * (value / row["truth"][true] - 1)


def spread(errors: Iterable[float | None]) -> dict[str, float | int] | None:
    """Number, median of absolute errors, lowest and highest error; ``None`` where there is none."""
    known = [error for error in errors if error is not None]
    if not known:
        return None
    return {
        "n": len(known),
        "median_percent": round(statistics.median(abs(error) for error in known), 2),
        "lowest_percent": round(min(known), 2),
        "highest_percent": round(max(known), 2),
    }


def summarize(rows: Sequence[Row], tools: Sequence[str]) -> Summary:
    """For each tool: the spread of each column, and of the resident column for each load mode alone."""
    summary: Summary = {}
    for tool in tools:
        parts = {name: spread(error_percent(row, tool, said, true) for row in rows) for name, said, true in COLUMNS}
        for mode in ("mmap", "none"):
            some = [row for row in rows if row["load_mode"] == mode]
            parts[f"resident_{mode}"] = spread(error_percent(row, tool, "resident", "resident") for row in some)
        summary[tool] = parts
    return summary


def broken(rows: Sequence[Row], summary: Summary) -> list[str]:
    """What refutes the claim: the planner outside its bounds, or a tool that is nearer on what it answered."""
    faults = []
    for row in rows:
        error = error_percent(row, "planner", "resident", "resident")
        if error is None or not -1 <= error <= 3:
            faults.append(f"planner: {row['configuration']}: resident {error} %")
    for tool, parts in summary.items():
        theirs = parts["resident"]
        if tool == "planner" or theirs is None:
            continue
        # Against the same rows that the tool answered, so that a tool cannot look good or bad by what it left out.
        same = [row for row in rows if error_percent(row, tool, "resident", "resident") is not None]
        ours = spread(error_percent(row, "planner", "resident", "resident") for row in same)
        if ours is None or theirs["median_percent"] <= ours["median_percent"] or worst(theirs) <= worst(ours):
            faults.append(f"{tool}: resident {theirs}, planner on the same configurations {ours}")
    return faults


def worst(part: Mapping[str, float | int]) -> float:
    """The largest absolute error of a spread."""
    return max(-part["lowest_percent"], part["highest_percent"], 0.0)


def show(summary: Summary) -> str:
    """The table as Markdown: median of absolute errors, and in brackets the lowest and highest error."""
    columns = ("resident", "resident_mmap", "resident_none", "reserved", "weights", "cache", "compute", "context")
    lines = ["| tool | n | " + " | ".join(columns) + " |", "|---" * (len(columns) + 2) + "|"]
    for tool, parts in summary.items():
        count = parts["resident"]["n"] if parts["resident"] else 0
        lines.append(f"| {tool} | {count} | " + " | ".join(cell(parts[name]) for name in columns) + " |")
    return "\n".join(lines)


def cell(part: Mapping[str, float | int] | None) -> str:
    """``2.1 % (−3.0 … +4.0)``, or a dash where the tool does not tell."""
    if part is None:
        return "–"
    return f"{part['median_percent']:.1f} % ({part['lowest_percent']:+.1f} … {part['highest_percent']:+.1f})"
