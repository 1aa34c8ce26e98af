"""One run of the engine's worker: its pipes, its process group, its end.

It knows how to feed and drain a child without ever blocking on it, and how to take the whole group down. The mistakes
it prevents: the deadlock when a child fills stderr while we write to its stdin, the wait for an end of file that a
grandchild holds open, the zombie, and a signal sent to a process number that already belongs to somebody else.
"""

import contextlib
import os
import selectors
import signal
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from io import FileIO
from typing import Final

from planner.engine.protocol import MAX_LINE_BYTES, NotAReplyError
from planner.types.settings import Waiting

__all__ = ["WorkerProcess", "child_environment", "has_exited", "waiting_environment"]

KEPT_STDERR_BYTES: Final = 256 * 1024
_CHUNK_BYTES: Final = 256 * 1024
_ROUND_S: Final = 5.0
_ROUND_WITHOUT_PIDFD_S: Final = 0.02
_GRACE_S: Final = 0.3
_REAP_S: Final = 1.2
_DRAIN_ROUNDS: Final = 64

_PASSED_NAMES = frozenset(
    {"PATH", "HOME", "LANG", "LANGUAGE", "TZ", "TMPDIR", "TEMP", "TMP", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH"}
)
_PASSED_PREFIXES = (
    "LC_",
    "CUDA_",
    "NVIDIA_",
    "HIP_",
    "HIPBLASLT_",
    "HSA_",
    "ROCBLAS_",
    "ROCM_",
    "ROCR_",
    "GPU_DEVICE_ORDINAL",
    "GGML_",
    "LLAMA_",
    "OMP_",
    "GOMP_",
    "KMP_",
    "MKL_",
    "OPENBLAS_",
    "VK_",
    "ONEAPI_",
    "SYCL_",
    "ZE_",
    "MUSA_",
    "ASCEND_",
)
_SECRETS = ("KEY", "TOKEN", "SECRET", "PASSWORD")


def child_environment(parent: Mapping[str, str], extra: Mapping[str, str]) -> dict[str, str]:
    """What the child sees: names from an allow-list of ``parent``, never a secret, then ``extra``.

    An empty value in ``extra`` takes its name away. ``GGML_NO_BACKTRACE`` is always set: without it ggml
    starts a debugger in its abort path, which takes seconds.
    """
    passed = {
        name: value
        for name, value in parent.items()
        if (name in _PASSED_NAMES or name.startswith(_PASSED_PREFIXES)) and not any(word in name for word in _SECRETS)
    }
    wanted = {**passed, "GGML_NO_BACKTRACE": "1", **extra}
    return {name: value for name, value in wanted.items() if value or name not in extra}


def waiting_environment(waiting: Waiting) -> dict[str, str]:
    """What :func:`child_environment` adds so that OpenMP threads wait so, whatever the shell says."""
    return {"OMP_WAIT_POLICY": "" if waiting == "default" else waiting}


def has_exited(popen: subprocess.Popen[bytes]) -> bool:
    """Whether a process is dead. It stays a zombie, so its number and its group cannot become somebody else's."""
    if popen.returncode is not None:
        return True
    if not hasattr(os, "waitid"):
        return popen.poll() is not None
    try:
        return os.waitid(os.P_PID, popen.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
    except ChildProcessError:
        return True


class WorkerProcess:
    """A started worker in a session and process group of its own; raises ``OSError`` when it cannot start.

    ``argv`` lacks the descriptor of the reply pipe, which is appended. Only :meth:`pump` moves data; everything else
    looks at what it brought.
    """

    def __init__(self, argv: Sequence[str], environment: Mapping[str, str]) -> None:
        self.replies_open = True
        self._replies = bytearray()
        self._searched = 0
        self._stderr = bytearray()
        self._outgoing = memoryview(b"")
        self._pidfd: int | None = None
        with contextlib.ExitStack() as ours, contextlib.ExitStack() as theirs:
            self._selector = ours.enter_context(selectors.DefaultSelector())
            requests_read, self._requests = _pipe(reader=theirs, writer=ours)
            self._replies_read, replies_write = _pipe(reader=ours, writer=theirs)
            self._stderr_read, stderr_write = _pipe(reader=ours, writer=theirs)
            # The kernel ends a child with the thread that started it, so only the main thread may be followed.
            follow = ["follow-thread"] if threading.current_thread() is threading.main_thread() else []
            self._popen = subprocess.Popen(
                [*argv, str(replies_write.fileno()), *follow],
                env=dict(environment),
                stdin=requests_read,
                stdout=stderr_write,
                stderr=stderr_write,
                pass_fds=(replies_write.fileno(),),
                start_new_session=True,
            )
            ours.callback(self._end)
            self._watch()
            self._resources = ours.pop_all()

    def _watch(self) -> None:
        """Have the selector wake up for data and, where the system can tell by a descriptor, for the death."""
        for stream in (self._requests, self._replies_read, self._stderr_read):
            os.set_blocking(stream.fileno(), False)
        for stream in (self._replies_read, self._stderr_read):
            self._selector.register(stream, selectors.EVENT_READ)
        with contextlib.suppress(AttributeError, OSError):
            self._pidfd = os.pidfd_open(self.pid)
            self._selector.register(self._pidfd, selectors.EVENT_READ)

    @property
    def pid(self) -> int:
        """The worker's process number, which is also its group's."""
        return self._popen.pid

    @property
    def stderr(self) -> bytes:
        """The end of what the worker wrote to stdout and stderr, at most 256 KiB."""
        return bytes(self._stderr)

    def forget_stderr(self) -> None:
        """Drop what was written so far, so that last words belong to the question in hand."""
        self._stderr.clear()

    def send(self, request: bytes) -> None:
        """Hand over one request; :meth:`pump` writes it as fast as the worker reads."""
        self._outgoing = memoryview(request)
        self._selector.register(self._requests, selectors.EVENT_WRITE)

    def pump(self, timeout_s: float) -> bool:
        """Move data once, after waiting ``timeout_s`` at most for something to happen; whether anything came in."""
        longest = _ROUND_WITHOUT_PIDFD_S if self._pidfd is None else _ROUND_S
        came = False
        for key, _ in self._selector.select(max(0.0, min(timeout_s, longest))):
            if key.fileobj is self._requests:
                self._write_some()
            elif key.fileobj is self._replies_read:
                came |= self._read_replies()
            elif key.fileobj is self._stderr_read:
                came |= self._read_stderr()
        return came

    def take_line(self) -> bytes | None:
        """The next whole line of the reply pipe, or ``None``; raises :class:`NotAReplyError` for an endless one."""
        end = self._replies.find(b"\n", self._searched)
        if end < 0:
            self._searched = len(self._replies)
            if self._searched > MAX_LINE_BYTES:
                raise NotAReplyError(f"more than {MAX_LINE_BYTES // 2**20} MiB without an end of line")
            return None
        line = bytes(self._replies[:end])
        del self._replies[: end + 1]
        self._searched = 0
        return line

    @property
    def half_a_line_bytes(self) -> int:
        """Bytes of a reply that has begun and not ended."""
        return len(self._replies)

    def has_exited(self) -> bool:
        """Whether the worker is dead (:func:`has_exited`)."""
        return has_exited(self._popen)

    def wait(self, timeout_s: float) -> bool:
        """Wait for the worker's death while draining its pipes; whether it is dead."""
        until = time.monotonic() + timeout_s
        while not self.has_exited() and (left := until - time.monotonic()) > 0:
            self.pump(left)
        return self.has_exited()

    def drain(self) -> None:
        """Take what the pipes hold; bounded, since a grandchild may write for ever."""
        for _ in range(_DRAIN_ROUNDS):
            if not self.pump(0):
                return

    def dismiss(self) -> None:
        """End an idle worker: it leaves at the end of its stdin, and is killed if it does not."""
        try:
            if self._outgoing:
                self._stop_writing()
            self._requests.close()
            self.wait(_GRACE_S)
        finally:
            self.kill()

    def kill(self) -> int | None:
        """End the whole group, at most 1.5 s from now, and free everything; the worker's exit status if it had one.

        SIGTERM first, SIGKILL soon after; a worker that was dead already keeps its own status.
        """
        self._resources.close()
        return self._popen.returncode

    def _end(self) -> None:
        try:
            if not self.has_exited():
                self._signal(signal.SIGTERM)
                self.wait(_GRACE_S)
        finally:
            # Also for a dead worker: its children live on in the group, and its number is ours until it is reaped.
            self._signal(signal.SIGKILL)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._popen.wait(_REAP_S)
            if self._pidfd is not None:
                os.close(self._pidfd)
                self._pidfd = None

    def _signal(self, number: signal.Signals) -> None:
        if self._popen.returncode is None:
            # macOS answers EPERM for a group of zombies.
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, number)

    def _write_some(self) -> None:
        try:
            written = self._requests.write(self._outgoing) or 0
        except BrokenPipeError:
            written = len(self._outgoing)  # it is dying; its status and last words tell more than this
        self._outgoing = self._outgoing[written:]
        if not self._outgoing:
            self._stop_writing()

    def _stop_writing(self) -> None:
        self._outgoing = memoryview(b"")
        self._selector.unregister(self._requests)

    def _read_replies(self) -> bool:
        data = self._read(self._replies_read)
        self._replies += data or b""
        self.replies_open = data != b""
        return bool(data)

    def _read_stderr(self) -> bool:
        data = self._read(self._stderr_read)
        self._stderr += data or b""
        del self._stderr[:-KEPT_STDERR_BYTES]
        return bool(data)

    def _read(self, stream: FileIO) -> bytes | None:
        """What a pipe holds; empty at its end, which also takes it out of the selector; ``None`` for nothing yet."""
        data: bytes | None = stream.read(_CHUNK_BYTES)
        if data == b"":
            self._selector.unregister(stream)
        return data


def _pipe(*, reader: contextlib.ExitStack, writer: contextlib.ExitStack) -> tuple[FileIO, FileIO]:
    """A pipe, each end closed by the stack it is given to."""
    read, write = os.pipe()
    return reader.enter_context(FileIO(read, "rb")), writer.enter_context(FileIO(write, "wb"))
