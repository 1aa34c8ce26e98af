"""The worker's loop: one JSON request a line in, one JSON reply a line out, and every Python failure told in words.

It prevents a wrong answer from looking like a right one: each reply carries the id of its request, a value that is
not JSON is a failure, and whatever the engine prints goes elsewhere.
"""

from __future__ import annotations

import importlib
import json
import os
import queue
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from typing import Any

from errors import Usage, WorkerError

__all__ = ["PROTOCOL", "ping", "serve"]

PROTOCOL = 1

Json = dict[str, Any]
Emit = Callable[[Json], None]


def ping(args: Json, _emit: Emit) -> Json:
    """``args`` as they came, with the interpreter's version: the shortest way through the whole loop."""
    return {"python": "{}.{}.{}".format(*sys.version_info[:3]), "args": args}


def serve(operations: dict[str, str], *, requests: int, replies: int) -> None:
    """Answer requests from the descriptor ``requests`` on ``replies`` until the former ends; never returns.

    ``operations`` maps a name to ``module:function``; the module is imported by the first request that needs it, and
    the function gets the arguments and ``emit``, which sends an event ahead of the result. The greeting, reply 0,
    tells the parent that this interpreter can run the worker at all.
    """
    pipe = _Replies(replies)
    lines = _read_ahead(requests)
    pipe.write({"id": 0, "ok": {"protocol": PROTOCOL, "python": sys.version.split()[0]}})
    for line in lines:
        request = json.loads(line)
        pipe.write({"id": request["id"], **_answer(operations, request, pipe)})


class _Replies:
    """The reply pipe; whole lines only, also when an operation emits events from a thread of the engine."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._lock = threading.Lock()
        os.set_inheritable(descriptor, False)

    def write(self, message: Json) -> None:
        # Names in a foreign file may hold bytes that are no UTF-8; they become "?" here instead of broken JSON there.
        text = json.dumps(message, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
        data = memoryview(text.encode("utf-8", "replace") + b"\n")
        with self._lock:
            while data:
                data = data[os.write(self._descriptor, data) :]


def _read_ahead(requests: int) -> Iterator[bytes]:
    """The request lines. A thread waits for them, so that the end of stdin ends the worker in mid-question too."""
    waiting: queue.SimpleQueue[bytes] = queue.SimpleQueue()

    def read() -> None:
        with os.fdopen(requests, "rb") as stream:
            for line in stream:
                waiting.put(line)
        os._exit(0)  # the parent closed the pipe or is gone: destructors of a GPU driver must not delay that

    threading.Thread(target=read, name="requests", daemon=True).start()
    while True:
        yield waiting.get()


def _answer(operations: dict[str, str], request: Json, pipe: _Replies) -> Json:
    """``{"ok": result}`` or ``{"error": {kind, message}}`` of one request."""

    def emit(event: Json) -> None:
        pipe.write({"id": request["id"], "event": event})

    try:
        result = _find(operations, request["op"])(request["args"], emit)
        json.dumps(result, allow_nan=False)
    except WorkerError as error:
        return _failure(error.kind, str(error))
    except MemoryError as error:
        return _failure("memory", str(error) or "out of memory in Python")
    except Exception as error:  # noqa: BLE001 - the boundary: each exception becomes a reply
        missing = _missing_engine(error)
        return _failure("missing-engine", missing) if missing else _failure("bug", _traceback(error))
    return {"ok": result}


def _find(operations: dict[str, str], name: str) -> Callable[[Json, Emit], Json]:
    """The function behind an operation's name, its module imported."""
    if name not in operations:
        raise Usage(f"this engine worker knows no operation {name!r}")
    module, _, function = operations[name].partition(":")
    found: Callable[[Json, Emit], Json] = getattr(importlib.import_module(module), function)
    return found


def _failure(kind: str, message: str) -> Json:
    return {"error": {"kind": kind, "message": message}}


def _missing_engine(error: BaseException) -> str | None:
    """Why ``llama_cpp`` cannot be imported, or ``None`` when the failure is another.

    A package whose import failed is not in ``sys.modules``: this tells a library that does not load (no libcudart)
    from an error that the working package raised.
    """
    if isinstance(error, ModuleNotFoundError) and error.name == "llama_cpp":
        return "it has no llama_cpp"
    modules = (frame.f_globals.get("__name__", "") for frame, _ in traceback.walk_tb(error.__traceback__))
    if "llama_cpp" not in sys.modules and any(name.partition(".")[0] == "llama_cpp" for name in modules):
        return f"its llama_cpp does not load: {type(error).__name__}: {error}"
    return None


def _traceback(error: BaseException) -> str:
    """The error and its innermost places on one line: enough for a report."""
    frames = reversed(traceback.extract_tb(error.__traceback__)[-4:])
    places = ", ".join(f"{os.path.basename(frame.filename)}:{frame.lineno} {frame.name}" for frame in frames)  # noqa: PTH119 - a name, no file
    return f"{type(error).__name__}: {error} (at {places})"
