"""The tensor table of one model × quantization as running sums, so that a placement's bytes are a few subtractions.

The mistake it prevents: a thousand tensors added up again for each of fifty thousand placements, or rounded to layers
of equal size, which a quantization's mix of types and a hybrid's kinds of layers are not.
"""

import re
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import accumulate
from typing import NamedTuple

from planner.estimate.assignment import Assignment
from planner.estimate.memory import REPACKED
from planner.types.settings import TensorOverride

__all__ = ["HostWeights", "LayerTable", "TensorRow", "Tensors"]

_LAYER = re.compile(r"^blk\.(\d+)\.")
_EXPERTS = re.compile(r"\.ffn_(up|down|gate|gate_up)_(ch|)exps")
"""What ``--n-cpu-moe`` matches (``common/common.h`` of llama.cpp)."""
_ALIGNMENT = 128
"""Tensors start at multiples of it in a GPU's buffer: CUDA's and the largest of all backends."""
_CPU, _HOST = "CPU", -1


class TensorRow(NamedTuple):
    """One tensor as the engine tells it: where it went (``""``: it is not loaded) and where it is in the file."""

    name: str
    size_bytes: int
    buffer: str
    offset_bytes: int


class Tensors(NamedTuple):
    """What the engine said about a model's tensors: all on GPUs, and all on the host; with the sums per buffer.

    ``on_gpus`` is empty where there is no GPU.
    """

    on_gpus: tuple[TensorRow, ...]
    gpu_buffers: Mapping[str, int]
    on_host: tuple[TensorRow, ...]
    host_buffers: Mapping[str, int]


class HostWeights(NamedTuple):
    """Weight bytes on the host: as they are in the file, and repacked."""

    plain: int
    repacked: int


class _Group(NamedTuple):
    """Running sums of one group of tensors over the layers: index i holds what the layers before i sum to."""

    on_gpu: list[int]
    plain: list[int]
    repacked: list[int]


