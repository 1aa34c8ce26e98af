"""Moves the body of one file over the network into an :class:`Arrival`: by ranges, from where the last try ended.

The mistake it prevents is trusting one connection with fifty gigabytes. A cut goes on where it was, an address that
expired is asked for anew, a body in the wrong place or of the wrong length never mixes with the right one, and a server
that sends a byte now and then is left: no timeout of an HTTP client counts there.
"""

import re
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from planner.errors import FileIOError, PlannerError, UnavailableError
from planner.hub.access import Access
from planner.hub.arrival import Arrival
from planner.hub.faults import Place, refusal
from planner.hub.patience import Clock, Patience, TransientFault
from planner.hub.transport import Answer, Transport
from planner.types import Record

__all__ = ["PACE", "TRANSFER", "Came", "Pace", "Watch", "transfer"]

Watch = Callable[[str, str, int, int], None]
"""Called with what happens (``fetching``, ``checking``, ``waiting``), the file, bytes done and bytes in all."""


class Came(NamedTuple):
    """A file that is there: where, its hash, whether the hub names the same, the bytes that came and were resumed."""

    path: Path
    sha256: str
    compared: bool
    received_bytes: int
    resumed_bytes: int


TRANSFER = Patience(
    deadline_s=30 * 86_400.0, idle_s=30.0, connect_s=15.0, retries=4, backoff_s=1.0, longest_wait_s=120.0
)
"""For a transfer there is no deadline worth the name; each silence and each pause has one."""

_PIECE_BYTES = 8 << 30
"""The most that one request asks for: content servers have limits of tens of gigabytes, signed addresses expire."""
_PROGRESS_BYTES = 1 << 20
"""An attempt that brought this much does not count as failed."""
_LOOK_S = 0.1
_CONTENT_RANGE = re.compile(r"bytes (\d{1,18})-(\d{1,18})/(\d{1,18}|\*)", re.IGNORECASE)


class Pace(Record, frozen=True, kw_only=True):
    """The slowest that is waited for: so many bytes in each window of so many seconds."""

    window_s: float = 60.0
    window_bytes: int = 64 << 10


PACE = Pace()


def transfer(
    url: str,
    arrival: Arrival,
    access: Access,
    place: Place,
    *,
    patience: Patience = TRANSFER,
    pace: Pace = PACE,
    watch: Watch | None = None,
) -> None:
    """Fill ``arrival`` from ``url`` to its last byte.

    Raises PlannerError: cut off, too slow or out of service (69), rate limited (75), a file of another length (69,
    ``wrong-length``), a disk that is full (74). What arrived before stays in the arrival.
    """
    failures = 0
    clock = Clock(patience, place.name)
    # Without a page, because only the hub gates: what a content server forbids is an address that has expired.
    content = Place(name=place.name, sign_in=place.sign_in, signed_in=place.signed_in)
    while not arrival.whole:
        before = arrival.received
        try:
            _attempt(url, arrival, Transport(access, content, patience, clock), pace, watch)
        except TransientFault as fault:
            failures = 1 if arrival.received - before >= _PROGRESS_BYTES else failures + 1
            pause_s = fault.wait_s if fault.wait_s is not None else patience.backoff_s * 2 ** (failures - 1)
            if failures > patience.retries or pause_s > patience.longest_wait_s:
                raise fault.error from None
            time.sleep(pause_s)
        except PlannerError as error:
            if error.code == "gated":
                raise refusal(403, {"x-error-code": "GatedRepo"}, place) from None
            raise


def _attempt(url: str, arrival: Arrival, transport: Transport, pace: Pace, watch: Watch | None) -> None:
    """One request on a thread of its own, watched from here: what hangs is left behind and can write no more."""
    faults: list[BaseException] = []
    gone = threading.Event()

    def ask() -> None:
        try:
            _piece(url, arrival, transport, gone)
        except BaseException as fault:  # noqa: BLE001 - carried to the thread that waits
            faults.append(fault)

    thread = threading.Thread(target=ask, name="planner-transfer", daemon=True)
    thread.start()
    try:
        _watch(thread, arrival, transport.place, pace, watch)
    finally:
        gone.set()
    if faults:
        raise faults[0]


