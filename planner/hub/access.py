"""Who we are towards one server: its origin and the headers that go there and nowhere else.

The mistake it prevents is a token on the wrong wire: it is sent to the very origin it belongs to, never follows a
redirect to a content server, and cannot be printed by accident.
"""

import os
from collections.abc import Mapping
from urllib.parse import urlsplit

from planner.errors import UsageError

__all__ = ["Access", "endpoint_from", "is_true", "origin_of"]


def origin_of(url: str) -> str:
    """Scheme, host and port of an address, as one comparable text."""
    parts = urlsplit(url)
    port = parts.port or {"http": 80, "https": 443}.get(parts.scheme.lower())
    return f"{parts.scheme.lower()}://{(parts.hostname or '').lower()}:{port}"


def is_true(value: str | None) -> bool:
    """Whether an environment variable is switched on, in huggingface_hub's reading of it."""
    return (value or "").upper() in {"1", "ON", "YES", "TRUE"}


def endpoint_from(variable: str, default: str) -> str:
    """The address of a hub from an environment variable, without a slash at its end.

    Raises :class:`UsageError` for what is no address, or one with a password in it.
    """
    text = (os.environ.get(variable) or "").strip() or default
    endpoint = (text if "://" in text else f"https://{text}").rstrip("/")
    try:
        parts = urlsplit(endpoint)
        _ = parts.port
    except ValueError as error:
        raise UsageError(f"{variable} is no address", hint=f"set it to an address such as {default}") from error
    if parts.scheme.lower() not in {"http", "https"} or not parts.hostname or parts.username or parts.query:
        raise UsageError(f"{variable} is no plain https address", hint=f"set it to an address such as {default}")
    return endpoint


class Access:
    """What to send along to one endpoint: the headers of :meth:`headers_for` and nothing else carries the secret."""

    __slots__ = ("_headers", "endpoint", "origin")

    def __init__(self, endpoint: str, headers: Mapping[str, str] | None = None) -> None:
        self.endpoint = endpoint
        self.origin = origin_of(endpoint)
        self._headers = dict(headers or {})

    def __repr__(self) -> str:
        return f"Access({self.origin}, {'signed in' if self.signed_in else 'anonymous'})"

    @property
    def signed_in(self) -> bool:
        """Whether there is a secret to send at all."""
        return bool(self._headers)

    def headers_for(self, url: str) -> dict[str, str]:
        """The headers that may go to this address: the secret only to the origin it belongs to."""
        return dict(self._headers) if origin_of(url) == self.origin else {}
