"""A GGUF metadata value with the very type it was stored in, so that a copy of a header is the header.

An integer alone does not say whether it was a u32 or a u64, and the engine refuses a key of the wrong width.
"""

from typing import Literal

from planner.types import Report

__all__ = ["GgufType", "GgufValue"]

GgufType = Literal[
    "u8", "i8", "u16", "i16", "u32", "i32", "f32", "bool", "str", "u64", "i64", "f64",
    "[u8]", "[i8]", "[u16]", "[i16]", "[u32]", "[i32]", "[f32]", "[bool]", "[str]", "[u64]", "[i64]", "[f64]",
]  # fmt: skip
"""A scalar, text, or in brackets an array of one of them."""


class GgufValue(Report, frozen=True, kw_only=True):
    """``value`` as it stands in a file under ``type``; a tuple for an array."""

    type: GgufType
    value: str | int | float | bool | tuple[str | int | float | bool, ...]
