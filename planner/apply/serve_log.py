"""The log of a server: everything it prints, in a file that cannot fill the disk, and its last words in memory.

The mistake it prevents is a server that stops because nobody reads its output: a full pipe blocks it, and so would a
full disk. So the pipe is always drained, and what cannot be written is counted and dropped.
"""

import contextlib
import os
import threading
from io import FileIO
from pathlib import Path

from planner.errors import ExitCode, FileIOError

__all__ = ["ServerLog"]

_MOST_BYTES = 8 << 20
_KEPT_BYTES = 64 << 10
_CHUNK_BYTES = 64 << 10


class ServerLog:
    """A log file of at most ``most_bytes`` with one predecessor (``FILE.1``) of as much; safe to use from two threads.

    Raises :class:`FileIOError` when the file cannot be created: whoever starts a server should know where its words go.
    """

    def __init__(self, path: Path, *, most_bytes: int = _MOST_BYTES) -> None:
        self.path = path
        self.dropped_bytes = 0
        self._most_bytes = most_bytes
        self._tail = bytearray()
        self._lock = threading.Lock()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._open()
        except OSError as error:
            refused = isinstance(error, PermissionError)
            raise FileIOError(
                f"cannot write the server's log {path}: {error.strerror or error}",
                hint="name another file with --log",
                code="not-permitted" if refused else None,
                exit_code=ExitCode.NOT_PERMITTED if refused else None,
            ) from error

    @property
    def last_words(self) -> str:
        """The end of what was printed, at most 64 KiB."""
        with self._lock:
            return self._tail.decode(errors="replace")

    def forget(self) -> None:
        """Start last words anew: those of a server that was replaced explain nothing about the next."""
        with self._lock:
            self._tail.clear()

    def note(self, text: str) -> None:
        """Add a line of planner's own, so that the file tells restarts."""
        self._write(f"planner: {text}\n".encode())

    def drain(self, pipe: FileIO) -> threading.Thread:
        """Copy ``pipe`` until its end in a thread of its own, then close it."""
        thread = threading.Thread(target=self._copy, args=(pipe,), name="server-log", daemon=True)
        thread.start()
        return thread

    def close(self) -> None:
        """Close the file; what comes later is dropped."""
        with self._lock, contextlib.suppress(OSError):
            self._file.close()

    def _copy(self, pipe: FileIO) -> None:
        with pipe:
            while data := pipe.read(_CHUNK_BYTES):
                with self._lock:
                    self._tail += data
                    del self._tail[:-_KEPT_BYTES]
                self._write(data)

    def _write(self, data: bytes) -> None:
        with self._lock:
            try:
                if self._file.tell() + len(data) > self._most_bytes:
                    self._rotate()
                self._file.write(data)
            except (OSError, ValueError):  # ValueError: closed
                self.dropped_bytes += len(data)

    def _rotate(self) -> None:
        self._file.close()
        with contextlib.suppress(OSError):
            self.path.replace(self.path.with_name(f"{self.path.name}.1"))
        self._open()

    def _open(self) -> None:
        # A conversation may stand in it: for the user alone.
        handle = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        self._file = FileIO(handle, "ab")
