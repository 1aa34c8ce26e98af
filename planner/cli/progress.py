"""What runs and how long it will take, on stderr: a bar on a terminal, one plain line for each stage elsewhere.

stdout never sees progress, and a program that asked for JSON without a terminal sees none at all.
"""

import contextlib
import sys
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from planner.cli.output import print_note, stderr_is_terminal

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

__all__ = ["Shown", "progress"]

Shown = Callable[[str, float, float, str], None]
"""Called with the stage, seconds done, seconds in all, and a few words."""


@contextlib.contextmanager
def progress(*, quiet: bool) -> Iterator[Shown | None]:
    """The callable that shows progress, or ``None`` when nobody would see it.

    ``quiet`` (``--json``) leaves only the bar on a terminal.
    """
    if stderr_is_terminal():
        with _bar() as shown:
            yield shown
    elif quiet or sys.stderr is None:
        yield None
    else:
        yield _plain_lines()


@contextlib.contextmanager
def _bar() -> Iterator[Shown]:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    # rich itself honours NO_COLOR. The bar disappears at the end: the plan is the result.
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[left]}"), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        yield _Stages(bar)


class _Stages:
    """One line of a rich bar for each stage, added when the stage is first heard of."""

    def __init__(self, bar: "Progress") -> None:
        self._bar = bar
        self._tasks: dict[str, TaskID] = {}

    def __call__(self, stage: str, done: float, total: float, text: str) -> None:
        from rich.markup import escape

        from planner import units
        from planner.render.printable import printable

        left = f"{units.duration(max(0.0, total - done))} left" if total > 0 else ""
        if stage not in self._tasks:
            self._tasks[stage] = self._bar.add_task(escape(stage), total=None, left=left)
        described = escape(printable(f"{stage}: {text}" if text else stage))
        self._bar.update(
            self._tasks[stage], description=described, completed=done, total=total if total > 0 else None, left=left
        )


def _plain_lines() -> Shown:
    told: set[str] = set()

    def shown(stage: str, done: float, total: float, text: str) -> None:
        if stage in told:
            return
        told.add(stage)
        from planner import units

        left = f" (about {units.duration(total - done)})" if total - done >= 1 else ""
        print_note(f"{stage}{left}" + (f": {text}" if text else ""))

    return shown
