"""Becomes the server: ``PYTHON -I -S FILE PARENT_PID follow|alone PROGRAM ARGUMENT…``, a plain file of the stdlib.

What it prevents is the orphan: on Linux the kernel kills what this file becomes as soon as the planner that started it
is gone, however it went. It is done here, between fork and exec of a process without threads, because code that runs
in a forked copy of a threaded Python may deadlock.
"""

import contextlib
import ctypes
import os
import resource
import signal
import sys

__all__ = ["main"]

_PR_SET_PDEATHSIG = 1  # linux/prctl.h
_CANNOT_START = 127  # a shell's code for a program that cannot be run


def main(words: list[str]) -> None:
    """Tie this process to its parent, clean up what Python set, and become ``words[2:]``."""
    parent, follow = int(words[0]), words[1] == "follow"
    if follow and sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
        if os.getppid() != parent:  # it died before the kernel was told
            os._exit(_CANNOT_START)
    # Python ignores these two, and what is ignored stays so across exec.
    for number in (signal.SIGPIPE, signal.SIGXFSZ):
        signal.signal(number, signal.SIG_DFL)
    _dump_no_core()
    try:
        os.execvp(words[2], words[2:])  # noqa: S606 - an argv, no shell
    except OSError as error:
        sys.stderr.write(f"cannot start {words[2]}: {error.strerror}\n")
        sys.stderr.flush()
        os._exit(_CANNOT_START)


def _dump_no_core() -> None:
    """Forbid core files: one of 40 GB helps nobody. 1 byte also refuses those that are piped to a crash reporter."""
    wanted = 1 if sys.platform == "linux" else 0
    hard = resource.getrlimit(resource.RLIMIT_CORE)[1]
    limit = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    resource.setrlimit(resource.RLIMIT_CORE, (limit, limit))


if __name__ == "__main__":
    main(sys.argv[1:])
