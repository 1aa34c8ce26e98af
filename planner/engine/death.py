"""The diagnosis of a dead engine child: a name for how it died, its last words, and what the user can do.

It prevents the message that helps nobody ("exit code -6"): a refused instruction needs another build, an OOM kill a
smaller model, a failed assertion a bug report with the very line that failed.
"""

import re
import signal
import unicodedata
from typing import Literal

from planner.errors import EngineDiedError

__all__ = ["HowItDied", "how_it_ended", "last_line", "obituary"]

HowItDied = Literal[
    "abort",
    "illegal-instruction",
    "segmentation-fault",
    "bus-error",
    "arithmetic",
    "out-of-memory",
    "killed",
    "terminated",
    "signal",
    "hang",
    "garbage",
    "closed-pipe",
    "exit",
]

_BY_SIGNAL: dict[int, HowItDied] = {
    signal.SIGABRT: "abort",
    signal.SIGILL: "illegal-instruction",
    signal.SIGSEGV: "segmentation-fault",
    signal.SIGBUS: "bus-error",
    signal.SIGFPE: "arithmetic",
    signal.SIGKILL: "killed",
    signal.SIGTERM: "terminated",
}

_PHRASES: dict[HowItDied, str] = {
    "abort": "aborted (SIGABRT)",
    "illegal-instruction": "met an instruction that this CPU does not have (SIGILL)",
    "segmentation-fault": "touched memory that is not there (SIGSEGV)",
    "bus-error": "read past the end of a mapped file (SIGBUS)",
    "arithmetic": "divided by zero (SIGFPE)",
    "out-of-memory": "was killed because memory ran out (OOM killer)",
    "killed": "was killed from outside (SIGKILL)",
    "terminated": "was terminated from outside (SIGTERM)",
    "signal": "died of a signal",
    "hang": "gave no answer in time and was stopped",
    "garbage": "answered with something that is no reply",
    "closed-pipe": "stopped answering",
    "exit": "ended by itself",
}

_BROKEN_FILE = (
    "the model file is probably broken or made for another llama.cpp; check its checksum or upgrade the engine"
)
_START_HINT = "this Python or its llama-cpp-python does not work: try another --engine-python, or reinstall it"
_AT_START: frozenset[HowItDied] = frozenset({"abort", "segmentation-fault", "bus-error", "arithmetic"})
_HINTS: dict[HowItDied, str] = {
    "abort": _BROKEN_FILE,
    "illegal-instruction": "build llama-cpp-python on this very machine: "
    "pip install --force-reinstall --no-cache-dir --no-binary llama-cpp-python llama-cpp-python",
    "segmentation-fault": _BROKEN_FILE,
    "bus-error": "the model file is truncated, changed while in use, or its disk fails; check its size and checksum",
    "arithmetic": _BROKEN_FILE,
    "out-of-memory": "choose a smaller model, quantization or context, or give the machine or container more memory",
    "killed": "somebody or a service manager (systemd-oomd, a job limit) ended it; run it again with more memory free",
    "terminated": "somebody or a service manager ended it; run it again",
    "signal": "run it again; if it dies again, report it with these last words",
    "hang": "a busy machine or a hung GPU driver is the usual cause; run it again when the machine is idle",
    "garbage": "the engine's interpreter or a library in it writes where it must not; try another --engine-python",
    "closed-pipe": "try another --engine-python, or reinstall llama-cpp-python",
    "exit": "try another --engine-python, or reinstall llama-cpp-python",
}

_KEPT_OF_LINE = 300
_ESCAPE = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[@-_])")
# What Python's faulthandler adds; it tells where in our code, not why.
_FAULTHANDLER = re.compile(
    r"^(Fatal Python error: |(Current )?[Tt]hread 0x|  File \"|Extension modules: |\s*<no Python frame>|$)"
)
# The folder in which somebody once compiled the engine says nothing to the reader.
_BUILD_FOLDER = re.compile(r"/\S*/(?=[^/\s]+:\d+: )")
_TELLING = (
    re.compile(r"GGML_ASSERT|GGML_ABORT"),
    re.compile(r"terminate called|what\(\):|CUDA error|ROCm error|fatal error|out of memory|bad_alloc", re.IGNORECASE),
)


def how_it_ended(status: int | None, *, oom_killed: bool) -> HowItDied:
    """The name of an end by ``status`` (negative: a signal, as in :mod:`subprocess`; ``None``: unknown).

    A status above 128 is how a shell that wraps the interpreter repeats the signal of its child.
    """
    if status is None or status == 0:
        return "closed-pipe"
    number = -status if status < 0 else status - 128
    if number == signal.SIGKILL and oom_killed:
        return "out-of-memory"
    return _BY_SIGNAL.get(number, "signal" if status < 0 else "exit")


def obituary(how: HowItDied, *, asked: str, stderr: bytes, status: int | None, detail: str = "") -> EngineDiedError:
    """The error for a child that died ``how`` over the question ``asked``; one line, with its last words."""
    phrase = _PHRASES[how]
    if how == "signal" and status is not None:
        phrase += f" ({signal.strsignal(-status) or -status})"
    elif how == "exit":
        phrase += f" with status {status}"
    words = " ".join(part for part in (_clean(detail), last_line(stderr)) if part)
    message = f"the engine {phrase} over {asked!r}" + (f": {words}" if words else "")
    return EngineDiedError(
        message,
        how=how,
        last_words=_readable(stderr),
        hint=_START_HINT if asked == "start" and how in _AT_START else _HINTS[how],
    )


def last_line(stderr: bytes) -> str:
    """The most telling line that was written to stderr: a failed assertion, else an error, else the last one."""
    lines = [line for line in _readable(stderr).splitlines() if not _FAULTHANDLER.match(line)]
    for telling in _TELLING:
        for line in reversed(lines):
            if telling.search(line):
                return _clean(line)
    return _clean(lines[-1]) if lines else ""


def _readable(stderr: bytes) -> str:
    """``stderr`` as text without escape sequences; names from foreign files are in it, so nothing may act."""
    text = _ESCAPE.sub("", stderr.decode("utf-8", "replace")).replace("\r", "\n")
    return "".join(char if char in "\n\t" or unicodedata.category(char)[0] != "C" else " " for char in text)


def _clean(text: str) -> str:
    """``text`` as part of one line."""
    line = _BUILD_FOLDER.sub("", " ".join(_readable(text.encode("utf-8", "replace")).split()))
    return line if len(line) <= _KEPT_OF_LINE else line[: _KEPT_OF_LINE - 1] + "…"
