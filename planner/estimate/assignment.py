"""Which device holds which layer: llama.cpp's assignment rule, stated once for models of memory and for splitting.

The mistake it prevents: an off-by-one at the borders of a split. The engine compares shares as 32-bit floats, so the
border between two cards is decided by the rounding; here the same comparison is made.

Source of the rule: ``llama_model_base::load_tensors`` in ``src/llama-model.cpp`` (llama.cpp at commit 0c1e57098).
"""

import math
import struct
from collections.abc import Sequence
from typing import NamedTuple

__all__ = ["Assignment", "assign"]

_SINGLE = struct.Struct("<f")


class Assignment(NamedTuple):
    """Where the layers are: those before ``first`` on the host, device ``d`` has ``starts[d]`` up to ``ends[d]``.

    The output counts as one more layer, number ``layers``; ``output`` is its device, −1 for the host.
    """

    layers: int
    first: int
    starts: tuple[int, ...]
    ends: tuple[int, ...]
    output: int

    def count(self, device: int) -> int:
        """Layers on a device, the output among them."""
        return self.ends[device] - self.starts[device]


def assign(layers: int, gpu_layers: int, shares: Sequence[float]) -> Assignment:
    """The assignment of ``layers`` repeating layers and the output to devices with ``shares`` (a split or free bytes).

    The last ``gpu_layers`` of them (−1: all) go to GPUs: the k-th of n to the first device whose cumulated share
    exceeds k / n. Without devices, or with shares that sum to nothing, everything stays on the host.
    """
    total = layers + 1
    offloaded = total if gpu_layers < 0 else min(gpu_layers, total)
    borders = _borders(shares)
    if offloaded == 0 or not borders:
        nothing = (total,) * len(shares)
        return Assignment(layers, total, nothing, nothing, -1)
    first = total - offloaded
    ends = tuple(first + _first_at(border, offloaded) for border in borders)
    starts = (first, *ends[:-1])
    output = next(device for device, end in enumerate(ends) if end >= total)
    return Assignment(layers, first, starts, ends, output)


def _borders(shares: Sequence[float]) -> list[float]:
    """Cumulated shares as the engine's floats; empty when there is nothing to share."""
    sums, running = [], 0.0
    for share in shares:
        running = _single(running + _single(share))
        sums.append(running)
    return [_single(each / running) for each in sums] if running > 0 else []


def _first_at(border: float, offloaded: int) -> int:
    """The smallest k with k / offloaded >= border, both as 32-bit floats."""
    k = min(offloaded, max(0, math.ceil(border * offloaded)))
    while k > 0 and _single((k - 1) / offloaded) >= border:
        k -= 1
    while k < offloaded and _single(k / offloaded) < border:
        k += 1
    return k


def _single(value: float) -> float:
    return float(_SINGLE.unpack(_SINGLE.pack(value))[0])
