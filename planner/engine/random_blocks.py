"""Endless random weights of any ggml type, made once per type and repeated, so that gigabytes cost little.

What it prevents: weights that compute to NaN or infinity (scales are fixed, see :mod:`planner.engine.ggml_types`),
routers that always pick the same experts (zeros), and layers that are copies of each other (each tensor starts at
another place of the same stretch).
"""

import random
from collections.abc import Iterator

from planner.engine.ggml_types import TYPES, GgmlType

__all__ = ["RandomBlocks"]

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
        for offset, value in ggml.fixed:
            for index, byte in enumerate(value):
                data[offset + index :: ggml.size_bytes] = bytes([byte]) * blocks
        return bytes(data)


def _translate(data: bytearray, width: int, tables: dict[int, bytes]) -> None:
    for offset, table in tables.items():
        data[offset::width] = data[offset::width].translate(table)
