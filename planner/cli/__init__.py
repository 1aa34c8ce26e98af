"""The command line: the only room that prints or exits, and the one place where errors become exit codes.

Importing it costs click and nothing else; each command's module, and what that needs, is imported when it runs.
"""

import os
import sys
from collections.abc import Sequence

from planner.cli.group import cli
from planner.errors import ExitCode

__all__ = ["cli", "run"]


def run(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit with one of :class:`planner.errors.ExitCode`; never returns.

    ``arguments`` are the words after the program's name, by default those of this process.
    """
    if "_PLANNER_COMPLETE" in os.environ:
        cli.main(prog_name="planner")
    words = list(sys.argv[1:] if arguments is None else arguments)
    try:
        code = _run(words)
    except BaseException as error:  # every failure becomes an exit code, here and nowhere else
        if isinstance(error, SystemExit):
            raise
        from planner.cli.failure import report

        code = report(error, words)
    sys.exit(_end(code))


def _end(code: int) -> int:
    """The exit code once stdout is empty: what click printed may still wait in its buffer and be lost."""
    from planner.cli.output import forget_stdout

    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except (OSError, ValueError):
        forget_stdout()
        return code or int(ExitCode.IO)
    return code


def _run(words: list[str]) -> int:
    import click

    try:
        with cli.make_context("planner", words) as context:
            code: int | None = cli.invoke(context)
    except click.exceptions.Exit as leave:
        code = leave.exit_code
    return code or 0
