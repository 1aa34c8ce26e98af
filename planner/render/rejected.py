"""What lost and why, summed up: how many for each reason, with a few names each; all of them stand in the JSON."""

from collections.abc import Sequence
from itertools import groupby

from planner.render.layout import paragraph
from planner.render.style import Style
from planner.types.plan import ReasonCode, Rejected

__all__ = ["REASON_WORDS", "by_reason", "rejected_lines"]

REASON_WORDS: dict[ReasonCode, str] = {
    "best": "the best of all",
    "context-too-long": "cannot hold the context",
    "licence": "its licence does not allow the use",
    "family": "of another family",
    "language": "without a language that was asked for",
    "not-for-this-use": "not made for this use",
    "too-big": "too big for the memory",
    "too-slow": "too slow",
    "answer-too-late": "too long a wait for an answer",
    "lower-rank": "ranked lower",
    "same-model-better-quantization": "the same model fits in a better quantization",
    "same-quality-better-settings": "the same quality with better settings",
    "engine-refused": "refused by the engine",
    "engine-changed": "another engine build",
    "newer-generation": "a newer generation was preferred",
    "more-capable": "a more capable one was preferred",
    "less-loss": "one that loses less was preferred",
    "meets-speed": "meets the speed",
    "fits": "fits",
    "granted": "granted to a server",
    "trade-off": "a trade-off",
}
"""Every reason in words for people; a test holds it complete."""

_NAMED = 3


def by_reason(rejected: Sequence[Rejected]) -> list[tuple[ReasonCode, list[str]]]:
    """The losers' names under the reason that decided, the most frequent reason first."""
    ordered = sorted(rejected, key=_code)
    groups = [(code, [_name(each) for each in members]) for code, members in groupby(ordered, key=_code)]
    return sorted(groups, key=lambda group: (-len(group[1]), group[0]))


def rejected_lines(rejected: Sequence[Rejected], style: Style) -> list[str]:
    """One line for each reason, the most frequent first, naming a few of the losers."""
    lines: list[str] = []
    for code, members in by_reason(rejected):
        names = members[:_NAMED]
        more = ", …" if style.unicode else ", ..."
        rest = more if len(members) > _NAMED else ""
        lines += paragraph(f"{len(members):>3} {REASON_WORDS[code]}: {', '.join(names)}{rest}", hanging=" " * 6)
    return lines


def _code(rejected: Rejected) -> ReasonCode:
    return rejected.reason.code


def _name(rejected: Rejected) -> str:
    return f"{rejected.model}:{rejected.quantization}" if rejected.quantization else rejected.model
