"""One GET over huggingface_hub's own HTTP client: same proxies, same certificates, same offline switch.

Redirects are followed here, one by one, because three things hang on each: the token stays with its origin, an
encrypted address never leads to an open one, and what the hub says about the file stands on the redirect itself.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from urllib.parse import urljoin, urlsplit

import msgspec

from planner import __version__
from planner.errors import UnavailableError
from planner.hub import library
from planner.hub.access import Access
from planner.hub.faults import Place, broken, fault_of
from planner.hub.patience import Clock, Patience, TransientFault, persist, within

__all__ = ["Answer", "Transport", "read_json"]

_MOST_REDIRECTS = 5
_CHUNK_BYTES = 1 << 16
_LONGEST_JSON_BYTES = 32 << 20


class Answer:
    """One answer: ``status``, ``url`` that gave it, its ``headers``, and ``linked``: what redirects on the way said."""

    def __init__(self, response: Any, url: str, linked: Mapping[str, str]) -> None:  # noqa: ANN401 - httpx or httpx2
        self.status = int(response.status_code)
        self.url = url
        self.headers: Mapping[str, str] = response.headers
        self.linked = linked
        self._response = response

    def chunks(self) -> Iterator[bytes]:
        """The body as it comes, never decoded: positions in it are positions in the file."""
        yield from self._response.iter_raw(_CHUNK_BYTES)


class Transport:
    """GET requests for one place, each within the time that is left; ``requests`` counts them, redirects included."""

    def __init__(self, access: Access, place: Place, patience: Patience, clock: Clock) -> None:
        self.access = access
        self.place = place
        self.requests = 0
        self._patience = patience
        self._clock = clock

    @contextmanager
    def get(self, url: str, headers: Mapping[str, str] | None = None) -> Iterator[Answer]:
        """An answer whose body is read inside the ``with``; leaving early ends the connection.

        Raises :class:`TransientFault` for what another attempt may not meet, PlannerError for the rest. Statuses in the
        200s, 412 and 416 are answers, everything else is a fault.
        """
        linked: dict[str, str] = {}
        try:
            for _ in range(_MOST_REDIRECTS + 1):
                with self._send(url, headers or {}) as response:
                    linked |= {name.lower(): text for name, text in response.headers.items() if _tells(name)}
                    if response.status_code not in {301, 302, 303, 307, 308}:
                        self._refuse(response)
                        yield Answer(response, url, linked)
                        return
                    url = self._next(url, response.headers.get("location"))
        except (TransientFault, UnavailableError):
            raise
        except Exception as error:
            fault = broken(error, urlsplit(url).hostname or "the server", self.place.name)
            if fault is None:
                raise
            raise fault from None
        raise UnavailableError(
            f"{self.place.name}: sent on more than {_MOST_REDIRECTS} times", hint="try again later", code="redirects"
        )

    def _send(self, url: str, headers: Mapping[str, str]) -> Any:  # noqa: ANN401 - the client's context manager
        self._clock.check()
        self.requests += 1
        left_s = max(0.1, self._clock.left_s)
        connect_s, idle_s = min(self._patience.connect_s, left_s), min(self._patience.idle_s, left_s)
        return library.session().stream(
            "GET",
            url,
            headers={
                "user-agent": f"llama-planner/{__version__}",
                "accept-encoding": "identity",
                **headers,
                **self.access.headers_for(url),
            },
            timeout=(connect_s, idle_s, idle_s, connect_s),
            follow_redirects=False,
        )

    def _refuse(self, response: Any) -> None:  # noqa: ANN401 - httpx or httpx2
        status = int(response.status_code)
        if not (200 <= status < 300 or status in {412, 416}):
            raise fault_of(status, response.headers, self.place)

    def _next(self, url: str, location: str | None) -> str:
        try:
            target = urljoin(url, location or "")
            scheme = urlsplit(target).scheme.lower()
        except ValueError:
            target = scheme = ""
        opened = scheme == "http" and url.lower().startswith("https:")
        if not location or scheme not in {"http", "https"} or opened:
            raise UnavailableError(
                f"{self.place.name}: sent on to {'an unencrypted' if opened else 'no usable'} address",
                hint="check the endpoint",
                code="redirects",
            )
        return target


def _tells(name: str) -> bool:
    return name.lower() in {"x-linked-etag", "x-linked-size", "x-repo-commit"}


def read_json(url: str, access: Access, place: Place, patience: Patience) -> Any:  # noqa: ANN401 - JSON of a stranger
    """The JSON document at ``url``, at most 32 MiB, tried again as ``patience`` allows.

    Raises PlannerError: what :class:`Transport` raises, and UnavailableError for an answer that is no JSON.
    """

    def question(clock: Clock) -> Any:  # noqa: ANN401 - the same
        transport = Transport(access, place, patience, clock)
        return persist(patience, clock, lambda: _document(transport, url, clock))

    return within(patience, place.name, question)


def _document(transport: Transport, url: str, clock: Clock) -> Any:  # noqa: ANN401 - the same
    body = bytearray()
    with transport.get(url, {"accept": "application/json"}) as answer:
        for chunk in answer.chunks():
            clock.check()
            body += chunk
            if len(body) > _LONGEST_JSON_BYTES:
                break
    try:
        # What was cut at the bound is no document either.
        return msgspec.json.decode(bytes(body))
    except (UnicodeDecodeError, msgspec.DecodeError) as error:
        raise UnavailableError(
            f"{transport.place.name}: the answer is no listing", hint="check the endpoint", code="unexpected-answer"
        ) from error
