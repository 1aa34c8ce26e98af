"""One run of a server: its process group, its log, its end.

The mistakes it prevents: a server that outlives the planner, a stop that leaves children of the server behind, a wait
that never ends, and a signal sent to a process number that belongs to somebody else by then.
"""

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from io import FileIO
from pathlib import Path
from types import TracebackType
from typing import Self

from planner.apply.serve_log import ServerLog
from planner.engine.process import child_environment, has_exited

__all__ = ["GRACE_S", "ServerProcess", "server_environment"]

GRACE_S = 10.0
"""Seconds that a server has to answer what it has begun, before it is killed."""

_LAUNCHER = Path(__file__).with_name("serve_launcher.py")
_REAP_S = 5.0
_TICK_S = 0.02
_OWN = ("LLAMA_ARG_", "LLAMA_LOG_", "OMP_WAIT_POLICY")
"""Variables by which llama-server, or how its threads wait, is told otherwise: a plan is obeyed alone, not the shell it
is started from."""


def server_environment(parent: Mapping[str, str], extra: Mapping[str, str]) -> dict[str, str]:
    """What a server sees: what an engine's child sees, without llama-server's options in variables, then ``extra``.

    No secret passes, and nothing by which llama-cpp-python's server would take settings (``N_CTX``, ``MODEL``).
    """
    kept = {name: value for name, value in parent.items() if not name.startswith(_OWN)}
    return child_environment(kept, extra)


def _never() -> bool:
    return False


class ServerProcess:
    """A started server in a session and process group of its own; leaving its context ends it.

    Raises ``OSError`` when no process can be made. A program that cannot be run exits with 127 and says so in the log.
    Start it from the main thread: on Linux the kernel then kills it with the planner.
    """

    def __init__(self, argv: Sequence[str], environment: Mapping[str, str], log: ServerLog) -> None:
        self._log = log
        log.forget()
        read, write = os.pipe()
        follow = threading.current_thread() is threading.main_thread()
        try:
            self._popen = subprocess.Popen(
                [
                    *(sys.executable, "-I", "-S", str(_LAUNCHER)),
                    *(str(os.getpid()), "follow" if follow else "alone"),
                    *argv,
                ],
                env=dict(environment),
                stdin=subprocess.DEVNULL,
                stdout=write,
                stderr=write,
                start_new_session=True,
            )
        except OSError:
            os.close(read)
            raise
        finally:
            os.close(write)
        self._drained = log.drain(FileIO(read, "rb"))
        self.started_s = time.monotonic()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop(grace_s=GRACE_S if kind is None else 0.0)

    @property
    def pid(self) -> int:
        """The server's process number, which is also its group's."""
        return self._popen.pid

    @property
    def status(self) -> int | None:
        """Its exit status once it was reaped: negative for the signal that ended it."""
        return self._popen.returncode

    @property
    def log(self) -> ServerLog:
        """Where its words go."""
        return self._log

    def exited(self) -> bool:
        """Whether it is dead; it stays a zombie until :meth:`stop`."""
        return has_exited(self._popen)

    def wait(self, timeout_s: float, *, hurry: Callable[[], bool] = _never) -> bool:
        """Wait for its death, no longer once there is a ``hurry``; whether it is dead."""
        until = time.monotonic() + timeout_s
        while not self.exited():
            if time.monotonic() >= until or hurry():
                return False
            time.sleep(_TICK_S)
        return True

    def stop(self, *, grace_s: float = GRACE_S, hurry: Callable[[], bool] = _never) -> int:
        """End the whole group: SIGTERM, SIGKILL after ``grace_s`` or when there is a ``hurry``.

        Gives the exit status: its own if it was dead already.
        """
        if self._popen.returncode is None:
            try:
                if not self.exited() and grace_s > 0:
                    self._signal(signal.SIGTERM)
                    # A stopped process (SIGSTOP) takes its SIGTERM only when it goes on.
                    self._signal(signal.SIGCONT)
                    self.wait(grace_s, hurry=hurry)
            finally:
                # Also for a dead server: its children live on in the group, and its number is ours until it is reaped.
                self._signal(signal.SIGKILL)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    self._popen.wait(_REAP_S)
            self._drained.join(_REAP_S)
        return self._popen.returncode if self._popen.returncode is not None else -int(signal.SIGKILL)

    def _signal(self, number: signal.Signals) -> None:
        if self._popen.returncode is None:
            # macOS answers EPERM for a group of zombies.
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, number)
