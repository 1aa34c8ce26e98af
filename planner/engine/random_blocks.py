"""Endless random weights of any ggml type, made once per type and repeated, so that gigabytes cost little.

What it prevents: weights that compute to NaN or infinity (a scale that happens to be NaN or 10⁴ turns every activation
into NaN, and a kernel then runs at another speed), routers that always pick the same experts (zeros), and layers that
are copies of each other (each tensor starts at another place of the same stretch).
"""

import random
import struct
from collections.abc import Iterator, Mapping

from planner.gguf.ggml_types import TYPES, GgmlType

__all__ = ["RANDOM_TYPES", "RandomBlocks"]

_Fixed = tuple[tuple[int, bytes], ...]


def _scales(*pairs: tuple[int, float]) -> _Fixed:
    return tuple((offset, struct.pack("<e", value)) for offset, value in pairs)


# Bytes of each block that must not be random. The scales give weights of about ±0.02 around zero, as trained ones
# have: with sub-scales of 4 to 6 bits the block scale is small, and a minimum (second pair) balances quants that are
# not centred.
_FIXED: Mapping[str, _Fixed] = {
    "Q4_0": _scales((0, 0.004)),
    "Q4_1": _scales((0, 0.004), (2, -0.03)),
    "Q5_0": _scales((0, 0.002)),
    "Q5_1": _scales((0, 0.002), (2, -0.031)),
    "Q8_0": _scales((0, 0.00027)),
    "Q2_K": _scales((80, 0.002), (82, 0.003)),
    "Q3_K": _scales((108, 0.0005)),
    "Q4_K": _scales((0, 0.00012), (2, 0.0009)),
    "Q5_K": _scales((0, 0.00006), (2, 0.00093)),
    "Q6_K": _scales((208, 0.000015)),
    "IQ2_XXS": _scales((0, 0.0004)),
    "IQ2_XS": _scales((0, 0.0004)),
    "IQ3_XXS": _scales((0, 0.0002)),
    "IQ1_S": _scales((0, 0.003)),
    "IQ4_NL": _scales((0, 0.0003)),
    "IQ3_S": _scales((0, 0.0002)),
    "IQ2_S": _scales((0, 0.0004)),
    "IQ4_XS": _scales((0, 0.00002)),
    # The half-precision scale 0x1A00 (0.003) is spread over the top four bits of four 16-bit words.
    "IQ1_M": ((49, b"\x00"), (51, b"\x00"), (53, b"\xa0"), (55, b"\x10")),
    "TQ1_0": _scales((52, 0.02)),
    "TQ2_0": _scales((64, 0.02)),
    # One exponent byte: 2^(120−127) times quants of up to 6.
    "MXFP4": ((0, b"\x78"),),
    # Four small floats (4 exponent bits, 3 of mantissa), one for each 16 values: 4·2⁻⁹.
    "NVFP4": ((0, b"\x04\x04\x04\x04"),),
    "Q1_0": _scales((0, 0.02)),
    "Q2_0": _scales((0, 0.02)),
}

RANDOM_TYPES = ("F32", "F16", "BF16", *_FIXED)
"""Types that can be filled at random; tensors of integers (tables of indices) and of F64 are left at zero."""

# Larger than any router of today (DeepSeek-V3: 7 MiB), so that no two experts of one layer get the same weights.
_STRETCH_BYTES = 16 << 20

# ±[1, 2)·2⁻⁶ for weights, [1, 1.03) for norms: sign and exponent come from tables, the mantissa stays random.
_SIGNED_TOP = bytes((byte & 0x80) | 0x3C for byte in range(256))
_HALF_TOP = bytes((byte & 0x80) | 0x24 | (byte & 0x03) for byte in range(256))
_EXPONENT_BIT = bytes(byte | 0x80 for byte in range(256))
_ONE_TOP = bytes([0x3F] * 256)
_ONE_SECOND = bytes(0x80 | (byte & 0x03) for byte in range(256))


class RandomBlocks:
    """Valid random tensor data; equal seeds give equal bytes."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)  # noqa: S311 - weights, no secrets
        self._stretches: dict[tuple[str, bool], bytes] = {}

    def chunks(self, kind: str, name: str, size_bytes: int) -> Iterator[memoryview]:
        """``size_bytes`` of valid data for tensor ``name`` of type ``kind``, in pieces of at most 16 MiB."""
        if kind not in RANDOM_TYPES:
            return  # an index that points nowhere ends the engine; what is not written reads as zero
        near_one = "norm" in name or name.startswith("rope_")
        block = TYPES[kind].size_bytes
        stretch = memoryview(self._stretch(kind, near_one, size_bytes))
        start = self._random.randrange(len(stretch) // block) * block
        left = size_bytes
        while left > 0:
            piece = stretch[start : start + left]
            yield piece
            left -= len(piece)
            start = 0

    def _stretch(self, kind: str, near_one: bool, size_bytes: int) -> bytes:
        key = (kind, near_one)
        ggml = TYPES[kind]
        wanted = min(_STRETCH_BYTES, size_bytes) // ggml.size_bytes * ggml.size_bytes
        if len(self._stretches.get(key, b"")) < wanted:
            self._stretches[key] = self._make(kind, ggml, wanted, near_one=near_one)
        return self._stretches[key]

    def _make(self, kind: str, ggml: GgmlType, size_bytes: int, *, near_one: bool) -> bytes:
        data = bytearray(self._random.randbytes(size_bytes))
        if kind == "F32" and near_one:
            _translate(data, 4, {3: _ONE_TOP, 2: _ONE_SECOND})
        elif kind == "F32":
            _translate(data, 4, {3: _SIGNED_TOP, 2: _EXPONENT_BIT})
        elif kind == "BF16":
            _translate(data, 2, {1: _SIGNED_TOP, 0: _EXPONENT_BIT})
        elif kind == "F16":
            _translate(data, 2, {1: _HALF_TOP})
        blocks = size_bytes // ggml.size_bytes
        for offset, value in _FIXED.get(kind, ()):
            for index, byte in enumerate(value):
                data[offset + index :: ggml.size_bytes] = bytes([byte]) * blocks
        return bytes(data)


def _translate(data: bytearray, width: int, tables: dict[int, bytes]) -> None:
    for offset, table in tables.items():
        data[offset::width] = data[offset::width].translate(table)
