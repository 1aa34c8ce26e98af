"""What ``planner serve`` started, and how it ended."""

from typing import Literal

from planner.types import Report

__all__ = ["Death", "ServeReport", "ServerKind"]

ServerKind = Literal["llama-server", "llama-cpp-python"]
"""The program that answers: llama.cpp's own server, or the one of its Python binding."""


class Death(Report, frozen=True, kw_only=True):
    """One end of a server that nobody asked for: ``how`` in words, seconds after its start, whether it was ready."""

    how: str
    after_s: float
    was_ready: bool


class ServeReport(Report, frozen=True, kw_only=True):
    """The document of ``planner serve``, printed when it ends.

    ``stopped_by`` is the signal that ended it. ``deaths`` were each followed by a restart. ``ready_after_s`` is what
    the first start took until the server answered.
    """

    schema: str = "planner/serve/1"
    name: str
    server: ServerKind
    url: str
    weights: str
    phantom: bool
    log: str
    stopped_by: str | None
    ready_after_s: float
    served_s: float
    deaths: tuple[Death, ...] = ()