class LayerTable:
    """Weights by placement; ``overrides`` pin what they match, as ``--override-tensor`` does, the first match first."""

    def __init__(self, tensors: Tensors, *, devices: Sequence[str], overrides: tuple[TensorOverride, ...] = ()) -> None:
        used = [row for row in tensors.on_host if row.buffer]
        self.layers = 1 + max((_layer_of(row.name) for row in tensors.on_host), default=-1)
        place = _pinning(devices, overrides)
        places = [(row, place(row.name)) for row in used]
        self._pinned = Counter[int]()
        for row, where in places:
            if where is not None and where >= 0:
                self._pinned[where] += _aligned(row.size_bytes)
        free = [row for row, where in places if where is None]
        stay = [row for row, where in places if where == _HOST]
        self._dense = self._sums(row for row in free if not _EXPERTS.search(row.name))
        self._experts = self._sums(row for row in free if _EXPERTS.search(row.name))
        self._stay = _whole(stay)
        single = [row for row in free if _layer_of(row.name) < 0]
        output = [row for row in single if row.name.startswith("output")]
        self._input, self._single = _whole(row for row in single if row not in output), _whole(single)
        # A tied head is multiplied where the output is, and gathered from on the host: two copies.
        tied = all(row.name != "output.weight" for row in used)
        head = next((row.size_bytes for row in single if tied and row.name == "token_embd.weight"), 0)
        self._output_on_gpu = sum(_aligned(row.size_bytes) for row in output) + head
        # What the engine's buffers hold beside the tensors: a tied head that is repacked, small tensors that are copied
        # for each layer, padding.
        told, seen = _by_form(tensors.host_buffers.items()), _by_form((row.buffer, row.size_bytes) for row in used)
        self._host_extra = (max(0, told[0] - seen[0]), max(0, told[1] - seen[1]))
        starts = [row.offset_bytes for row in used if row.buffer not in REPACKED]
        ends = [row.offset_bytes + row.size_bytes for row in used if row.buffer not in REPACKED]
        self.mapped_span = max(ends, default=0) - min(starts, default=0)
        """What mapping the whole file holds: from the first tensor that is used as it is to the end of the last."""
        held = sum(size for name, size in tensors.gpu_buffers.items() if name in devices)
        known = sum(_aligned(row.size_bytes) for row in tensors.on_gpus if row.buffer in devices)
        self._gpu_extra = max(0, held - known - head)

    def on_gpus(self, where: Assignment, expert_layers: int) -> list[int]:
        """Bytes on each GPU when the experts of the first ``expert_layers`` layers stay on the host."""
        dense, experts = self._dense.on_gpu, self._experts.on_gpu
        sizes = []
        for device, (start, end) in enumerate(zip(where.starts, where.ends, strict=True)):
            last = min(end, where.layers)
            size = self._pinned[device]
            if start < last:
                size += dense[last] - dense[start] + experts[last] - experts[min(last, max(start, expert_layers))]
                size += self._gpu_extra
            if where.output == device:
                size += self._output_on_gpu
            sizes.append(size)
        return sizes

    def on_host(self, where: Assignment, expert_layers: int) -> HostWeights:
        """Bytes that stay on the host."""
        everything = where.output < 0
        whole = (self._single if everything else self._input, self._stay)
        parts = (
            (self._dense, min(where.first, where.layers)),
            (self._experts, min(max(where.first, expert_layers), where.layers)),
        )
        plain, repacked = self._host_extra if everything else (0, 0)
        return HostWeights(
            plain=plain + sum(each.plain for each in whole) + sum(group.plain[n] for group, n in parts),
            repacked=repacked + sum(each.repacked for each in whole) + sum(group.repacked[n] for group, n in parts),
        )

    def layer_bytes(self, layer: int) -> tuple[int, int]:
        """Bytes of one layer on a GPU: what goes with it always, and its experts."""
        dense, experts = self._dense.on_gpu, self._experts.on_gpu
        return dense[layer + 1] - dense[layer], experts[layer + 1] - experts[layer]

    def device_of(self, where: Assignment, layer: int) -> int:
        """The device of a layer; −1 for the host."""
        return -1 if layer < where.first else bisect_right(where.ends, layer)

    def _sums(self, rows: Iterable[TensorRow]) -> _Group:
        by_layer: list[list[TensorRow]] = [[] for _ in range(self.layers)]
        for row in rows:
            if _layer_of(row.name) >= 0:
                by_layer[_layer_of(row.name)].append(row)
        plain = [[row for row in layer if row.buffer not in REPACKED] for layer in by_layer]

        def running(values: Iterable[int]) -> list[int]:
            return [0, *accumulate(values)]

        return _Group(
            on_gpu=running(sum(_aligned(row.size_bytes) for row in layer) for layer in by_layer),
            plain=running(sum(row.size_bytes for row in layer) for layer in plain),
            repacked=running(sum(r.size_bytes for r in layer if r.buffer in REPACKED) for layer in by_layer),
        )


def _whole(rows: Iterable[TensorRow]) -> HostWeights:
    given = list(rows)
    plain = [row for row in given if row.buffer not in REPACKED]
    size = sum(row.size_bytes for row in plain)
    return HostWeights(size, sum(row.size_bytes for row in given) - size)


def _pinning(devices: Sequence[str], overrides: tuple[TensorOverride, ...]) -> Callable[[str], int | None]:
    """Tells the device (−1: host) that an override gives a tensor, ``None`` where none matches."""
    patterns = [
        (re.compile(pattern), _HOST if buffer == _CPU else devices.index(buffer))
        for pattern, buffer in overrides
        if buffer == _CPU or buffer in devices
    ]
    return lambda name: next((where for pattern, where in patterns if pattern.search(name)), None)


def _by_form(sizes: Iterable[tuple[str, int]]) -> tuple[int, int]:
    plain = repacked = 0
    for name, size in sizes:
        if name in REPACKED:
            repacked += size
        else:
            plain += size
    return plain, repacked


def _layer_of(name: str) -> int:
    match = _LAYER.match(name)
    return int(match[1]) if match else -1


def _aligned(size: int) -> int:
    return -(-size // _ALIGNMENT) * _ALIGNMENT
