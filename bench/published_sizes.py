"""What others published, read as intervals: a page rounds what it prints, and a file holds more than weights.

The mistake it prevents is a tolerance that hides a wrong layout, or one that blames the layout for a page's rounding:
a size printed as "4.68 GB" is 4.675 to 4.685, no more and no less, and what a tokenizer takes is estimated with its own
uncertainty instead of being waved through.
"""

import math
import tomllib
from pathlib import Path
from typing import Literal, NamedTuple

import msgspec

__all__ = ["DATA", "Counted", "Interval", "Published", "interval", "read", "read_counts", "tokenizer_bytes"]

DATA = Path(__file__).with_name("data") / "file_sizes.toml"

_UNITS = {"bytes": 1, "MB": 10**6, "GB": 10**9, "MiB": 1 << 20, "GiB": 1 << 30}

# A tokenizer in a GGUF holds for each entry a length (8 bytes), the text (5 to 9), a type (4) and a score (4) or a
# merge rule (8 + 7). Published file less tensors: Qwen3-8B Q4_K_M (4795 - 4789.2 MiB) / 151,936 entries = 40 bytes; a
# SentencePiece table without merges is half of that, Llama 3 with its 280,147 merges half as much again.
_BYTES_PER_ENTRY = 40
_SPREAD = 0.5


class Interval(NamedTuple):
    """Bytes from ``low`` to ``high``."""

    low: float
    high: float

    @property
    def middle(self) -> float:
        """The number in between."""
        return (self.low + self.high) / 2

    def __add__(self, other: object) -> "Interval":
        """The interval of the sum."""
        if not isinstance(other, Interval):
            return NotImplemented
        return Interval(self.low + other.low, self.high + other.high)

    def gap(self, other: "Interval") -> float:
        """How far two intervals are apart, in shares of the other's middle; 0 when they meet, positive when above."""
        if self.low > other.high:
            return (self.low - other.high) / other.middle
        return min(0.0, self.high - other.low) / other.middle


class Published(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One page's sizes of one model; ``bench/data/file_sizes.toml`` explains each field."""

    model: str
    publisher: str
    source: str
    counts: Literal["file", "tensors"]
    unit: Literal["bytes", "MB", "GB", "MiB", "GiB"]
    sizes: dict[str, str]
    of: str | None = None
    digits: int | None = None
    excess: float = 0.0
    imatrix: bool = False
    blocks: Literal["as laid out", "and mtp"] = "as laid out"
    output: Literal["as converted", "copied", "counted twice"] = "as converted"
    mix: str | None = None
    differs: dict[str, str] = {}


def read(path: Path = DATA) -> list[Published]:
    """All published sizes. Raises ValueError for a field that is wrong or an explanation without a size."""
    tables = tomllib.loads(path.read_text(encoding="utf-8"))["published"]
    published = msgspec.convert(tables, list[Published])
    for page in published:
        stray = set(page.differs) - set(page.sizes)
        if stray:
            raise ValueError(f"{path}: {page.source}: differs names {', '.join(sorted(stray))}, which has no size")
    return published


class Counted(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The number of parameters that llama.cpp printed for somebody's file of a model."""

    model: str
    parameters: str
    source: str
    mtp: bool = False

    def names(self, count: int) -> bool:
        """Whether ``count`` is the printed number, rounded to its last digit."""
        text, unit = (
            (self.parameters.removesuffix(" T"), 1e12) if self.parameters.endswith("T") else (self.parameters, 1e9)
        )
        decimals = text.partition(".")[2]
        if not decimals:
            return count == int(text)
        return abs(count / unit - float(text)) <= 0.5 * 10.0 ** -len(decimals) + 1e-9


def read_counts(path: Path = DATA) -> list[Counted]:
    """All printed parameter counts."""
    return msgspec.convert(tomllib.loads(path.read_text(encoding="utf-8"))["counted"], list[Counted])


def interval(page: Published, quantization: str) -> Interval:
    """What a printed size can mean, in bytes: half a step of the last digit to either side, less what the page adds."""
    text = page.sizes[quantization]
    value, unit = float(text), _UNITS[page.unit]
    if page.unit == "bytes":
        return Interval(value, value)
    if page.digits is not None:
        half = 0.5 * 10.0 ** (math.floor(math.log10(value)) + 1 - page.digits)
    else:
        half = 0.5 * 10.0 ** -len(text.partition(".")[2])
    return Interval((value - half - page.excess) * unit, (value + half - page.excess) * unit)


def tokenizer_bytes(entries: int) -> Interval:
    """What a tokenizer of so many entries takes in a file: an estimate, with the spread over kinds of tokenizer."""
    middle = _BYTES_PER_ENTRY * entries
    return Interval(middle * (1 - _SPREAD), middle * (1 + _SPREAD))
