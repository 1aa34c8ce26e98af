"""What travels between planner and the engine's child: one JSON document a line, decoded strictly.

It prevents an answer to another question, half an answer or a stray line of a native library from being taken for
the answer: whatever is not exactly one reply to this very request is refused with a reason.
"""

import json
from typing import Literal

import msgspec

from planner.types import Record

__all__ = ["MAX_LINE_BYTES", "Failure", "FailureKind", "NotAReplyError", "Reply", "Request", "decode_reply"]

MAX_LINE_BYTES = 64 * 2**20
"""The longest reply that is believed; the tensor table of a 671B model takes less than 1 MiB."""

FailureKind = Literal["refused", "usage", "missing-engine", "memory", "bug"]


class NotAReplyError(Exception):
    """A line that is no reply to the question that was asked; the text says why."""


class Request(Record, frozen=True, kw_only=True):
    """One question: the operation's name and its arguments; ``id`` comes back in each reply to it."""

    id: int
    op: str
    args: dict[str, object]

    def encode(self) -> bytes:
        """The request as one line of ASCII JSON.

        Arguments may hold paths with bytes that are no UTF-8 (lone surrogates in Python); only ``json`` carries
        them through. Raises ``TypeError`` or ``ValueError`` for an argument that JSON cannot hold.
        """
        return json.dumps(msgspec.structs.asdict(self), allow_nan=False, separators=(",", ":")).encode("ascii") + b"\n"


class Failure(Record, frozen=True, kw_only=True):
    """The worker lives and gives no result: the engine refused, or an operation failed in Python."""

    kind: FailureKind
    message: str


class Reply(Record, frozen=True, kw_only=True):
    """Exactly one of a result, a failure, or an event that announces progress before either."""

    id: int
    ok: dict[str, object] | None = None
    error: Failure | None = None
    event: dict[str, object] | None = None

    def __post_init__(self) -> None:
        if sum(part is not None for part in (self.ok, self.error, self.event)) != 1:
            raise ValueError("a reply holds exactly one of ok, error and event")


_decoder = msgspec.json.Decoder(Reply)


def decode_reply(line: bytes, *, expected_id: int) -> Reply:
    """The reply in ``line``; raises :class:`NotAReplyError` unless it answers the request ``expected_id``."""
    try:
        reply = _decoder.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise NotAReplyError(f"{error} in {line[:60]!r}") from error
    if reply.id != expected_id:
        raise NotAReplyError(f"a reply to question {reply.id} came where one to {expected_id} was due")
    return reply
