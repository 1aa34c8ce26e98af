"""ggml's tensor types: number, block size, and where in a block the scales stand, so that random weights stay sane.

Random bytes are no random weights: a scale that happens to be NaN or 10⁴ turns every activation into NaN, and a kernel
then runs at another speed. Tests hold this table against the engine's own.
"""

import struct
from collections.abc import Mapping
from typing import NamedTuple

__all__ = ["TYPES", "GgmlType", "tensor_bytes"]


class GgmlType(NamedTuple):
    """One type: ``number`` in a GGUF, ``block`` values in ``size_bytes``.

    ``fixed`` are the bytes of each block that must not be random: (offset, value) pairs.
    """

    number: int
    block: int
    size_bytes: int
    fixed: tuple[tuple[int, bytes], ...] = ()


def _half(value: float) -> bytes:
    return struct.pack("<e", value)


def _scales(*pairs: tuple[int, float]) -> tuple[tuple[int, bytes], ...]:
    return tuple((offset, _half(value)) for offset, value in pairs)


# The scales give weights of about ±0.02 around zero, as trained ones have: with sub-scales of 4 to 6 bits the block
# scale is small, and a minimum (second pair) balances quants that are not centred.
TYPES: Mapping[str, GgmlType] = {
    "F32": GgmlType(0, 1, 4),
    "F16": GgmlType(1, 1, 2),
    "BF16": GgmlType(30, 1, 2),
    "Q4_0": GgmlType(2, 32, 18, _scales((0, 0.004))),
    "Q4_1": GgmlType(3, 32, 20, _scales((0, 0.004), (2, -0.03))),
    "Q5_0": GgmlType(6, 32, 22, _scales((0, 0.002))),
    "Q5_1": GgmlType(7, 32, 24, _scales((0, 0.002), (2, -0.031))),
    "Q8_0": GgmlType(8, 32, 34, _scales((0, 0.00027))),
    "Q2_K": GgmlType(10, 256, 84, _scales((80, 0.002), (82, 0.003))),
    "Q3_K": GgmlType(11, 256, 110, _scales((108, 0.0005))),
    "Q4_K": GgmlType(12, 256, 144, _scales((0, 0.00012), (2, 0.0009))),
    "Q5_K": GgmlType(13, 256, 176, _scales((0, 0.00006), (2, 0.00093))),
    "Q6_K": GgmlType(14, 256, 210, _scales((208, 0.000015))),
    "IQ2_XXS": GgmlType(16, 256, 66, _scales((0, 0.0004))),
    "IQ2_XS": GgmlType(17, 256, 74, _scales((0, 0.0004))),
    "IQ3_XXS": GgmlType(18, 256, 98, _scales((0, 0.0002))),
    "IQ1_S": GgmlType(19, 256, 50, _scales((0, 0.003))),
    "IQ4_NL": GgmlType(20, 32, 18, _scales((0, 0.0003))),
    "IQ3_S": GgmlType(21, 256, 110, _scales((0, 0.0002))),
    "IQ2_S": GgmlType(22, 256, 82, _scales((0, 0.0004))),
    "IQ4_XS": GgmlType(23, 256, 136, _scales((0, 0.00002))),
    # The half-precision scale 0x1A00 (0.003) is spread over the top four bits of four 16-bit words.
    "IQ1_M": GgmlType(29, 256, 56, ((49, b"\x00"), (51, b"\x00"), (53, b"\xa0"), (55, b"\x10"))),
    "TQ1_0": GgmlType(34, 256, 54, _scales((52, 0.02))),
    "TQ2_0": GgmlType(35, 256, 66, _scales((64, 0.02))),
    # One exponent byte: 2^(120−127) times quants of up to 6.
    "MXFP4": GgmlType(39, 32, 17, ((0, b"\x78"),)),
    # Four small floats (4 exponent bits, 3 of mantissa), one for each 16 values: 4·2⁻⁹.
    "NVFP4": GgmlType(40, 64, 36, ((0, b"\x04\x04\x04\x04"),)),
    "Q1_0": GgmlType(41, 128, 18, _scales((0, 0.02))),
    "Q2_0": GgmlType(42, 64, 18, _scales((0, 0.02))),
}


def tensor_bytes(kind: str, dims: tuple[int, ...]) -> int:
    """Bytes of a tensor of type ``kind`` (``Q4_K``) with ``dims`` in ggml order (rows run along the first).

    Raises ValueError for an unknown type or a row that is no whole number of blocks.
    """
    ggml = TYPES.get(kind)
    if ggml is None:
        raise ValueError(f"unknown ggml type {kind!r}")
    row, *rest = dims
    if row % ggml.block:
        raise ValueError(f"a row of {row} values is no whole number of {kind} blocks of {ggml.block}")
    total = row // ggml.block * ggml.size_bytes
    for dim in rest:
        total *= dim
    return total
