"""Bytes on their way, on stderr: a bar on a terminal, elsewhere one line for each file and one now and then.

A transfer is told even where nobody sees a bar: an hour without a word looks like a hang in a log.
"""

import contextlib
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from planner.cli.output import print_note, stderr_is_terminal

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

__all__ = ["Shown", "transferring"]

Shown = Callable[[str, str, int, int], None]
"""Called with what happens (``fetching``, ``checking``, ``waiting``), the file, bytes done and bytes in all."""

_EVERY_S = 30.0
_WORDS = {
    "fetching": "fetching",
    "checking": "checking the hash of",
    "waiting": "another fetch is at it; waiting for it to end:",
}


@contextlib.contextmanager
def transferring(*, quiet: bool) -> Iterator[Shown | None]:
    """The callable that shows a transfer, or ``None``; ``quiet`` (``--json``) leaves only the bar on a terminal."""
    if stderr_is_terminal():
        with _bar() as shown:
            yield shown
    elif quiet or sys.stderr is None:
        yield None
    else:
        yield _Lines()


@contextlib.contextmanager
def _bar() -> Iterator[Shown]:
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(binary_units=True),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        yield _Bars(bar)


class _Bars:
    """One line of a rich bar for each thing that happens to each file."""

    def __init__(self, bar: "Progress") -> None:
        self._bar = bar
        self._tasks: dict[tuple[str, str], TaskID] = {}
        self._lock = threading.Lock()

    def __call__(self, what: str, name: str, done: int, total: int) -> None:
        from rich.markup import escape

        from planner.render.printable import printable

        with self._lock:
            if (what, name) not in self._tasks:
                for task in self._tasks.values():
                    self._bar.update(task, visible=False)
                shown = escape(printable(f"{_WORDS.get(what, what)} {name}", most=70))
                self._tasks[what, name] = self._bar.add_task(shown, total=total or None, completed=done)
            self._bar.update(self._tasks[what, name], completed=done, visible=True)


class _Lines:
    """A line when something begins, and one every half minute while it lasts."""

    def __init__(self) -> None:
        self._told: dict[tuple[str, str], float] = {}
        self._lock = threading.Lock()

    def __call__(self, what: str, name: str, done: int, total: int) -> None:
        from planner import units

        now = time.monotonic()
        with self._lock:
            last = self._told.get((what, name))
            if last is not None and now - last < _EVERY_S:
                return
            self._told[what, name] = now
        size = f": {units.gib(done)} of {units.gib(total)}" if total and what != "waiting" else ""
        print_note(f"{_WORDS.get(what, what)} {name}{size}")
