"""What a new engine build answers differently, as a sentence and as a table.

The mistake it prevents: "the engine has changed" without the two numbers that let somebody judge whether it matters.
"""

from collections.abc import Iterator

from planner.render.layout import bullets, columns, paragraph, section
from planner.render.style import PLAIN, Style
from planner.render.text import finish
from planner.render.untrusted import cleaned
from planner.types.drift import Change, DriftReport, Quantity

__all__ = ["change_words", "drift_text"]

_MIB = 1 << 20
_QUANTITIES: dict[Quantity, str] = {
    "weights": "weights",
    "cache": "cache",
    "compute": "compute",
    "output": "output buffer",
    "work": "kernel work space",
    "structures": "engine structures",
    "refusal": "answer",
}


def change_words(change: Change, style: Style = PLAIN) -> str:
    """One change in a sentence: ``compute of qwen3-8b Q4_K_M (CPU) 304.75 → 330.12 MiB, +8.3 %``."""
    subject = f"{_QUANTITIES[change.quantity]} of {_model(change)} {change.quantization}".rstrip()
    where = f" ({change.buffer})" if change.buffer else ""
    if change.quantity == "refusal":
        return f"{_model(change)} {change.quantization}: {_refusal(change)}"
    return (
        f"{subject}{where} {_mib(change.before_bytes)} {_arrow(style)} {_mib(change.after_bytes)} MiB, {_ratio(change)}"
    )


def drift_text(report: DriftReport, style: Style = PLAIN) -> str:
    """Both builds, each number that moved with its largest change, and what could not be asked again."""
    told = cleaned(report)
    lines = [style.heading(f"Engine build {told.build}")]
    lines += paragraph(_summary(told))
    lines.append("")
    lines += section(style.warn("What changed"), _table(told, style), style)
    skipped = [f"{count} questions were {why}" for why, count in sorted(told.skipped.items())]
    lines += section("Not compared", bullets(skipped, style), style)
    if told.removed_builds:
        lines += paragraph(f"Removed the answers of older builds: {', '.join(told.removed_builds)}.")
    return finish(lines)


def _summary(told: DriftReport) -> str:
    if told.build_before is None:
        return "No other build has answered anything here: there is nothing to compare with."
    asked = f"{told.questions:,} questions that build {told.build_before} had answered were asked again"
    if not told.changes:
        return f"{asked}; no number moved by more than 0.1 %."
    return f"{asked}; {len({change.question + change.shape_key for change in told.changes}):,} answers changed."


def _table(told: DriftReport, style: Style) -> list[str]:
    """The largest change of each number of each model, with the count of answers in which it moved."""
    rows = [
        (
            f"{_model(first)} {first.quantization}",
            f"{_QUANTITIES[first.quantity]} {first.buffer}".rstrip(),
            *_numbers(first, style),
            str(count),
        )
        for first, count in _grouped(told)
    ]
    header = ("model", "what", "MiB before", "MiB now", "change", "answers")
    return columns(header, rows, right=(2, 3, 4, 5)) if rows else []


def _grouped(told: DriftReport) -> Iterator[tuple[Change, int]]:
    groups: dict[tuple[str, str, str, str], list[Change]] = {}
    for change in told.changes:
        key = (change.shape_key, change.quantization, change.quantity, change.buffer)
        groups.setdefault(key, []).append(change)
    for members in groups.values():
        yield members[0], len(members)


def _numbers(change: Change, style: Style) -> tuple[str, str, str]:
    if change.quantity == "refusal":
        return (style.dash, style.dash, "refused" if change.text else "accepted")
    return (_mib(change.before_bytes), _mib(change.after_bytes), _ratio(change))


def _model(change: Change) -> str:
    return change.model or f"a model of shape {change.shape_key[:12]}"


def _refusal(change: Change) -> str:
    if change.text:
        return f"the engine refuses what it used to answer: {change.text}"
    return "the engine answers what it used to refuse"


def _mib(size_bytes: int | None) -> str:
    return "?" if size_bytes is None else f"{size_bytes / _MIB:,.2f}"


def _ratio(change: Change) -> str:
    ratio = change.ratio
    return "new" if ratio is None else f"{100 * ratio:+.1f} %"


def _arrow(style: Style) -> str:
    return "→" if style.unicode else "->"
