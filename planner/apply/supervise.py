"""Keeps one server alive: waits for it, watches it, starts it again after a crash, and gives up in time.

The mistakes it prevents: calling a server started that never answers, starting one for ever that dies at once, and
killing a busy one because it had no time for a question: a server counts as hung only when it neither answers nor
computes.
"""

import signal
import time
from collections.abc import Callable
from typing import NamedTuple

import psutil  # type: ignore[import-untyped, unused-ignore]

from planner.apply.serve_health import HealthCheck
from planner.apply.serve_notify import notify
from planner.apply.serve_place import PortTakenError, holder
from planner.apply.serve_process import GRACE_S, ServerProcess
from planner.apply.serve_signals import StopSignals
from planner.errors import EngineDiedError
from planner.types.serving import Death
from planner.units import duration

__all__ = ["Limits", "Served", "await_ready", "death_words", "supervise"]

_LAST_WORDS = 1200
_BUSY_SHARE = 0.02
_TAKEN = ("address already in use", "couldn't bind", "Address in use")


class Limits(NamedTuple):
    """How patient a supervisor is, all in seconds but the number of restarts within ``window_s``."""

    deadline_s: float
    grace_s: float = GRACE_S
    hang_s: float = 60.0
    poll_s: float = 0.1
    watch_s: float = 5.0
    restarts: int = 5
    window_s: float = 600.0
    backoff_s: float = 1.0
    longest_backoff_s: float = 30.0


class Served(NamedTuple):
    """A served time from the first ready answer to the signal that ended it."""

    ready_after_s: float
    served_s: float
    stopped_by: str | None
    deaths: tuple[Death, ...]


def supervise(
    start: Callable[[], ServerProcess],
    check: HealthCheck,
    limits: Limits,
    *,
    port: int,
    name: str,
    tell: Callable[[str], None],
) -> Served:
    """Serve until a signal asks for the end; only from the main thread.

    ``start`` starts a server each time it is called; ``tell`` hears a line when it is ready, dies, is started again or
    stops. Raises :class:`EngineDiedError` when the first start fails or the last restart that is allowed, and
    :class:`PortTakenError` when the server found its port taken.
    """
    with StopSignals() as signals:
        return _Supervisor(start, check, limits, signals, port, name, tell).run()


def await_ready(
    process: ServerProcess, check: HealthCheck, *, deadline_s: float, poll_s: float = 0.1, signals: StopSignals | None
) -> bool:
    """Wait until the server is ready; ``False`` when a signal asked to stop meanwhile.

    Raises :class:`EngineDiedError` when it dies or is not ready after ``deadline_s``.
    """
    until = process.started_s + deadline_s
    while True:
        health = check.ask()
        if process.exited():
            raise _died(process, death_words(process.stop()))
        if health.state == "ready":
            return True
        if signals is not None and signals.asked:
            return False
        if time.monotonic() >= until:
            process.stop(grace_s=0)
            told = f": {health.detail}" if health.detail else ""
            raise _died(process, f"was not ready after {duration(deadline_s)} ({health.state}{told})", hung=True)
        if signals is None:
            time.sleep(poll_s)
        else:
            signals.wait(poll_s)


def death_words(status: int) -> str:
    """How a process ended, in words: its exit code, or the signal."""
    if status >= 0:
        return f"ended with exit code {status}"
    try:
        name = signal.Signals(-status).name
    except ValueError:
        name = f"signal {-status}"
    likely = ", as the kernel does when memory runs out" if name == "SIGKILL" else ""
    return f"was killed by {name}{likely}"


def _died(process: ServerProcess, how: str, *, hung: bool = False) -> EngineDiedError:
    words = process.log.last_words.strip()[-_LAST_WORDS:]
    hint = f"its whole log is {process.log.path}"
    if hung:
        hint = f"give it more time with --deadline; {hint}"
    return EngineDiedError(f"the server {how}", how="hang" if hung else "crash", last_words=words, hint=hint)


