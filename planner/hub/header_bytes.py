"""Reads the header of a model file over the network: its first bytes, as few as tell all, and never the weights.

Where a header ends is known only by walking it, so what has arrived is walked while the rest is on its way, and the
connection is left as soon as the walk ends. Three ranges that follow each other (1 MiB, 8 MiB, 20 MB) cover every
vocabulary known; with the hub's redirect that makes four requests. A later range asks the server that answered the
first one, names its ETag, and so notices a file that was changed in between.
"""

import re
from typing import NamedTuple

from planner.errors import BadInputError, ExitCode, PlannerError, UnavailableError
from planner.gguf import LIMITS, Incomplete, walk_header
from planner.hub.access import Access
from planner.hub.faults import Place
from planner.hub.patience import PATIENCE, Clock, Patience, TransientFault, persist, within
from planner.hub.transport import Answer, Transport
from planner.types.artifact import Part

__all__ = ["HeaderBytes", "read_header", "strong_etag"]

_STAGES_BYTES = (1 << 20, 8 << 20, 20_000_000, 40_000_000, LIMITS.header_bytes)
_LATER_PART_BYTES = 128 << 10
_WALK_AGAIN_BYTES = 2 << 20
"""How much has to arrive before the walk starts over: eight walks for the largest header known, half a second."""

_MOST_REQUESTS = 40
"""Where a server that answers each range with a little of it is left; retries and redirects are counted too."""

_CONTENT_RANGE = re.compile(r"bytes (\d{1,18})-(\d{1,18})/(\d{1,18}|\*)", re.IGNORECASE)
_SHA256 = re.compile(r"[0-9a-f]{64}")


class HeaderBytes(NamedTuple):
    """A header and what was learnt on the way: the whole file's size, its ETag and commit, the traffic it took."""

    data: bytes
    file_bytes: int | None
    etag: str | None
    commit: str | None
    requests: int
    received_bytes: int


class _ChangedError(Exception):
    """The file is another one than a moment ago: what was read so far belongs to the old one."""


def read_header(
    part: Part,
    access: Access,
    place: Place,
    *,
    commit: str | None = None,
    first: bool = True,
    patience: Patience = PATIENCE,
) -> HeaderBytes:
    """The header of ``part``, walked and whole; ``first`` is False for a later part of a split set, whose is short.

    Raises BadInputError for a header that is wrong, MissingInputError for a file that is not there, and PlannerError
    with the codes of :mod:`planner.hub.faults` for the rest.
    """

    def question(clock: Clock) -> HeaderBytes:
        requests = received = 0
        for _ in range(2):
            reading = _Reading(part, Transport(access, place, patience, clock), clock, commit=commit, first=first)
            try:
                persist(patience, clock, reading.advance)
            except _ChangedError:
                requests, received = requests + reading.transport.requests, received + reading.received_bytes
                continue
            requests, received = requests + reading.transport.requests, received + reading.received_bytes
            return reading.result(requests, received)
        raise _changed(place)

    return within(patience, place.name, question)


