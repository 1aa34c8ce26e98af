"""What goes to stdout, whole or not at all, and what the terminal in front of it can show.

A document is written in one piece and flushed here, so that a full disk or a reader that left is noticed while an exit
code can still say so.
"""

import errno
import os
import sys
from typing import TYPE_CHECKING

from planner.errors import FileIOError

if TYPE_CHECKING:
    import msgspec

    from planner.render.style import Style

__all__ = [
    "StdoutError",
    "is_terminal",
    "print_bytes",
    "print_json",
    "print_note",
    "print_text",
    "stderr_is_terminal",
    "style",
]


class StdoutError(FileIOError):
    """stdout itself cannot be written: nothing more must be put there, not even an error document."""

    code = "stdout"


def print_json(document: "msgspec.Struct") -> None:
    """Put one struct on stdout as the JSON document of this run."""
    from planner.render.json import to_json

    print_bytes(to_json(document))


def print_text(text: str) -> None:
    """Put text on stdout; characters that its encoding lacks become question marks rather than a failure."""
    encoding = (sys.stdout.encoding if sys.stdout is not None else None) or "utf-8"
    print_bytes(text.encode(encoding, errors="replace"))


def print_bytes(data: bytes) -> None:
    """Put bytes on stdout and flush.

    Raises :class:`StdoutError` when the disk behind it is full; :class:`BrokenPipeError` passes through.
    """
    if sys.stdout is None:
        return
    try:
        sys.stdout.flush()
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
    except OSError as error:
        forget_stdout()
        if isinstance(error, BrokenPipeError):
            raise
        full = "the disk is full" if error.errno == errno.ENOSPC else error.strerror
        raise StdoutError(f"cannot write the answer to stdout: {full}", hint="send it somewhere else") from error


def print_note(text: str) -> None:
    """Put a few lines on stderr, without control characters of strangers; a closed stderr is no reason to fail."""
    from planner.render.printable import printable

    try:
        print("\n".join(printable(line) for line in text.split("\n")), file=sys.stderr, flush=True)
    except (OSError, ValueError):
        # Nobody listens; the exit code still speaks.
        return


def stderr_is_terminal() -> bool:
    """Whether stderr is a terminal that can move its cursor: where a bar may be drawn."""
    return sys.stderr is not None and sys.stderr.isatty() and os.environ.get("TERM") != "dumb"


def forget_stdout() -> None:
    """Point stdout at nothing, so that the interpreter's last flush does not complain a second time."""
    try:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)
    except (OSError, ValueError):
        # A stdout without a descriptor (a test's buffer) has no last flush that could fail.
        return


def is_terminal() -> bool:
    """Whether stdout is a terminal: somebody reads along, and a file of markup is no use there."""
    return sys.stdout is not None and sys.stdout.isatty()


def style() -> "Style":
    """What stdout can show: colour only on a terminal without ``NO_COLOR``, block characters only in UTF-8."""
    from planner.render.style import Style

    if sys.stdout is None:
        return Style()
    encoding = (sys.stdout.encoding or "").lower().replace("-", "")
    plain = bool(os.environ.get("NO_COLOR")) or os.environ.get("TERM") == "dumb"
    return Style(colour=sys.stdout.isatty() and not plain, unicode=encoding == "utf8")
