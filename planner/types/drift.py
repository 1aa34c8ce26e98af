"""What a new engine build answers differently than an older one did, and what it was asked."""

from typing import Literal

from planner.types import Report

__all__ = ["Change", "DriftReport", "Quantity"]

Quantity = Literal["weights", "cache", "compute", "output", "work", "structures", "refusal"]


class Change(Report, frozen=True, kw_only=True):
    """One number that differs by more than 0.1 %, in the answer to one question.

    ``buffer`` is the engine's name of the buffer type, empty where there is none. A ``refusal`` has ``None`` for bytes
    and the engine's words in ``text``: empty when it refused before and answers now. ``model`` is ``None`` for a shape
    that the catalogue does not have. ``question`` is the key under which the answers are kept.
    """

    shape_key: str
    model: str | None = None
    question: str
    quantization: str
    quantity: Quantity
    buffer: str = ""
    before_bytes: int | None = None
    after_bytes: int | None = None
    text: str = ""

    @property
    def ratio(self) -> float | None:
        """The change over what was before; ``None`` where nothing was or a side is unknown."""
        if not self.before_bytes or self.after_bytes is None:
            return None
        return self.after_bytes / self.before_bytes - 1


class DriftReport(Report, frozen=True, kw_only=True):
    """The document of ``planner drift``: all that an older build's cache holds, asked again.

    ``build_before`` is ``None`` when no other build's answers are kept. ``skipped`` counts, by reason, the questions
    that could not be asked again; ``removed_builds`` are those whose answers were older still and are gone now.
    """

    schema: str = "planner/drift/1"
    build: str
    build_before: str | None
    questions: int
    changes: tuple[Change, ...]
    skipped: dict[str, int] = {}
    removed_builds: tuple[str, ...] = ()
