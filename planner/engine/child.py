"""The engine's child process, seen from planner: ask a question, get the answer or a named error.

All native code runs in the child, because no ``try`` survives a failed assertion in ggml: a 361-byte file is enough
to abort the process that opens it. The mistake this module prevents is a planner that dies, hangs or blames the wrong
thing with its engine. A start costs a fraction of a second and a question milliseconds, so one child answers many.
"""

import errno
import os
import signal
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from planner.engine.death import HowItDied, how_it_ended, last_line, obituary
from planner.engine.oom import OomWatch
from planner.engine.process import WorkerProcess, child_environment
from planner.engine.protocol import Failure, NotAReplyError, Reply, Request, decode_reply
from planner.errors import (
    EngineDiedError,
    EngineError,
    EngineMissingError,
    PlannerError,
    UnavailableError,
    UsageError,
)

__all__ = ["WORKER", "EngineChild", "OnEvent"]

OnEvent = Callable[[dict[str, object]], None]

WORKER: Final = Path(__file__).with_name("worker")

_START_DEADLINE_S: Final = 30.0
"""A bare interpreter starts in 0.05 s; a network file system on a bad day takes many seconds."""
_EXIT_AFTER_LAST_WORD_S: Final = 0.5
"""A process closes its pipes a moment before it is dead; a GPU driver makes that moment long."""
_NO_SUCH_INTERPRETER: Final = {errno.ENOENT, errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.ENOEXEC, errno.ELOOP}
_REMEDY: Final = (
    "pip install 'llama-planner[engine]', or --engine-python PATH of a Python 3.9 or newer with llama-cpp-python"
)


