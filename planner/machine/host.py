"""The one door to the machine: files, folders, programs; prevents a hanging driver from hanging the planner.

``root`` shifts every file and folder, so that a tree of ``/proc`` and ``/sys`` files replays another machine. Programs
run in their own process group under a deadline; one that cannot even be killed is left behind, not waited for.
"""

import contextlib
import getpass
import os
import selectors
import signal
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from planner.machine.answers import Program

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["Host", "Space", "System", "run_program"]

_FILE_CAP_BYTES = 4 << 20
_OUTPUT_CAP_BYTES = 8 << 20
_DEADLINE_S = 1.8
"""Below the promised 2 s, so that starting and killing the child fits too."""


class System(NamedTuple):
    """What ``uname`` tells, without the host's name."""

    sysname: str
    release: str
    machine: str


class Space(NamedTuple):
    """Room on a file system, in bytes."""

    total_bytes: int
    free_bytes: int


class Host:
    """The computer this process runs on, or a tree of its files under ``root``."""

    def __init__(self, root: Path = Path("/"), *, deadline_s: float = _DEADLINE_S) -> None:
        self.root = root
        self.deadline_s = deadline_s

    def read(self, path: str) -> str:
        """The text of a file, at most 4 MiB; raises :class:`OSError`. Bytes that are no UTF-8 become U+FFFD."""
        # O_NONBLOCK: a named pipe in the way must not hang us.
        descriptor = os.open(self._at(path), os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            parts: list[bytes] = []
            left = _FILE_CAP_BYTES
            while left > 0 and (part := os.read(descriptor, min(left, 1 << 16))):
                parts.append(part)
                left -= len(part)
        finally:
            os.close(descriptor)
        return b"".join(parts).decode("utf-8", "replace")

    def listdir(self, path: str) -> tuple[str, ...]:
        """Names inside a folder, sorted; raises :class:`OSError`."""
        return tuple(sorted(os.listdir(self._at(path))))  # noqa: PTH208 - thousands of calls; Path costs ten times

    def exists(self, path: str) -> bool:
        """Whether there is anything by that name."""
        return os.path.lexists(self._at(path))

    def run(self, argv: "Sequence[str]") -> Program:
        """Run a program and return what it printed before the deadline; never raises."""
        return run_program(argv, deadline_s=self.deadline_s)

    def system(self) -> System:
        """Kernel name, release and processor architecture."""
        name = os.uname()
        return System(name.sysname, name.release, name.machine)

    def physical_memory(self) -> int | None:
        """Bytes of RAM as the C library tells, for systems without ``/proc``."""
        try:
            size = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        except (OSError, ValueError):
            return None
        return size if size > 0 else None

    def space(self, path: Path) -> Space | None:
        """Room on the file system that holds ``path`` or its nearest existing parent."""
        for folder in (path, *path.parents):
            try:
                room = os.statvfs(folder)
            except FileNotFoundError:
                continue
            except OSError:
                return None
            return Space(room.f_frsize * room.f_blocks, room.f_frsize * room.f_bavail)
        return None

    def private_words(self) -> tuple[str, ...]:
        """Host and user names, to be scrubbed from every capture."""
        words = {os.uname().nodename, os.uname().nodename.split(".")[0]}
        with contextlib.suppress(KeyError, OSError, ImportError):
            words.add(getpass.getuser())
        return tuple(sorted(word for word in words if word))

    def home(self) -> Path | None:
        """The user's home folder."""
        try:
            return Path.home()
        except RuntimeError:
            return None

    def _at(self, path: str) -> str:
        return path if self.root == Path("/") else os.path.join(self.root, path.lstrip("/"))  # noqa: PTH118 - speed


def run_program(argv: "Sequence[str]", *, deadline_s: float, environment: "Mapping[str, str] | None" = None) -> Program:
    """Run ``argv`` and return its output and, in words, how it failed.

    Whatever came before the deadline is kept: partial answers of a slow driver are still answers.
    """
    try:
        child = subprocess.Popen(
            list(argv),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=dict(environment) if environment is not None else None,
            start_new_session=True,
        )
    except OSError as error:
        return Program(stdout="", failure=error.strerror or type(error).__name__)
    end = time.monotonic() + deadline_s
    try:
        output, failure = _read_until(child, end)
        if failure is None:
            failure = _wait_until(child, end)
    finally:
        _end(child)
    return Program(stdout=output.decode("utf-8", "replace"), failure=failure)


def _read_until(child: "subprocess.Popen[bytes]", end: float) -> tuple[bytes, str | None]:
    if child.stdout is None:  # cannot be: we asked for a pipe
        return b"", "no output pipe"
    parts = bytearray()
    with selectors.DefaultSelector() as selector:
        selector.register(child.stdout, selectors.EVENT_READ)
        while (left := end - time.monotonic()) > 0:
            if not selector.select(left):
                break
            part = os.read(child.stdout.fileno(), 1 << 16)
            if not part:
                return bytes(parts), None
            parts += part
            if len(parts) > _OUTPUT_CAP_BYTES:
                return bytes(parts[:_OUTPUT_CAP_BYTES]), "printed more than 8 MiB and was stopped"
    return bytes(parts), "did not answer in time and was stopped"


def _wait_until(child: "subprocess.Popen[bytes]", end: float) -> str | None:
    try:
        code = child.wait(timeout=max(0.05, end - time.monotonic()))
    except subprocess.TimeoutExpired:
        return "did not end in time and was stopped"
    if code < 0:
        name = signal.Signals(-code).name if -code in set(signal.Signals) else f"signal {-code}"
        return f"died of {name}"
    return f"ended with exit code {code}" if code else None


def _end(child: "subprocess.Popen[bytes]") -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(child.pid, signal.SIGKILL)
    if child.stdout is not None:
        child.stdout.close()
    try:
        child.wait(timeout=0.1)
    except subprocess.TimeoutExpired:
        # Stuck inside the kernel: nobody can end it. Forget it rather than wait; the system reaps it later.
        child.returncode = -signal.SIGKILL
