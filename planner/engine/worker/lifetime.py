"""How the worker lives and dies: quietly, without a core file, before anybody else, and never longer than its parent.

It prevents the four ways a native child becomes a nuisance: output of native code mixed into the replies, gigabytes
of core dump, the kernel shooting the user's desktop instead of the child, and orphans that hold a GPU.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import signal
import sys

__all__ = ["die_with_the_parent", "dump_no_core", "silence_standard_streams", "volunteer_for_the_oom_killer"]

_PR_SET_PDEATHSIG = 1


def silence_standard_streams() -> int:
    """A private descriptor of the requests; after it, fd 0 is empty and fd 1 goes where stderr goes.

    ggml prints backtraces and model data to stdout, and a library that reads stdin would swallow a request.
    """
    requests = os.dup(0)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    os.dup2(2, 1)
    return requests


def dump_no_core() -> None:
    """Forbid core dumps, those piped to a crash reporter included.

    Linux does not apply a limit of 0 to a ``core_pattern`` that is a pipe, so a dying 40 GB process would be copied
    through it. A limit of 1 byte is the kernel's own mark for "never": below the smallest core file, and refused for
    pipes (the guard against a crash reporter that crashes).
    """
    wanted = 1 if sys.platform == "linux" else 0
    hard = resource.getrlimit(resource.RLIMIT_CORE)[1]
    limit = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    resource.setrlimit(resource.RLIMIT_CORE, (limit, limit))


def volunteer_for_the_oom_killer() -> None:
    """Ask the kernel to take this process first when memory runs out; Linux only, and never refused when rising."""
    with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w", encoding="ascii") as score:  # noqa: PTH123 - a kernel file, no path work
        score.write("1000")


def die_with_the_parent(*, follow_thread: bool) -> None:
    """Take SIGTERM, ignore Ctrl-C, and on Linux be killed by the kernel when the parent is gone.

    The kernel means the parent's *thread* that started us, so ``follow_thread`` is set only when that is its main
    thread; the other guard, the end of stdin, works on every system and for every thread.
    """
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if follow_thread and sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
