"""The wish to stop, as signals bring it: noticed at once, acted upon at one place.

The mistake it prevents is a handler that works: one that stops a server in the middle of starting it loses the server.
Here a handler only remembers, and wakes whoever waits.
"""

import contextlib
import os
import select
import signal
import threading
import time
from collections.abc import Iterator
from types import FrameType, TracebackType
from typing import Self

__all__ = ["StopSignals", "signals_interrupt"]

_NUMBERS = (signal.SIGINT, signal.SIGTERM, *((signal.SIGHUP,) if hasattr(signal, "SIGHUP") else ()))


@contextlib.contextmanager
def signals_interrupt() -> Iterator[None]:
    """While it is entered, SIGTERM and SIGHUP end the work in hand as Ctrl-C does, so that what it made is removed.

    Only from the main thread; from another nothing changes.
    """
    before: dict[signal.Signals, object] = {}
    if threading.current_thread() is threading.main_thread():
        for number in _NUMBERS:
            if signal.getsignal(number) is signal.SIG_DFL:
                before[number] = signal.signal(number, signal.default_int_handler)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)  # type: ignore[arg-type] # what signal.signal gave, which it takes back


class StopSignals:
    """While it is entered, SIGINT, SIGTERM and SIGHUP are remembered; only from the main thread.

    What was ignored stays ignored (``nohup``).
    """

    def __init__(self) -> None:
        self.received: list[signal.Signals] = []
        self._before: dict[signal.Signals, object] = {}

    def __enter__(self) -> Self:
        self._read, self._write = os.pipe()
        for handle in (self._read, self._write):
            os.set_blocking(handle, False)
        self._wakeup = signal.set_wakeup_fd(self._write, warn_on_full_buffer=False)
        for number in _NUMBERS:
            if signal.getsignal(number) is not signal.SIG_IGN:
                self._before[number] = signal.signal(number, self._remember)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type] # what signal.signal gave, which it takes back
        signal.set_wakeup_fd(self._wakeup)
        for handle in (self._read, self._write):
            os.close(handle)

    @property
    def asked(self) -> bool:
        """Whether to stop."""
        return bool(self.received)

    @property
    def urgent(self) -> bool:
        """Whether it was asked twice: then there is no grace."""
        return len(self.received) > 1

    @property
    def name(self) -> str | None:
        """The signal that came first."""
        return self.received[0].name if self.received else None

    def wait(self, timeout_s: float) -> None:
        """Sleep for ``timeout_s`` or until a signal comes."""
        until = time.monotonic() + timeout_s
        while not self.asked and (left := until - time.monotonic()) > 0:
            if select.select([self._read], [], [], left)[0]:
                with contextlib.suppress(BlockingIOError):
                    os.read(self._read, 64)
                return

    def _remember(self, number: int, _frame: FrameType | None) -> None:
        self.received.append(signal.Signals(number))