class EngineChild:
    """A worker under ``python`` (default: this interpreter), started by the first question; a context manager.

    ``env`` is added to the allow-listed environment; ``worker`` is another folder to run instead of ours. It lives
    until :meth:`close`, and after a death the next question starts a new one. It belongs to one thread at a time.
    """

    def __init__(
        self, python: str | None = None, *, env: Mapping[str, str] | None = None, worker: Path | None = None
    ) -> None:
        self._python = python or sys.executable
        self._env = dict(env or {})
        self._worker = worker or WORKER
        self._process: WorkerProcess | None = None
        self._last_id = 0
        self._oom: OomWatch | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    @property
    def alive(self) -> bool:
        """Whether a worker runs at this moment."""
        return self._process is not None and not self._process.has_exited()

    @property
    def pid(self) -> int | None:
        """The running worker's process number; ``None`` when none runs."""
        return self._process.pid if self._process is not None and self.alive else None

    def ask(
        self,
        op: str,
        args: Mapping[str, object] | None = None,
        *,
        deadline_s: float = 30.0,
        on_event: OnEvent | None = None,
    ) -> dict[str, object]:
        """The worker's result of the operation ``op``; starts a worker if none runs.

        ``deadline_s`` counts from the moment the worker is up, ``on_event`` sees each progress event. Raises
        :class:`EngineError` when the engine refuses, :class:`EngineMissingError` when there is none,
        :class:`EngineDiedError` when it died over the question or gave no answer in time (known at most 2 s later,
        nothing of it left running), :class:`UsageError` for arguments that make no sense, and a bare
        :class:`PlannerError` for a bug of ours. Whatever else is raised meanwhile (Ctrl-C) ends the worker too.
        """
        try:
            process = self._started()
            process.drain()
            process.forget_stderr()
            self._oom = OomWatch(process.pid)
            self._last_id += 1
            request = Request(id=self._last_id, op=op, args=dict(args or {}))
            process.send(request.encode())
            reply = self._await(process, request.id, asked=op, deadline_s=deadline_s, on_event=on_event)
        except BaseException:
            self._discard()
            raise
        if reply.error is not None:
            raise self._failure(op, reply.error)
        return reply.ok or {}

    def close(self) -> None:
        """End the worker, if one runs, and everything it started; asking again starts a new one."""
        process, self._process = self._process, None
        if process is not None:
            process.dismiss()

    def _discard(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.kill()

    def _started(self) -> WorkerProcess:
        """The running worker, or a new one once it has said hello."""
        if self.alive and self._process is not None:
            return self._process
        self._discard()
        # -E keeps PYTHONPATH and the like out; unlike -I it leaves the user's site-packages, where pip may have put
        # llama_cpp. A folder that is run comes first in sys.path, and the working directory not at all.
        argv = [self._python, "-E", "-X", "faulthandler", str(self._worker)]
        try:
            process = self._process = WorkerProcess(argv, child_environment(os.environ, self._env))
        except OSError as error:
            reason = error.strerror or error
            if error.errno not in _NO_SUCH_INTERPRETER:
                hint = "close some programs and run it again"
                raise UnavailableError(f"cannot start the engine's process: {reason}", hint=hint) from error
            raise EngineMissingError(f"cannot run the Python {self._python!r}: {reason}", hint=_REMEDY) from error
        self._oom = OomWatch(process.pid)
        try:
            self._await(process, 0, asked="start", deadline_s=_START_DEADLINE_S, on_event=None)
        except EngineDiedError as death:
            if death.how not in ("exit", "closed-pipe"):
                raise
            words = last_line(death.last_words.encode()) or "it ended without a word"
            raise EngineMissingError(f"{self._python!r} cannot run the engine: {words}", hint=_REMEDY) from death
        return process

    def _await(
        self, process: WorkerProcess, request_id: int, *, asked: str, deadline_s: float, on_event: OnEvent | None
    ) -> Reply:
        """The final reply to ``request_id``; raises :class:`EngineDiedError`."""
        until = time.monotonic() + deadline_s
        while True:
            # In this order: what the worker had said before it died counts, and the pipe is emptied after its death.
            dead = process.has_exited()
            if dead:
                process.drain()
            try:
                reply = _next_reply(process, request_id)
            except NotAReplyError as error:
                raise self._died(process, "garbage", asked, detail=str(error)) from error
            if reply is not None and reply.event is None:
                return reply
            if reply is not None and reply.event is not None and on_event is not None:
                on_event(reply.event)
            left_s = until - time.monotonic()
            if reply is None and (dead or not process.replies_open):
                raise self._died(process, None, asked)
            if left_s <= 0:
                raise self._died(process, "hang", asked, detail=f"more than {deadline_s:g} s")
            process.pump(0 if reply is not None else left_s)

    def _died(self, process: WorkerProcess, how: HowItDied | None, asked: str, detail: str = "") -> EngineDiedError:
        """The error for a worker that is dead, or ends here; ``how`` ``None`` lets its status decide."""
        status = None
        if how is None:
            by_itself = process.wait(_EXIT_AFTER_LAST_WORD_S)
            process.drain()
            oom_killed = self._oom is not None and self._oom.struck()
            status = process.kill()
            if not by_itself and not oom_killed and status in (-signal.SIGTERM, -signal.SIGKILL):
                status = None  # our own signals; any other status is a death that was under way
            how = how_it_ended(status, oom_killed=oom_killed)
            half = process.half_a_line_bytes
            detail = f"half a reply of {half} bytes" if half else ""
        process.kill()
        return obituary(how, asked=asked, stderr=process.stderr, status=status, detail=detail)

    def _failure(self, op: str, failure: Failure) -> PlannerError:
        """The error for a failure that the worker reported in words."""
        match failure.kind:
            case "refused":
                return EngineError(failure.message)
            case "usage":
                return UsageError(failure.message)
            case "missing-engine":
                return EngineMissingError(f"no engine in {self._python!r}: {failure.message}", hint=_REMEDY)
            case "memory":
                hint = "choose a smaller model, quantization or context"
                return EngineError(f"not enough memory: {failure.message}", hint=hint, code="engine-out-of-memory")
            case "bug":
                message = f"the engine's worker failed over {op!r}: {failure.message}"
                return PlannerError(message, hint="this is a bug of planner; please report this line")


def _next_reply(process: WorkerProcess, request_id: int) -> Reply | None:
    """The next reply that has arrived whole; raises :class:`NotAReplyError`."""
    line = process.take_line()
    return None if line is None else decode_reply(line, expected_id=request_id)