class _Reading:
    """The bytes held so far, and what every further answer has to agree with."""

    def __init__(self, part: Part, transport: Transport, clock: Clock, *, commit: str | None, first: bool) -> None:
        self.transport = transport
        self.received_bytes = 0
        self._part = part
        self._clock = clock
        self._commit = commit
        self._url = part.url or ""
        self._held = bytearray()
        self._header: bytes | None = None
        self._walk_at = 0
        self._total = part.size_bytes
        self._etag: str | None = None
        self._linked: str | None = None
        self._stages = _STAGES_BYTES if first else (_LATER_PART_BYTES, *_STAGES_BYTES)

    def result(self, requests: int, received_bytes: int) -> HeaderBytes:
        """What was read, with the traffic of all attempts together."""
        etag = self._linked or self._etag
        return HeaderBytes(self._header or b"", self._total, etag, self._commit, requests, received_bytes)

    def advance(self) -> None:
        """Ask for range after range until the header is whole; called again after a cut, it goes on where it was."""
        while self._header is None:
            end = next((stage for stage in self._stages if stage > len(self._held)), None)
            if end is None:
                raise self._bad(f"its header is longer than {LIMITS.header_bytes} bytes")
            self._range(end if self._total is None else min(end, self._total))

    def _range(self, end: int) -> None:
        start = len(self._held)
        if self.transport.requests >= _MOST_REQUESTS:
            raise self._wrong("sends the file in too many small pieces")
        if start >= end:
            raise self._bad(f"the file ends after {start} bytes, inside its header")
        headers = {"range": f"bytes={start}-{end - 1}"}
        if start and strong_etag(self._etag):
            headers["if-range"] = self._etag or ""
        try:
            with self.transport.get(self._url, headers) as answer:
                skip = self._agree(answer, start)
                # A server that ignores ranges sends the whole file: one answer is enough, and is left early.
                self._take(answer, skip, end if answer.status == 206 else LIMITS.header_bytes)
        except PlannerError as error:
            if (
                start
                and self._url != self._part.url
                and error.exit_code in {ExitCode.NOT_PERMITTED, ExitCode.MISSING_INPUT}
            ):
                # The address that the hub had sent us on to has expired: the hub gives a new one.
                self._url = self._part.url or ""
                raise TransientFault(error, wait_s=0.0) from None
            raise
        if self._header is None and start == len(self._held):
            raise TransientFault(self._wrong("sent nothing of the range that was asked for"))

    def _take(self, answer: Answer, skip: int, end: int) -> None:
        for received in answer.chunks():
            self._clock.check()
            self.received_bytes += len(received)
            chunk = received[skip:]
            skip = max(0, skip - len(received))
            self._held += chunk[: end - len(self._held)]
            if len(self._held) >= min(self._walk_at or 24, end) and self._whole():
                return
            if len(self._held) >= end:
                break
        if self._header is None:
            self._whole()

    def _whole(self) -> bool:
        """Walk what is there; when it is not enough, note when to walk again."""
        try:
            walked = walk_header(bytes(self._held), file_bytes=self._total)
        except Incomplete as more:
            self._walk_at = max(more.needed_bytes, len(self._held) + _WALK_AGAIN_BYTES)
            return False
        except BadInputError as error:
            raise BadInputError(
                f"{self.transport.place.name}: {error.message}", hint=error.hint, code=error.code
            ) from error
        self._header = bytes(self._held[: walked.header_bytes])
        return True

    def _agree(self, answer: Answer, start: int) -> int:
        """Bytes of the body to pass over, after comparing the answer with all that is known of the file."""
        if answer.headers.get("content-encoding", "identity").lower() != "identity":
            raise self._wrong("compresses the file, so that positions in it mean nothing")
        total: int | None
        if answer.status == 206:
            match = _CONTENT_RANGE.fullmatch((answer.headers.get("content-range") or "").strip())
            if match is None or int(match[1]) != start:
                raise self._wrong("sent another range than the one asked for")
            total, skip = (None if match[3] == "*" else int(match[3])), 0
        elif answer.status == 200:
            length = answer.headers.get("content-length") or ""
            total, skip = (int(length) if length.isdecimal() and len(length) < 19 else None), start
        else:
            raise _ChangedError  # 412 and 416: the file has another ETag, or ends before what we hold
        self._compare(answer, total)
        self._url = answer.url
        return skip

    def _compare(self, answer: Answer, total: int | None) -> None:
        etag = (answer.headers.get("etag") or "").strip() or None
        if self._held and (
            (self._etag and etag and etag != self._etag) or (total and self._total and total != self._total)
        ):
            raise _ChangedError
        if total is not None and self._total is not None and total != self._total:
            raise self._wrong(f"has a file of {total} bytes where {self._total} are listed", code="wrong-length")
        linked = _bare(answer.linked.get("x-linked-etag"))
        commit = (answer.linked.get("x-repo-commit") or "").lower()
        if _differ(linked, self._part.sha256, _SHA256) or _differ(commit, self._commit, re.compile(r"[0-9a-f]{40}")):
            raise _changed(self.transport.place)
        self._total = self._total if total is None else total
        self._etag = self._etag or etag
        self._linked = self._linked or linked

    def _bad(self, what: str) -> BadInputError:
        return BadInputError(
            f"{self.transport.place.name}: {what}", hint="it is no model file, or a broken one", code="bad-gguf"
        )

    def _wrong(self, what: str, *, code: str = "unexpected-answer") -> UnavailableError:
        return UnavailableError(f"{self.transport.place.name}: the server {what}", hint="try again later", code=code)


def strong_etag(etag: str | None) -> bool:
    """Whether an ETag promises the same bytes: the only kind that may be named in a condition on a range."""
    return etag is not None and etag.startswith('"')


def _bare(etag: str | None) -> str | None:
    return (etag or "").strip().removeprefix("W/").strip('"').lower() or None


def _differ(said: str | None, known: str | None, form: re.Pattern[str]) -> bool:
    if said is None or known is None:
        return False
    return bool(form.fullmatch(said) and form.fullmatch(known.lower()) and said != known.lower())


def _changed(place: Place) -> PlannerError:
    return PlannerError(
        f"{place.name} was changed while it was read",
        hint="try again",
        code="changed",
        exit_code=ExitCode.BUSY,
    )
