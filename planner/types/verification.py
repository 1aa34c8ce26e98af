"""What ``planner verify`` found: each promise of a plan beside what was there, and every number that was timed."""

from typing import Literal

from planner.types import Report
from planner.types.measurement import Conditions, Spread
from planner.types.serving import ServerKind

__all__ = ["Area", "ChatSample", "ChatTiming", "Check", "CheckStatus", "Verification"]

Area = Literal["machine", "file", "server", "memory", "speed"]

CheckStatus = Literal["met", "differs", "missed", "unknown"]
"""``differs``: not as it was, and no promise depends on it; ``missed``: a promise is broken; ``unknown``: not looked
at, and the text says why."""


class Check(Report, frozen=True, kw_only=True):
    """One promise. ``planned`` and ``found`` are words for people, ``text`` a sentence.

    ``place`` says on which side of a promised interval a speed lies.
    """

    area: Area
    name: str
    status: CheckStatus
    planned: str | None = None
    found: str | None = None
    text: str = ""
    place: Literal["below", "inside", "above"] | None = None


class ChatSample(Report, frozen=True, kw_only=True):
    """One answer as a client saw it: seconds to its first token and to its last, tokens read and written.

    ``prompt_tokens`` is ``None`` where the server did not count them. ``cached`` says that the prompt was known to the
    server from the request before, so that its first token tells nothing about reading.
    """

    first_token_s: float
    total_s: float
    tokens: int
    prompt_tokens: int | None = None
    cached: bool = False

    @property
    def tokens_per_s(self) -> float | None:
        """Tokens written per second after the first; ``None`` for fewer than two."""
        written_s = self.total_s - self.first_token_s
        return (self.tokens - 1) / written_s if self.tokens > 1 and written_s > 0 else None


class ChatTiming(Report, frozen=True, kw_only=True):
    """All requests of one kind: so many at once, each with a prompt of about ``depth_tokens``.

    ``tokens_per_s`` is what one request gets. ``prompt_tokens_per_s`` and ``first_token_s`` are of those requests whose
    prompt was new to the server.
    """

    name: str
    depth_tokens: int
    at_once: int
    samples: tuple[ChatSample, ...]
    tokens_per_s: Spread | None
    prompt_tokens_per_s: Spread | None
    first_token_s: Spread | None


class Verification(Report, frozen=True, kw_only=True):
    """The document of ``planner verify``; ``drifted`` is true when a check was missed, and the exit code is then 11.

    ``resident_bytes`` is the most that the server and its children held (proportional set size on Linux).
    ``started`` says whether the server was started for this. ``phantom``: random weights stood in for the file.
    """

    schema: str = "planner/verification/1"
    model: str
    quantization: str
    verified_at: str
    created_by: str
    url: str
    server: ServerKind | None
    started: bool
    phantom: bool
    quick: bool
    drifted: bool
    checks: tuple[Check, ...]
    timings: tuple[ChatTiming, ...] = ()
    loaded_bytes: int | None = None
    resident_bytes: int | None = None
    conditions: Conditions
    seconds: float
    notes: tuple[str, ...] = ()
