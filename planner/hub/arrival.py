"""A file on its way: what has arrived lies under a name of its own, is hashed as it comes, and outlives a kill.

huggingface_hub 2.4.0 writes to a name that it makes up anew each time, so a killed download starts from nothing; here
the name follows from the content that is wanted, and the next run goes on behind the last byte. The front is hashed
again before it is gone on with: it counts only when the hash of the whole is right.
"""

import contextlib
import hashlib
import os
import threading
from collections.abc import Callable
from pathlib import Path

from planner.hub.storing import storage_error

__all__ = ["Arrival"]

_CHUNK_BYTES = 4 << 20


class Arrival:
    """The partial file at ``path`` of a file with ``size_bytes``; ``held`` bytes are there, ``resumed`` were before.

    Every method raises FileIOError where the disk does. After :meth:`close` nothing can be written any more, also not
    by a thread that was left behind.
    """

    def __init__(self, path: Path, size_bytes: int, *, on_front: Callable[[int], None] | None = None) -> None:
        self.path = path
        self.size_bytes = size_bytes
        self.received = 0
        self.held = 0
        self._lock = threading.Lock()
        self._digest = hashlib.sha256()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
            self._file = os.fdopen(handle, "r+b", buffering=0)
        except OSError as error:
            raise storage_error(path, error) from error
        try:
            self._read_front(on_front)
        except BaseException:
            self._file.close()
            raise
        self.resumed = self.held

    @property
    def whole(self) -> bool:
        """Whether as many bytes are there as the file has."""
        return self.held == self.size_bytes

    def write(self, data: bytes, at: int) -> bool:
        """Add the bytes that begin at position ``at``; False, and nothing is written, when that is not the next one.

        A connection that was given up may still bring something: it is out of step, or it brings the same bytes.
        """
        with self._lock:
            if at != self.held or at + len(data) > self.size_bytes or self._file.closed:
                return False
            view = memoryview(data)
            try:
                while view:
                    written = self._file.write(view) or 0
                    self._digest.update(view[:written])
                    self.held += written
                    self.received += written
                    view = view[written:]
            except OSError as error:
                raise storage_error(self.path, error) from error
            return True

    def restart(self) -> None:
        """Forget everything: the next byte is the file's first."""
        with self._lock:
            if self._file.closed:
                return
            try:
                self._file.seek(0)
                self._file.truncate()
            except OSError as error:
                raise storage_error(self.path, error) from error
            self._digest = hashlib.sha256()
            self.held = 0

    def finish(self) -> str:
        """The SHA-256 of all that is there, once it is safe on the disk; the file stays where it is."""
        with self._lock:
            try:
                os.fsync(self._file.fileno())
            except OSError as error:
                raise storage_error(self.path, error) from error
            self._file.close()
            return self._digest.hexdigest()

    def close(self) -> None:
        """Write no more; what is there is kept for the next run, and a file without a byte is not."""
        with self._lock:
            self._file.close()
            if self.held == 0:
                with contextlib.suppress(OSError):
                    self.path.unlink()

    def discard(self) -> None:
        """Write no more and keep nothing."""
        with self._lock:
            self._file.close()
            with contextlib.suppress(OSError):
                self.path.unlink()

    def _read_front(self, on_front: Callable[[int], None] | None) -> None:
        try:
            if os.fstat(self._file.fileno()).st_size > self.size_bytes:
                self._file.truncate(0)  # longer than the file itself: it is no front of it
            while data := self._file.read(_CHUNK_BYTES):
                self._digest.update(data)
                self.held += len(data)
                if on_front is not None:
                    on_front(self.held)
        except OSError as error:
            raise storage_error(self.path, error) from error
