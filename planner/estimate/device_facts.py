"""What a data sheet says about an accelerator, found by the name that its driver gives.

No driver tells the rate of the matrix units, and only NVIDIA's tells the bandwidth. All such figures stand once, with
their sources, in ``profiles/devices/*.toml``. The mistake it prevents is a near match: an RTX 4070 is no RTX 4070 Ti
and no RTX 4070 Laptop, so a name that is not wholly known is unknown.
"""

import functools
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import msgspec

from planner.errors import BadInputError
from planner.files import profiles_dir
from planner.types import Record

__all__ = ["DeviceFacts", "Fact", "MemoryKind", "device_facts", "read_devices"]

MemoryKind = Literal["hbm", "gddr", "lpddr", "ddr"]

_VENDOR_WORDS = frozenset(
    (
        *("nvidia", "geforce", "tesla", "amd", "radeon", "instinct", "intel", "apple", "corporation"),
        *("graphics", "gpu", "generation", "tm", "r"),
    )
)
_SIZE = re.compile(r"\d+gb?\b")


class Fact(Record, frozen=True, kw_only=True):
    """One number and where it was read."""

    value: float = msgspec.field(name="is")
    source: str


class DeviceFacts(Record, frozen=True, kw_only=True):
    """One accelerator: its memory, the generation whose kernels it runs, and two peaks where somebody states them.

    ``memory_gb`` is that of the largest version. ``matrix_tflops`` is the dense fp16 rate with sums in fp16 of the
    fastest unit that llama.cpp's kernels use.
    """

    name: str
    aliases: tuple[str, ...] = ()
    generation: str
    memory: MemoryKind
    memory_gb: int | None = None
    bandwidth_gb_per_s: Fact | None = None
    matrix_tflops: Fact | None = None
    notes: str | None = None

    @property
    def bandwidth_bytes_per_s(self) -> int | None:
        """Peak bandwidth of the memory."""
        return round(self.bandwidth_gb_per_s.value * 1e9) if self.bandwidth_gb_per_s else None

    @property
    def matrix_flops_per_s(self) -> float | None:
        """Peak rate of the matrix units."""
        return self.matrix_tflops.value * 1e12 if self.matrix_tflops else None


class _File(Record, frozen=True, kw_only=True):
    devices: tuple[DeviceFacts, ...]


def device_facts(name: str | None) -> DeviceFacts | None:
    """The facts about the accelerator that a driver calls ``name``; ``None`` where no data sheet is at hand.

    What stands in brackets and the vendor's words do not count, nor does a memory size that no entry asks for.
    """
    if not name:
        return None
    words = _words(name)
    table = _table()
    return table.get(words) or table.get(frozenset(word for word in words if not _SIZE.fullmatch(word)))


def read_devices(folder: Path) -> tuple[DeviceFacts, ...]:
    """All devices of ``folder``. Raises BadInputError naming the file that is wrong, and a name that stands twice."""
    found: list[DeviceFacts] = []
    for path in sorted(folder.glob("*.toml")):
        try:
            found += msgspec.convert(tomllib.loads(path.read_text(encoding="utf-8")), _File).devices
        except (tomllib.TOMLDecodeError, msgspec.ValidationError, UnicodeDecodeError) as error:
            raise BadInputError(f"{path}: {error}", hint="mend that line of the profile") from error
    seen: set[frozenset[str]] = set()
    for name in (name for device in found for name in set(_names(device))):
        if (words := _words(name)) in seen:
            raise BadInputError(f"{folder}: two devices are called {name!r}", hint="keep one of them")
        seen.add(words)
    return tuple(found)


@functools.cache
def _table() -> dict[frozenset[str], DeviceFacts]:
    return {_words(name): device for device in read_devices(profiles_dir() / "devices") for name in _names(device)}


def _names(device: DeviceFacts) -> Iterator[str]:
    """Names that differ in their words."""
    seen = set()
    for name in (device.name, *device.aliases):
        if (words := _words(name)) not in seen:
            seen.add(words)
            yield name


def _words(name: str) -> frozenset[str]:
    bare = re.sub(r"\([^)]*\)", " ", name.casefold())
    return frozenset(re.findall(r"[a-z0-9]+", bare)) - _VENDOR_WORDS
