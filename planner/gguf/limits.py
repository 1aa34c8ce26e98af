"""How much a header may ask of us: one number for each thing that a hostile file can make large.

Upstream caps strings and arrays at 2³⁰ and nothing else; a planner reads headers of strangers by the dozen, so every
length, count and second has a bound here, far above what real models need and far below what hurts.
"""

from planner.types import Record

__all__ = ["LIMITS", "Limits"]


class Limits(Record, frozen=True, kw_only=True):
    """Bounds of one header; each may be raised by a caller who knows the file.

    The largest known vocabularies have 262,144 tokens and 515,000 merges in a header of 16 MB, the longest templates
    60 kB, the largest models 2,500 tensors. ``strings`` counts the elements of all arrays of strings together: each
    takes one step of a loop, so it bounds the time, as ``keys_bytes`` bounds what is kept of the keys.
    """

    header_bytes: int = 64 << 20
    keys: int = 4096
    key_bytes: int = (1 << 16) - 1
    keys_bytes: int = 4 << 20
    string_bytes: int = 1 << 20
    long_string_bytes: int = 32 << 20
    long_strings: frozenset[str] = frozenset({"tokenizer.huggingface.json", "tokenizer.rwkv.world"})
    array_strings: int = 1 << 20
    strings: int = 1 << 21
    tensors: int = 1 << 16
    alignment: int = 1 << 20
    seconds: float = 5.0


LIMITS = Limits()
"""The bounds that hold unless a caller says otherwise."""
