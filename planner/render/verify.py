"""What was verified, as text: broken promises first, then every promise beside what was found.

The mistake it prevents is a green word over a list nobody reads: what was missed, what could not be looked at and what
disturbed the timing stand above the details.
"""

from planner.render.layout import bullets, columns, paragraph, section
from planner.render.style import PLAIN, Style
from planner.render.text import finish
from planner.render.untrusted import cleaned
from planner.types.verification import Area, ChatTiming, Check, Verification
from planner.units import duration, rate

__all__ = ["verification_text"]

_AREAS: dict[Area, str] = {
    "machine": "Machine",
    "file": "File",
    "server": "Server",
    "memory": "Memory",
    "speed": "Speed",
}
_LONGEST_VALUE = 34


def verification_text(report: Verification, style: Style = PLAIN) -> str:
    """The verdict, what was missed, what is unknown, then all checks and timings."""
    told = cleaned(report)
    missed = [check for check in told.checks if check.status == "missed"]
    lines = [style.bad(_verdict(told, missed)) if missed else style.good(_verdict(told, missed))]
    lines += paragraph(_subject(told), indent="", unbroken_words=True)
    lines.append("")
    lines += section(style.bad("Missed"), bullets([_sentence(check) for check in missed], style), style)
    lines += section(style.warn("Disturbed while timing"), bullets(told.conditions.disturbed, style), style)
    lines += section("Otherwise than planned", bullets(told.notes, style), style)
    for area, title in _AREAS.items():
        rows = [_row(check, style) for check in told.checks if check.area == area]
        lines += section(title, columns(("check", "", "planned", "found", ""), rows) if rows else [], style)
    lines += section("What a client saw", _timings(told.timings, style), style)
    return finish(lines)


def _verdict(told: Verification, missed: list[Check]) -> str:
    kept = sum(check.status in ("met", "differs") for check in told.checks)
    unknown = sum(check.status == "unknown" for check in told.checks)
    parts = [f"{len(missed)} missed"] if missed else []
    parts += [f"{kept} kept"] + ([f"{unknown} unknown"] if unknown else [])
    return f"{'Not as planned' if missed else 'As planned'}: {', '.join(parts)}"


def _subject(told: Verification) -> str:
    what = f"{told.model} in {told.quantization}"
    file = "a phantom with random weights" if told.phantom else "its file"
    server = told.server or "a server"
    where = "started for this" if told.started else f"that runs at {told.url}"
    return f"{what}, {file}, served by {server} {where}; {duration(told.seconds)}{', quick' if told.quick else ''}."


def _sentence(check: Check) -> str:
    found = f"{check.found or 'nothing'} where {check.planned} was planned" if check.planned else check.found or ""
    return "; ".join(part for part in (f"{check.area} {check.name}: {found}", check.text) if part)


def _row(check: Check, style: Style) -> tuple[str, str, str, str, str]:
    def short(text: str | None) -> str:
        if text is None:
            return style.dash
        return text if len(text) <= _LONGEST_VALUE else f"{text[: _LONGEST_VALUE - 3]}..."

    return (check.name, check.status, short(check.planned), short(check.found), check.text or " ")


def _timings(timings: tuple[ChatTiming, ...], style: Style) -> list[str]:
    rows = [
        (
            timing.name,
            f"{timing.depth_tokens:,}",
            str(timing.at_once),
            str(len(timing.samples)),
            style.dash if timing.first_token_s is None else f"{timing.first_token_s.median:.2f} s",
            style.dash if timing.prompt_tokens_per_s is None else rate(timing.prompt_tokens_per_s.median),
            style.dash if timing.tokens_per_s is None else rate(timing.tokens_per_s.median),
        )
        for timing in timings
    ]
    header = ("requests", "prompt", "at once", "answers", "first token", "read/s", "write/s")
    return columns(header, rows, right=(1, 2, 3, 4, 5, 6)) if rows else []
