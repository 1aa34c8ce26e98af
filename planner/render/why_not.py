"""Why a named model is not the choice: one sentence first, then the numbers that it rests on."""

from typing import Protocol

from planner.choose.policy import RULES
from planner.render.layout import INDENT, paragraph, section
from planner.render.style import PLAIN, Style
from planner.render.text import finish, memory_lines, settings_lines, speed_words
from planner.types.plan import Candidate, Reason

__all__ = ["Answer", "why_not_text"]


class Answer(Protocol):
    """What the question returns: the model asked about, what was chosen instead, the deciding reason, the numbers."""

    @property
    def model(self) -> str:
        """The id of the model asked about."""

    @property
    def quantization(self) -> str | None:
        """The quantization asked about, ``None`` for any."""

    @property
    def chosen(self) -> str | None:
        """What was chosen instead, ``None`` when nothing was."""

    @property
    def reason(self) -> Reason:
        """The one reason that decided."""

    @property
    def candidate(self) -> Candidate | None:
        """The numbers, ``None`` where the model was refused before any were made."""


def why_not_text(answer: Answer, style: Style = PLAIN) -> str:
    """The answer as text."""
    name = f"{answer.model}:{answer.quantization}" if answer.quantization else answer.model
    if answer.reason.code == "best":
        title = f"{name} is the choice."
    elif answer.chosen is None:
        title = f"{name} does not meet the goal, and nothing else does."
    else:
        title = f"{name} is not the choice; {answer.chosen} is."
    lines = [style.heading(line) for line in paragraph(title, indent="")]
    lines += [*paragraph(answer.reason.text), *_rule(answer.reason), ""]
    if answer.candidate is not None:
        lines += _numbers(answer.candidate, style)
    return finish(lines)


def _rule(reason: Reason) -> list[str]:
    """The rule that decided, by name and in a sentence."""
    return [] if reason.rule is None else paragraph(f"Rule {reason.rule}: {RULES[reason.rule]}.")


def _numbers(candidate: Candidate, style: Style) -> list[str]:
    title = f"{candidate.model} {candidate.quantization}"
    speed = [] if candidate.speed.generate is None else paragraph(speed_words(candidate.speed.generate, style))
    return [
        *section(title, [f"{INDENT}{line}" for line in settings_lines(candidate.settings, style)], style),
        *section("Memory", memory_lines(candidate.memory, style), style),
        *section("Speed", speed, style),
    ]