def _watch(thread: threading.Thread, arrival: Arrival, place: Place, pace: Pace, watch: Watch | None) -> None:
    since, held = time.monotonic(), arrival.received
    while thread.is_alive():
        thread.join(_LOOK_S)
        if watch is not None:
            watch("fetching", place.name, arrival.held, arrival.size_bytes)
        if time.monotonic() - since >= pace.window_s:
            if thread.is_alive() and arrival.received - held < pace.window_bytes:
                slow = f"{place.name}: less than {pace.window_bytes} bytes arrived in {pace.window_s:g} s"
                raise TransientFault(
                    UnavailableError(slow, hint="check the connection, or try again later", code="too-slow")
                )
            since, held = time.monotonic(), arrival.received
    if watch is not None:
        watch("fetching", place.name, arrival.held, arrival.size_bytes)


def _piece(url: str, arrival: Arrival, transport: Transport, gone: threading.Event) -> None:
    start = arrival.held
    end = min(start + _PIECE_BYTES, arrival.size_bytes)
    try:
        with transport.get(url, {"range": f"bytes={start}-{end - 1}"}) as answer:
            _agree(answer, arrival, start, transport.place)
            if answer.status == 200:
                end = arrival.size_bytes
            _take(answer, arrival, end, transport.place, gone)
    except PlannerError as error:
        if not isinstance(error, FileIOError) and error.code in {"not-permitted", "not-found"}:
            # The hub has just shown the way, so it is the address it gave that was refused: it may have expired.
            raise TransientFault(_refused(transport.place)) from None
        raise
    if arrival.held < end and not gone.is_set():
        raise TransientFault(_wrong(transport.place, "ended early", code="cut-off"))


def _take(answer: Answer, arrival: Arrival, end: int, place: Place, gone: threading.Event) -> None:
    at = arrival.held
    for chunk in answer.chunks():
        if gone.is_set():
            return
        if at + len(chunk) > end:
            raise TransientFault(_wrong(place, "sent more than was asked for", code="wrong-length"))
        if not arrival.write(chunk, at):
            raise TransientFault(_wrong(place, "answered twice", code="cut-off"))
        at += len(chunk)


def _agree(answer: Answer, arrival: Arrival, start: int, place: Place) -> None:
    """Compare the answer with what was asked for, before a byte of it is kept."""
    if answer.headers.get("content-encoding", "identity").lower() != "identity":
        raise TransientFault(_wrong(place, "compressed the file, so that positions in it mean nothing"))
    if answer.status in {412, 416}:
        arrival.restart()
        raise TransientFault(_wrong(place, "has no such range of the file", code="wrong-length"))
    total: int | None
    if answer.status == 206:
        match = _CONTENT_RANGE.fullmatch((answer.headers.get("content-range") or "").strip())
        if match is None or int(match[1]) != start:
            raise TransientFault(_wrong(place, "sent another range than the one asked for"))
        total = None if match[3] == "*" else int(match[3])
    else:
        length = answer.headers.get("content-length") or ""
        total = int(length) if length.isdecimal() and len(length) < 19 else None
    if total is not None and total != arrival.size_bytes:
        listed = f"has a file of {total} bytes where {arrival.size_bytes} are listed"
        raise TransientFault(_wrong(place, listed, code="wrong-length"))
    if answer.status != 206 and start:
        arrival.restart()  # it ignores ranges and sends the whole file


def _refused(place: Place) -> UnavailableError:
    return UnavailableError(
        f"{place.name}: the content server refused the address that the hub gave",
        hint="try again; if it stays so, check the clock of this machine and the proxy",
        code="refused-address",
    )


def _wrong(place: Place, what: str, *, code: str = "unexpected-answer") -> UnavailableError:
    return UnavailableError(f"{place.name}: the server {what}", hint="try again later", code=code)
