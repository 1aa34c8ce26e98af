"""What an operation raises when the answer is "no": the kinds of failure that travel back as words, not as a crash.

It prevents a refusal of the engine (a broken file, an impossible setting) from being reported as a bug of ours.
"""

from __future__ import annotations

__all__ = ["NotEnoughMemory", "Refused", "Usage", "WorkerError"]


class WorkerError(Exception):
    """An expected failure; ``kind`` is the word that the parent turns into its own error."""

    kind = "bug"


class Refused(WorkerError):  # noqa: N818 - the engine's verdict, and the word used in the protocol
    """The engine looked at the question and said no; the message carries its own log lines."""

    kind = "refused"


class Usage(WorkerError):  # noqa: N818 - the word used in the protocol
    """The request's arguments make no sense, whatever the engine would say."""

    kind = "usage"


class NotEnoughMemory(WorkerError):  # noqa: N818 - the word used in the protocol
    """The engine reported that an allocation failed and lived to tell."""

    kind = "memory"
