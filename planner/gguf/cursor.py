"""Reads little-endian values from the front of a file without ever trusting a length in it.

Every read says how many bytes it needs and is refused before it happens: beyond the file's end the file is bad, beyond
what has arrived so far it is merely incomplete. All sums are Python integers, which cannot wrap; that is the mistake
which upstream mended four times in one year.
"""

import struct
import time
from collections.abc import Callable
from mmap import mmap
from typing import Final

from planner.errors import BadInputError
from planner.gguf.limits import Limits

__all__ = ["Buffer", "Cursor", "Incomplete", "quoted"]

Buffer = bytes | bytearray | memoryview | mmap

_U32: Final = struct.Struct("<I")
_U64: Final = struct.Struct("<Q")
_WINDOW_BYTES: Final = 1 << 20


class Incomplete(Exception):  # noqa: N818 - no fault of anybody: more of the file has to arrive
    """The header goes on beyond the bytes at hand: ``needed_bytes`` from the file's start is the least it takes."""

    def __init__(self, needed_bytes: int) -> None:
        super().__init__(f"the header needs at least {needed_bytes} bytes")
        self.needed_bytes = needed_bytes


class Cursor:
    """A place in the header; ``later`` is what must at least follow the record that is being read.

    ``available`` bytes can be read, the file has ``file_bytes`` (``None``: unknown). ``refill`` reads a stretch of a
    source that is not in memory.
    """

    def __init__(
        self,
        window: Buffer,
        available: int,
        *,
        file_bytes: int | None,
        limits: Limits,
        refill: Callable[[int, int], bytes] | None = None,
    ) -> None:
        self.position = 0
        self.later = 0
        self.limits = limits
        self.file_bytes = file_bytes
        self._available = available if file_bytes is None else min(available, file_bytes)
        self._window = window
        self._base = 0
        self._refill = refill
        self._until = time.monotonic() + limits.seconds

    @property
    def left_bytes(self) -> int:
        """How many bytes the rest of the header can have at most."""
        end = self.limits.header_bytes if self.file_bytes is None else min(self.limits.header_bytes, self.file_bytes)
        return end - self.position

    def bad(self, what: str, *, key: str | None = None, at: int | None = None) -> BadInputError:
        """The one error for every lie, with its place: raise what this returns."""
        place = f"byte {self.position if at is None else at}"
        if key is not None:
            place = f"{quoted(key)}, {place}"
        hint = "download it again from its publisher; no setting makes this file readable"
        return BadInputError(f"not a sound GGUF: {what} ({place})", hint=hint, code="bad-gguf")

    def check_clock(self) -> None:
        """Give up on a header that has taken longer than the limit."""
        if time.monotonic() > self._until:
            raise self.bad(f"its header takes longer than {self.limits.seconds:g} s to read")

    def u32(self) -> int:
        """An unsigned integer of 32 bits."""
        return int(self.unpack(_U32)[0])

    def u64(self) -> int:
        """An unsigned integer of 64 bits."""
        return int(self.unpack(_U64)[0])

    def unpack(self, form: struct.Struct) -> tuple[int | float | bool, ...]:
        """The values of ``form`` at this place."""
        index = self._index(form.size)
        self.position += form.size
        return form.unpack_from(self._window, index)

    def text(self, what: str, longest_bytes: int) -> str:
        """A string of at most ``longest_bytes``, which must be UTF-8; ``what`` names it in an error."""
        at = self.position
        size = self._length(what, longest_bytes)
        index = self._index(size)
        self.position += size
        try:
            return bytes(self._window[index : index + size]).decode()
        except UnicodeDecodeError as error:
            raise self.bad(f"{what} is not UTF-8", at=at) from error

    def skip_text(self, what: str, longest_bytes: int) -> int:
        """Step over a string; its length."""
        size = self._length(what, longest_bytes)
        self.skip(size)
        return size

    def skip(self, size_bytes: int) -> None:
        """Step over ``size_bytes``, which must be there."""
        self._require(self.position + size_bytes)
        self.position += size_bytes

    def skip_strings(self, count: int) -> None:
        """Step over ``count`` strings: one short step of a loop for each, nothing is kept."""
        later, unpack = self.later, _U64.unpack_from
        while count:
            self.later = later + 8 * (count - 1)
            index = self._index(8)
            window, last, step = self._window, len(self._window) - 8, 0
            for step in range(1, count + 1):  # noqa: B007 - how far it came counts
                index += 8 + unpack(window, index)[0]
                if index > last:
                    break
            count -= step
            self.later = later + 8 * count
            self._require(self._base + index)
            self.position = self._base + index
        self.later = later

    def _length(self, what: str, longest_bytes: int) -> int:
        at = self.position
        size = self.u64()
        if size > longest_bytes:
            raise self.bad(f"{what} claims {size} bytes, more than {longest_bytes}", at=at)
        return size

    def _require(self, end: int) -> None:
        """Bytes up to ``end`` must be there; else tell a file that ends too early from one that is still arriving."""
        if end <= self._available and end <= self.limits.header_bytes:
            return
        needed = end + self.later
        if self.file_bytes is not None and needed > self.file_bytes:
            raise self.bad(f"it needs {needed} bytes up to here and the file has {self.file_bytes}")
        if needed > self.limits.header_bytes:
            raise self.bad(f"its header needs {needed} bytes, more than {self.limits.header_bytes}")
        raise Incomplete(needed)

    def _index(self, size_bytes: int) -> int:
        """Where in the window the next ``size_bytes`` stand, after bringing them there."""
        self._require(self.position + size_bytes)
        index = self.position - self._base
        if self._refill is not None and not 0 <= index <= len(self._window) - size_bytes:
            wanted = min(max(size_bytes, _WINDOW_BYTES), self._available - self.position)
            self._window, self._base, index = self._refill(self.position, wanted), self.position, 0
            if len(self._window) < size_bytes:
                raise self.bad("the file became shorter while it was read")
        return index


def quoted(text: str) -> str:
    """A name from a foreign file, fit for a message: escaped, in quotes, at most about 80 characters."""
    return ascii(text if len(text) <= 80 else text[:77] + "...")
