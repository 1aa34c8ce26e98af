"""Checks the numbers of a header that somebody calculates with, here or in the engine, and reads the split keys.

A layer count of 0 or 1000 ends llama.cpp's process with a failed assertion, and one of 2³² would make a slice of it
endless here. What lies outside these bounds is refused with the key in the message, before anybody multiplies.
"""

import struct
from collections.abc import Mapping
from typing import Final

from planner.gguf.cursor import Cursor
from planner.gguf.walked import KeySpot, SplitSpot

__all__ = ["check_numbers"]

_INTEGERS: Final = {
    "u8": struct.Struct("<B"), "i8": struct.Struct("<b"), "u16": struct.Struct("<H"), "i16": struct.Struct("<h"),
    "u32": struct.Struct("<I"), "i32": struct.Struct("<i"), "u64": struct.Struct("<Q"), "i64": struct.Struct("<q"),
}  # fmt: skip
_MOST_LAYERS: Final = 512  # LLAMA_MAX_LAYERS; beyond it the engine asserts
_LONGEST_ARCHITECTURE_BYTES: Final = 64

# <architecture>.<key> → smallest and largest value. Head counts and feed-forward lengths may be arrays with a value
# for each layer, and 0 in layers without attention (all layers of Mamba).
_BOUNDS: Final[Mapping[str, tuple[int, int]]] = {
    "block_count": (1, _MOST_LAYERS),
    "context_length": (1, 1 << 31),
    "embedding_length": (1, 1 << 24),
    "feed_forward_length": (0, 1 << 24),
    "vocab_size": (1, 1 << 24),
    "attention.head_count": (0, 1 << 16),
    "attention.head_count_kv": (0, 1 << 16),
    "attention.key_length": (0, 1 << 20),
    "attention.value_length": (0, 1 << 20),
    "expert_count": (0, 1024),
    "expert_used_count": (0, 1024),
    "expert_shared_count": (0, 1024),
    "leading_dense_block_count": (0, _MOST_LAYERS),
    "nextn_predict_layers": (0, _MOST_LAYERS),
}
_PER_LAYER: Final = {"feed_forward_length", "attention.head_count", "attention.head_count_kv"}


def check_numbers(
    cursor: Cursor, keys: Mapping[str, KeySpot], warnings: list[str]
) -> tuple[str | None, SplitSpot | None]:
    """The architecture's name and the place in a split model, after all numbers that matter were checked."""
    architecture = _architecture(cursor, keys)
    if architecture is not None:
        numbers = {name: _checked(cursor, keys, f"{architecture}.{name}", name) for name in _BOUNDS}
        _check_together(cursor, architecture, numbers)
    _check_booleans(cursor, keys, warnings)
    return architecture, _split(cursor, keys)


def _architecture(cursor: Cursor, keys: Mapping[str, KeySpot]) -> str | None:
    key = "general.architecture"
    spot = keys.get(key)
    if spot is None:
        return None
    if spot.type != "str" or not 1 <= spot.length <= _LONGEST_ARCHITECTURE_BYTES:
        raise cursor.bad("it must be a short text", key=key, at=spot.offset)
    cursor.position = spot.offset - 8
    return cursor.text("the architecture", _LONGEST_ARCHITECTURE_BYTES)


def _checked(cursor: Cursor, keys: Mapping[str, KeySpot], key: str, name: str) -> int | None:
    """The number of ``key``, within its bounds; of an array each element is checked and ``None`` returned."""
    spot = keys.get(key)
    if spot is None:
        return None
    least, most = _BOUNDS[name]
    if spot.type in _INTEGERS:
        values = [_integer(cursor, spot)]
    elif name in _PER_LAYER and spot.type[1:-1] in _INTEGERS and spot.length <= _MOST_LAYERS:
        form = _INTEGERS[spot.type[1:-1]]
        spots = (KeySpot(spot.type[1:-1], spot.offset + index * form.size, 1) for index in range(spot.length))
        values = [_integer(cursor, each) for each in spots]
    else:
        raise cursor.bad(f"a number is needed and {spot.type} stands there", key=key, at=spot.offset)
    for value in values:
        if not least <= value <= most:
            raise cursor.bad(f"{value} is not in {least} to {most}", key=key, at=spot.offset)
    return values[0] if spot.type in _INTEGERS else None


def _check_together(cursor: Cursor, architecture: str, numbers: Mapping[str, int | None]) -> None:
    """Numbers that bound each other."""
    for name, bound in (
        ("expert_used_count", "expert_count"),
        ("leading_dense_block_count", "block_count"),
        ("nextn_predict_layers", "block_count"),
    ):
        small, large = numbers[name], numbers[bound]
        if small is not None and large is not None and small > large:
            raise cursor.bad(f"{small} is more than {bound}, {large}", key=f"{architecture}.{name}")


def _integer(cursor: Cursor, spot: KeySpot) -> int:
    cursor.position = spot.offset
    return int(cursor.unpack(_INTEGERS[spot.type])[0])


def _check_booleans(cursor: Cursor, keys: Mapping[str, KeySpot], warnings: list[str]) -> None:
    """A truth value other than 0 and 1 is read as true by the engine; it is odd enough to be told."""
    for key, spot in keys.items():
        if spot.type == "bool" and _integer(cursor, KeySpot("u8", spot.offset, 1)) > 1:
            warnings.append(f"{key!a} is neither true nor false")


def _split(cursor: Cursor, keys: Mapping[str, KeySpot]) -> SplitSpot | None:
    found: dict[str, int] = {}
    for key in ("split.no", "split.count", "split.tensors.count"):
        spot = keys.get(key)
        if spot is None:
            continue
        if spot.type not in _INTEGERS:
            raise cursor.bad(f"a number is needed and {spot.type} stands there", key=key, at=spot.offset)
        found[key] = _integer(cursor, spot)
        if not 0 <= found[key] < 1 << 31:
            raise cursor.bad(f"{found[key]} is no possible number", key=key, at=spot.offset)
    count = found.get("split.count", 0)
    if count == 0:
        return None
    index = found.get("split.no")
    if index is None or index >= count or count > 1 << 16:
        raise cursor.bad(f"it is part {index} of {count}", key="split.count", at=keys["split.count"].offset)
    return SplitSpot(index, count, found.get("split.tensors.count"))
