"""ggml's tensor types: the number of each in a GGUF, its block and the bytes of a block.

Sizes of tensors follow from this table and from nothing else; tests hold it against the engine's own. A number that is
missing here was removed from ggml (4, 5, 31 to 33, 36 to 38) or is newer than this planner.
"""

from collections.abc import Mapping
from typing import NamedTuple

__all__ = ["BY_NUMBER", "TYPES", "GgmlType", "tensor_bytes"]


class GgmlType(NamedTuple):
    """One type: ``number`` in a GGUF, ``block`` values in ``size_bytes``."""

    number: int
    block: int
    size_bytes: int


TYPES: Mapping[str, GgmlType] = {
    "F32": GgmlType(0, 1, 4),
    "F16": GgmlType(1, 1, 2),
    "Q4_0": GgmlType(2, 32, 18),
    "Q4_1": GgmlType(3, 32, 20),
    "Q5_0": GgmlType(6, 32, 22),
    "Q5_1": GgmlType(7, 32, 24),
    "Q8_0": GgmlType(8, 32, 34),
    "Q8_1": GgmlType(9, 32, 36),
    "Q2_K": GgmlType(10, 256, 84),
    "Q3_K": GgmlType(11, 256, 110),
    "Q4_K": GgmlType(12, 256, 144),
    "Q5_K": GgmlType(13, 256, 176),
    "Q6_K": GgmlType(14, 256, 210),
    "Q8_K": GgmlType(15, 256, 292),
    "IQ2_XXS": GgmlType(16, 256, 66),
    "IQ2_XS": GgmlType(17, 256, 74),
    "IQ3_XXS": GgmlType(18, 256, 98),
    "IQ1_S": GgmlType(19, 256, 50),
    "IQ4_NL": GgmlType(20, 32, 18),
    "IQ3_S": GgmlType(21, 256, 110),
    "IQ2_S": GgmlType(22, 256, 82),
    "IQ4_XS": GgmlType(23, 256, 136),
    "I8": GgmlType(24, 1, 1),
    "I16": GgmlType(25, 1, 2),
    "I32": GgmlType(26, 1, 4),
    "I64": GgmlType(27, 1, 8),
    "F64": GgmlType(28, 1, 8),
    "IQ1_M": GgmlType(29, 256, 56),
    "BF16": GgmlType(30, 1, 2),
    "TQ1_0": GgmlType(34, 256, 54),
    "TQ2_0": GgmlType(35, 256, 66),
    "MXFP4": GgmlType(39, 32, 17),
    "NVFP4": GgmlType(40, 64, 36),
    "Q1_0": GgmlType(41, 128, 18),
    "Q2_0": GgmlType(42, 64, 18),
}

BY_NUMBER: Mapping[int, tuple[str, GgmlType]] = {ggml.number: (name, ggml) for name, ggml in TYPES.items()}


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
