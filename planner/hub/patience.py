"""How long a question over the network may take, and what is tried again: one deadline for the whole of it.

The mistake it prevents is trusting a library's timeouts with a deadline: they bound one silence, so a server that sends
a byte now and then holds the caller for ever, and none of them bounds the look-up of a name.
"""

import email.utils
import re
import threading
import time
from collections.abc import Callable, Mapping
from typing import TypeVar

from planner.errors import ExitCode, PlannerError, UnavailableError
from planner.types import Record

__all__ = [
    "PATIENCE",
    "Clock",
    "Patience",
    "TransientFault",
    "persist",
    "rate_limited",
    "retry_after_s",
    "too_slow",
    "within",
]

Result = TypeVar("Result")

_SPENT = re.compile(r'"\w+"\s*;\s*r\s*=\s*0\s*;\s*t\s*=\s*(\d{1,9})\b')


class Patience(Record, frozen=True, kw_only=True):
    """Seconds and attempts for one question: all of it, one silence, the connection, the pauses between."""

    deadline_s: float = 60.0
    idle_s: float = 15.0
    connect_s: float = 10.0
    retries: int = 3
    backoff_s: float = 0.5
    longest_wait_s: float = 30.0


PATIENCE = Patience()
"""What a person in front of a terminal can be asked to wait."""


class TransientFault(Exception):  # noqa: N818 - a fault that may pass, raised only between attempts
    """A fault that another attempt may not meet: ``error`` is what is raised when it does not pass."""

    def __init__(self, error: PlannerError, *, wait_s: float | None = None) -> None:
        super().__init__(error.message)
        self.error = error
        self.wait_s = wait_s


class Clock:
    """The time that is left of a deadline; raises when nothing is."""

    def __init__(self, patience: Patience, what: str) -> None:
        self._end = time.monotonic() + patience.deadline_s
        self._patience = patience
        self._what = what

    @property
    def left_s(self) -> float:
        """Seconds until the deadline, negative behind it."""
        return self._end - time.monotonic()

    def check(self) -> None:
        """Raise :class:`UnavailableError` (code ``too-slow``) once the deadline has passed."""
        if self.left_s <= 0:
            raise too_slow(self._what, self._patience)


def too_slow(what: str, patience: Patience) -> UnavailableError:
    """The error of a question that was not answered before its deadline."""
    return UnavailableError(
        f"{what}: no whole answer within {patience.deadline_s:g} s",
        hint="check the connection, or try again later",
        code="too-slow",
    )


def within(patience: Patience, what: str, question: Callable[[Clock], Result]) -> Result:
    """The answer to ``question``, or :class:`UnavailableError` (code ``too-slow``) when the deadline comes first.

    The question runs on a thread that is left behind when it hangs where no timeout reaches (the look-up of a name, a
    header that trickles in); it ends with the process.
    """
    clock = Clock(patience, what)
    answers: list[Result] = []
    faults: list[BaseException] = []

    def ask() -> None:
        try:
            answers.append(question(clock))
        except BaseException as fault:  # noqa: BLE001 - carried to the thread that waits
            faults.append(fault)

    thread = threading.Thread(target=ask, name="planner-hub", daemon=True)
    thread.start()
    # The question notices the deadline itself between two chunks; the second on top lets it say so.
    thread.join(patience.deadline_s + min(1.0, patience.deadline_s))
    if faults:
        raise faults[0]
    if not answers:
        raise too_slow(what, patience)
    return answers[0]


def persist(patience: Patience, clock: Clock, attempt: Callable[[], Result]) -> Result:
    """The result of ``attempt``, tried again after each :class:`TransientFault` with growing pauses.

    A pause that the server asks for is kept when it is no longer than ``longest_wait_s`` and ends before the deadline;
    else its fault is raised at once.
    """
    for number in range(patience.retries + 1):
        try:
            return attempt()
        except TransientFault as fault:
            pause_s = fault.wait_s if fault.wait_s is not None else patience.backoff_s * 2**number
            if number == patience.retries or pause_s > min(patience.longest_wait_s, clock.left_s):
                raise fault.error from None
            time.sleep(pause_s)
    raise AssertionError  # the last attempt returns or raises


def retry_after_s(headers: Mapping[str, str]) -> float | None:
    """Seconds that an answer asks to wait, or None when it does not say.

    ``Retry-After`` as a number or a date, or Hugging Face's ``RateLimit`` with no request left (the IETF draft
    draft-ietf-httpapi-ratelimit-headers, where ``t`` is the seconds until more are given).
    """
    spent = _SPENT.search(headers.get("ratelimit") or "")
    if spent is not None:
        return float(spent[1]) + 1.0  # the seconds are rounded down
    text = (headers.get("retry-after") or "").strip()
    if text.isdecimal() and len(text) < 10:
        return float(text)
    try:
        when = email.utils.parsedate_to_datetime(text)
    except (TypeError, ValueError):
        return None
    return max(0.0, when.timestamp() - time.time())


def rate_limited(what: str, wait_s: float | None, remedy: str = "") -> PlannerError:
    """The error of a server that answers 429, saying when to come back where it said so, and what raises the limit."""
    when = f"in {wait_s:.0f} s" if wait_s is not None else "in a few minutes"
    return PlannerError(
        f"{what}: too many requests, the server asks to wait",
        hint=f"try again {when}{remedy}",
        code="rate-limited",
        exit_code=ExitCode.BUSY,
    )
