"""Every way a run can fail, as one clear line, one exit code and, under ``--json``, one error document.

Only :class:`~planner.errors.PlannerError` and click's usage errors are the user's to mend. Anything else is our bug and
says so: it keeps its traceback and ends with 70.
"""

import errno
import traceback
from collections.abc import Sequence
from dataclasses import dataclass

import click

from planner.cli.output import StdoutError, print_json, print_note
from planner.errors import EngineDiedError, ExitCode, PlannerError

__all__ = ["Failure", "describe", "report", "wants_json"]


_FULL_OR_BROKEN = (errno.ENOSPC, errno.EDQUOT, errno.EIO)
"""What a disk can do to any write, click's own output of help included: not our bug."""


_LAST_WORDS = 300
"""Characters of the engine's stderr that an error line repeats: the end of it, where the reason stands."""


@dataclass(frozen=True, slots=True)
class Failure:
    """What is told about a failure: code for programs, message and hint for people."""

    code: str
    exit_code: ExitCode
    message: str
    hint: str = ""


def wants_json(words: Sequence[str]) -> bool:
    """Whether the words ask for JSON; looked up here because the words may be too broken to parse."""
    before_operands = words[: words.index("--")] if "--" in words else words
    return "--json" in before_operands


def report(error: BaseException, words: Sequence[str]) -> int:
    """Tell the failure on stderr or, under ``--json``, as a document on stdout; gives the exit code."""
    if isinstance(error, BrokenPipeError):
        # The reader left (``planner models | head``): it knows, and there is nobody to tell.
        return int(ExitCode.IO)
    if isinstance(error, click.exceptions.NoArgsIsHelpError):
        print_note(error.format_message())
        return int(ExitCode.USAGE)
    failure = describe(error)
    if failure.exit_code is ExitCode.BUG:
        print_note("".join(traceback.format_exception(error)).rstrip())
    if wants_json(words) and not isinstance(error, StdoutError):
        _print_document(failure)
    else:
        _print_lines(failure)
    return int(failure.exit_code)


def describe(error: BaseException) -> Failure:
    """The failure that an exception stands for."""
    if isinstance(error, PlannerError):
        message = error.message
        if isinstance(error, EngineDiedError) and error.last_words:
            message = f"{message}; its last words: {_one_line(error.last_words)[-_LAST_WORDS:]}"
        return Failure(error.code, error.exit_code, _one_line(message), _one_line(error.hint))
    if isinstance(error, click.ClickException):
        return Failure("usage", ExitCode.USAGE, _one_line(error.format_message()), _usage_hint(error))
    if isinstance(error, OSError) and error.errno in _FULL_OR_BROKEN:
        return Failure("io", ExitCode.IO, f"cannot write: {error.strerror}", "check the disk")
    if isinstance(error, KeyboardInterrupt | click.Abort):
        return Failure("interrupted", ExitCode.INTERRUPTED, "interrupted")
    return Failure(
        "bug",
        ExitCode.BUG,
        f"this is a bug in planner: {type(error).__name__}: {_one_line(str(error))}",
        "please report it with the traceback and the output of planner detect --json",
    )


def _usage_hint(error: click.ClickException) -> str:
    context = error.ctx if isinstance(error, click.UsageError) else None
    return f"see {context.command_path} --help" if context is not None else "see planner --help"


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _print_lines(failure: Failure) -> None:
    print_note(f"error: {failure.message}")
    if failure.hint:
        print_note(f"hint: {failure.hint}")


def _print_document(failure: Failure) -> None:
    from planner.render.documents import ErrorBody, ErrorDocument

    body = ErrorBody(code=failure.code, exit_code=int(failure.exit_code), message=failure.message, hint=failure.hint)
    try:
        print_json(ErrorDocument(error=body))
    except (StdoutError, BrokenPipeError):
        _print_lines(failure)
