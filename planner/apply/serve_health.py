"""Whether a server is ready: asked of the server itself, with a short patience each time.

The mistake it prevents is taking an open port for a server that answers: llama-server listens while it still loads,
and says 503 to everything until it has.
"""

from types import TracebackType
from typing import Any, Literal, NamedTuple, Self

__all__ = ["Health", "HealthCheck", "HealthState"]

HealthState = Literal["ready", "loading", "silent", "strange"]
"""``silent``: nobody answered in time or at all; ``strange``: an answer that no such server gives."""


class Health(NamedTuple):
    """One answer."""

    state: HealthState
    detail: str = ""


class HealthCheck:
    """Asks ``url`` + ``path`` again and again; use as a context manager."""

    def __init__(self, url: str, path: str, *, patience_s: float = 2.0) -> None:
        import httpx2  # noqa: PLC0415 - takes longer to import than most commands take

        self._path = path
        self._error: type[Exception] = httpx2.HTTPError
        # No proxy from the environment: this server is on this machine.
        # And a connection each: one that the server closes meanwhile would look like silence.
        limits = httpx2.Limits(max_keepalive_connections=0)
        self._client: Any = httpx2.Client(base_url=url, timeout=patience_s, trust_env=False, limits=limits)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._client.close()

    def ask(self) -> Health:
        """The server's state now; never raises, takes at most the patience."""
        try:
            answer = self._client.get(self._path)
        except self._error as error:
            return Health("silent", str(error) or type(error).__name__)
        if answer.status_code == 200:
            return Health("ready")
        if answer.status_code == 503:
            return Health("loading")
        return Health("strange", f"{self._path} answers {answer.status_code}")