class _Supervisor:
    """The loop over starts; one life of a server after the other."""

    def __init__(
        self,
        start: Callable[[], ServerProcess],
        check: HealthCheck,
        limits: Limits,
        signals: StopSignals,
        port: int,
        name: str,
        tell: Callable[[str], None],
    ) -> None:
        self._start, self._check, self._limits, self._signals = start, check, limits, signals
        self._port, self._name, self._tell = port, name, tell
        self._deaths: list[Death] = []
        self._died_at: list[float] = []
        self._ready_after_s = 0.0
        self._ready_at: float | None = None

    def run(self) -> Served:
        """Lives until a signal comes."""
        while not self._signals.asked:
            process = self._start()
            try:
                error = self._live(process)
            except BaseException:
                process.stop(grace_s=0)
                raise
            if error is None:
                break
            self._after(error)
        served_s = 0.0 if self._ready_at is None else time.monotonic() - self._ready_at
        return Served(self._ready_after_s, served_s, self._signals.name, tuple(self._deaths))

    def _live(self, process: ServerProcess) -> EngineDiedError | None:
        """One life, to its end; the error that ended it, ``None`` for an end that was asked for."""
        was_ready = False
        error: EngineDiedError | None = None
        try:
            limits = self._limits
            was_ready = await_ready(
                process, self._check, deadline_s=limits.deadline_s, poll_s=limits.poll_s, signals=self._signals
            )
            if was_ready:
                self._ready(process)
                error = self._watch(process)
        except EngineDiedError as died:
            self._refuse_taken_port(died)
            error = died
        if error is None:
            self._stop(process)
            return None
        if self._ready_at is None:
            raise error
        after_s = time.monotonic() - process.started_s
        self._deaths.append(Death(how=error.message, after_s=round(after_s, 3), was_ready=was_ready))
        return error

    def _ready(self, process: ServerProcess) -> None:
        if self._ready_at is None:
            self._ready_at = time.monotonic()
            self._ready_after_s = self._ready_at - process.started_s
        took = duration(time.monotonic() - process.started_s)
        self._tell(f"{self._name} is ready after {took} (process {process.pid})")
        notify(READY="1", STATUS=f"serving {self._name}")

    def _watch(self, process: ServerProcess) -> EngineDiedError | None:
        """Until a signal comes (``None``) or the server is dead or hung (the error)."""
        limits = self._limits
        silent_since: float | None = None
        busy_s = _cpu_seconds(process.pid)
        asked_at = time.monotonic()
        while not self._signals.asked:
            self._signals.wait(limits.poll_s)
            if process.exited():
                return _died(process, death_words(process.stop()))
            now = time.monotonic()
            if now - asked_at < limits.watch_s:
                continue
            asked_at = now
            notify(WATCHDOG="1")
            before_s, busy_s = busy_s, _cpu_seconds(process.pid)
            if self._check.ask().state == "ready" or busy_s - before_s > _BUSY_SHARE * limits.watch_s:
                silent_since = None
                continue
            silent_since = silent_since or now
            if time.monotonic() - silent_since >= limits.hang_s:
                process.stop(grace_s=0)
                return _died(process, f"neither answered nor computed for {duration(limits.hang_s)}", hung=True)
        return None

    def _stop(self, process: ServerProcess) -> None:
        notify(STOPPING="1")
        self._tell(f"stopping {self._name} on {self._signals.name}")
        process.stop(grace_s=self._limits.grace_s, hurry=lambda: self._signals.urgent)

    def _after(self, error: EngineDiedError) -> None:
        """Wait before the next start; raises the error when there were too many."""
        limits = self._limits
        now = time.monotonic()
        self._died_at = [at for at in self._died_at if now - at < limits.window_s] + [now]
        count = len(self._died_at)
        if count > limits.restarts:
            raise EngineDiedError(
                f"{error.message}; that was death number {count} within {duration(limits.window_s)}",
                how=error.how,
                last_words=error.last_words,
                hint=error.hint,
            ) from error
        pause_s = min(limits.backoff_s * 2 ** (count - 1), limits.longest_backoff_s)
        self._tell(f"{error.message}; starting it again in {duration(pause_s)} ({count} of {limits.restarts})")
        notify(STATUS=f"{error.message}; starting it again")
        self._signals.wait(pause_s)

    def _refuse_taken_port(self, error: EngineDiedError) -> None:
        if any(words.lower() in error.last_words.lower() for words in _TAKEN) and (who := holder(self._port)):
            raise PortTakenError(
                f"port {self._port} was taken by {who} while the server started", hint="name another --port"
            ) from error


def _cpu_seconds(pid: int) -> float:
    """CPU seconds of a process and its children so far; 0 when it is gone."""
    try:
        root = psutil.Process(pid)
        return sum(sum(each.cpu_times()[:2]) for each in (root, *root.children(recursive=True)))
    except (psutil.Error, OSError):
        return 0.0
