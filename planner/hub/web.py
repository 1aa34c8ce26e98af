"""One model file, or one split set, at an https address: there is no listing, so each part is asked for one byte.

That answer holds what a listing would: the size of the file, its ETag, and whether it is there at all.
"""

import re
from urllib.parse import urlsplit

import msgspec

from planner.errors import MissingInputError
from planner.hub.access import Access
from planner.hub.faults import Place
from planner.hub.names import artifacts_of, split_of
from planner.hub.patience import Clock, Patience, persist, within
from planner.hub.transport import Transport
from planner.types.artifact import Part, Reference, Repository

__all__ = ["access", "list_address", "place_of"]

_TOTAL = re.compile(r"bytes 0-0/(\d{1,18})", re.IGNORECASE)


def access(url: str) -> Access:
    """Nobody: no secret is sent to an address that a user typed."""
    return Access(url)


def place_of(url: str) -> Place:
    """What messages call an address."""
    return Place(name=url)


def list_address(reference: Reference, patience: Patience) -> Repository:
    """The file at an address, with all its sisters when it is one of a split set.

    Raises PlannerError: not there (66), not permitted (77), rate limited (75), unreachable (69).
    """
    url = reference.url or ""
    split = split_of(url)
    if split is None:
        parts = [_probed(url, patience)]
    else:
        urls = [f"{split.prefix}-{number:05}-of-{split.count:05}.gguf" for number in range(1, split.count + 1)]
        parts = [part for each in urls if (part := _probed_if_there(each, patience)) is not None]
        if not parts:
            raise MissingInputError(f"{url}: there is no such file", hint="check the address", code="not-found")
    return Repository(hub="url", name=url, page=None, artifacts=artifacts_of(parts, hub="url"), commit=None, gated=None)


def _probed_if_there(url: str, patience: Patience) -> Part | None:
    try:
        return _probed(url, patience)
    except MissingInputError:
        return None


def _probed(url: str, patience: Patience) -> Part:
    def question(clock: Clock) -> Part:
        transport = Transport(access(url), place_of(url), patience, clock)
        return persist(patience, clock, lambda: _facts(transport, url))

    return within(patience, url, question)


def _facts(transport: Transport, url: str) -> Part:
    path = urlsplit(url).path.lstrip("/")
    part = Part(path=path, url=url)
    with transport.get(url, {"range": "bytes=0-0"}) as answer:
        total = _TOTAL.fullmatch((answer.headers.get("content-range") or "").strip())
        length = answer.headers.get("content-length") or ""
        size = int(total[1]) if total else int(length) if answer.status == 200 and length.isdecimal() else None
        return msgspec.structs.replace(part, size_bytes=size, etag=answer.headers.get("etag"))
