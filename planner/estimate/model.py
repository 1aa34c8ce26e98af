"""A fast model of memory for one shape × quantization: thousands of settings a second, from a few exact answers.

Weights are exact: running sums over the engine's tensor table by its assignment rule. Caches are exact: bytes per layer
and cell as the engine told them. Compute buffers lie between the engine's answers at a few contexts: they grow as the
largest of several straight lines, so the chord between two answers cannot lie below the truth. A sketch carries both
the likely number and that bound. The mistake it prevents is asking the engine 50,000 times while looking for a split:
the model proposes, and the engine confirms what is chosen.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import accumulate
from typing import NamedTuple

import msgspec

from planner.engine.answers import Buffers
from planner.estimate.assignment import Assignment, assign
from planner.estimate.curves import Curve
from planner.estimate.table import LayerTable, Tensors
from planner.types.settings import Settings

__all__ = ["DeviceSketch", "LayerCache", "MemoryModel", "Sketch"]

_CELLS = 256
"""The engine rounds the cells of a cache up to a multiple of it."""
_CONTEXTS = tuple(256 << doublings for doublings in range(0, 15, 2))
"""Contexts per sequence at which the engine is asked, as far as the model goes: 256 to four million."""
_LEAST_UBATCH = 16
_DOUBT, _DOUBT_BYTES = 0.15, 16 << 20
"""What the bound adds to the chord: placements of one kind differ by how the engine's allocator packs their graphs, by
up to 12 % in 2,000 that were compared (``bench/model_speed.py``, eight seeds)."""
_MAPPED = ("mmap", "mmap+mlock")


class LayerCache(NamedTuple):
    """What of one layer's cache grows with the context and what does not, as weights of a share (any unit)."""

    fixed: float
    growing: float


class DeviceSketch(NamedTuple):
    """Bytes on one device; ``compute_bound`` is what compute cannot exceed. ``overhead`` counts on the host."""

    weights: int
    cache: int
    compute: int
    compute_bound: int
    overhead: int = 0

    @property
    def total(self) -> int:
        """The likely sum."""
        return self.weights + self.cache + self.compute + self.overhead

    @property
    def bound(self) -> int:
        """The sum with the compute buffers' bound."""
        return self.weights + self.cache + self.compute_bound + self.overhead


class Sketch(NamedTuple):
    """Bytes on each GPU in the engine's order, and on the host; drivers, the process and servers come on top."""

    gpus: tuple[DeviceSketch, ...]
    host: DeviceSketch


Probe = Callable[[Sequence[Settings]], Sequence[Buffers]]
"""Asks the engine about settings that differ in the context alone (so that one load of the model answers them)."""


class _Class(NamedTuple):
    """Curves over the context of everything that one kind of placement and settings allocates, at one ubatch."""

    compute: tuple[Curve, ...]
    host_compute: Curve
    overhead: Curve
    cache: Curve


class MemoryModel:
    """Sketches of one model × quantization on one machine's devices.

    ``devices`` are the GPUs' names and ``free_bytes`` what decides the split where nobody says. ``caches`` are the
    shares of the repeating layers. ``probe`` is asked the first time that a class of settings is met: same cache types,
    attention, sequences, and the same kind of placement. Raises what ``probe`` raises.
    """

    def __init__(
        self,
        tensors: Tensors,
        caches: Sequence[LayerCache],
        probe: Probe,
        *,
        devices: Sequence[str] = (),
        free_bytes: Sequence[int] = (),
        longest_context: int = 1 << 17,
    ) -> None:
        self._tensors = tensors
        self._probe = probe
        self._devices = tuple(devices)
        self._free = tuple(map(float, free_bytes))
        self._contexts = [each for each in _CONTEXTS if each <= longest_context] + [_rounded(longest_context, _CELLS)]
        self._contexts = sorted(set(self._contexts))
        self._fixed, self._growing = _running(each.fixed for each in caches), _running(each.growing for each in caches)
        self._tables: dict[object, LayerTable] = {}
        self._places: dict[object, Assignment] = {}
        self._classes: dict[object, _Class | None] = {}
        self.questions = 0

    def sketch(self, settings: Settings) -> Sketch | None:
        """Bytes under ``settings``; ``None`` where it is silent (refused, too long, split by rows, drafting)."""
        cells = _cells(settings)
        if settings.split_mode == "row" or settings.speculation != "none" or cells > self._contexts[-1]:
            return None
        table = self._table(settings)
        where = self._assignment(table, settings)
        experts = table.layers if settings.cpu_moe_layers < 0 else settings.cpu_moe_layers
        found = self._at(settings, table, where, experts, cells)
        if found is None:
            return None
        compute, bound, host_compute, overhead, cache = found
        host = table.on_host(where, experts)
        shares = self._cache_shares(settings, where, cells)
        mapped = settings.load_mode in _MAPPED and not self._devices
        weights = table.mapped_span if mapped else host.plain
        cached = [round(cache * share) for share in shares]
        return Sketch(
            gpus=tuple(map(DeviceSketch, table.on_gpus(where, experts), cached, compute, bound)),
            host=DeviceSketch(
                weights + host.repacked, round(cache) - sum(cached), host_compute[0], host_compute[1], overhead
            ),
        )

    # --- where things are ---

    def _table(self, settings: Settings) -> LayerTable:
        key = settings.tensor_overrides
        if key not in self._tables:
            self._tables[key] = LayerTable(self._tensors, devices=self._devices, overrides=key)
        return self._tables[key]

    def _assignment(self, table: LayerTable, settings: Settings) -> Assignment:
        key = (settings.gpu_layers, settings.tensor_split, settings.split_mode, settings.main_gpu)
        found = self._places.get(key)
        if found is None:
            shares: Sequence[float] = settings.tensor_split if any(settings.tensor_split) else self._free
            if settings.split_mode == "none":
                shares = [float(device == settings.main_gpu) for device in range(len(self._devices))]
            found = self._places[key] = assign(table.layers, settings.gpu_layers, shares[: len(self._devices)])
        return found

    def _cache_shares(self, settings: Settings, where: Assignment, cells: int) -> list[float]:
        """The share of the whole cache on each GPU; the rest is the host's."""
        if not settings.kv_offload:
            return [0.0] * len(where.ends)
        fixed, growing = self._fixed, self._growing
        if settings.kv_unified:
            # All sequences share the cells; what does not grow (a state, a window) each has for itself.
            cells = cells // settings.parallel
        whole = (fixed[-1] + growing[-1] * cells) or 1.0
        last = len(fixed) - 1
        shares = []
        for start, end in zip(where.starts, where.ends, strict=True):
            low, high = min(start, last), min(end, last)
            shares.append((fixed[high] - fixed[low] + (growing[high] - growing[low]) * cells) / whole)
        return shares

    # --- what the engine was asked ---

    def _at(
        self, settings: Settings, table: LayerTable, where: Assignment, experts: int, cells: int
    ) -> tuple[list[int], list[int], tuple[int, int], int, float] | None:
        """Compute per GPU, its bound, the host's with its bound, the host's overhead, and the whole cache."""
        # No batch is longer than the context.
        ubatch = max(1, min(settings.ubatch, settings.batch, settings.context_tokens))
        lower = 1 << (ubatch.bit_length() - 1)
        small = self._class(settings, table, where, experts, max(lower, _LEAST_UBATCH))
        if small is None:
            return None
        low = _read(small, cells)
        if ubatch in {lower, _LEAST_UBATCH} or ubatch < _LEAST_UBATCH:
            return _whole_bytes(low)
        large = self._class(settings, table, where, experts, 2 * lower)
        if large is None:
            return None
        high, part = _read(large, cells), (ubatch - lower) / lower
        return _whole_bytes([a + part * (b - a) for a, b in zip(low, high, strict=True)])

    def _class(
        self, settings: Settings, table: LayerTable, where: Assignment, experts: int, ubatch: int
    ) -> _Class | None:
        kinds, border = _kinds(table, where, experts)
        key = (
            ubatch, kinds, border, settings.cache_type_k, settings.cache_type_v, settings.flash_attention,
            settings.parallel, settings.kv_unified, settings.swa_full, settings.outputs_max, settings.kv_offload,
            settings.op_offload, settings.host_buffer, settings.repack, settings.threads, settings.threads_batch,
            settings.tensor_overrides,
        )  # fmt: skip
        if key not in self._classes:
            self._classes[key] = self._asked(_typical(settings, table, kinds, border), ubatch)
        return self._classes[key]

    def _asked(self, settings: Settings, ubatch: int) -> _Class | None:
        streams = 1 if settings.kv_unified else settings.parallel
        asked = [
            msgspec.structs.replace(
                settings, context_tokens=context * streams, ubatch=ubatch, batch=max(ubatch, settings.batch)
            )
            for context in self._contexts
        ]
        answers = self._probe(asked)
        self.questions += len(asked)
        if any(each.refused is not None for each in answers):
            return None
        devices = {name: place for place, name in enumerate(self._devices)}
        rows = [_sums(each, devices) for each in answers]
        # In a context shorter than a micro-batch the engine takes a smaller one: that is another curve.
        first = next((i for i, context in enumerate(self._contexts) if context * streams >= ubatch), 0)
        *columns, cache = zip(*rows, strict=True)
        *compute, host, overhead = [Curve(self._contexts[first:], column[first:]) for column in columns]
        return _Class(tuple(compute), host, overhead, Curve(self._contexts, cache))


def _sums(answer: Buffers, devices: Mapping[str, int]) -> list[float]:
    """Compute per device, on the host, the host's overhead, and the whole cache of one answer."""
    sizes = [0.0] * (len(devices) + 3)
    for buffer in answer.buffers:
        place = devices.get(buffer.name, len(devices))
        sizes[place] += buffer.compute_bytes
        sizes[-1] += buffer.context_bytes
    sizes[-2] = answer.output_bytes + (answer.work_bytes or 0)
    return sizes


def _read(curves: _Class, cells: int) -> list[float]:
    """All values at a context: per GPU, then bounds per GPU, the host's with its bound, the overhead, the cache."""
    pairs = [curve.convex(cells) for curve in curves.compute]
    host, overhead = curves.host_compute.convex(cells), curves.overhead.convex(cells)
    return [
        *(likely for likely, _ in pairs),
        *(_bounded(bound) for _, bound in pairs),
        host[0],
        _bounded(host[1]),
        overhead[1],
        curves.cache.concave(cells),
    ]


def _bounded(chord: float) -> float:
    return chord * (1 + _DOUBT) + _DOUBT_BYTES if chord > 0 else 0.0


def _whole_bytes(values: list[float]) -> tuple[list[int], list[int], tuple[int, int], int, float]:
    count = (len(values) - 4) // 2
    sizes = [round(value) for value in values[:-1]]
    return sizes[:count], sizes[count : 2 * count], (sizes[-3], sizes[-2]), sizes[-1], values[-1]


class _Border(NamedTuple):
    """The GPU of the last layer whose experts stay on the host, and whether it holds experts of later layers."""

    device: int
    mixed: bool


def _kinds(table: LayerTable, where: Assignment, experts: int) -> tuple[tuple[int, ...], _Border | None]:
    """What each GPU holds, and where the experts on the host end.

    Bits: 1 for layers, 2 for the output; the last number says whether the host has layers, too.
    """
    kinds = tuple(
        (start < min(end, where.layers)) + 2 * (where.output == device)
        for device, (start, end) in enumerate(zip(where.starts, where.ends, strict=True))
    )
    last, border = min(experts, where.layers) - 1, None
    if last >= where.first:
        device = table.device_of(where, last)
        border = _Border(device, last + 1 < min(where.ends[device], where.layers))
    return (*kinds, int(0 < where.first <= where.layers)), border


def _typical(settings: Settings, table: LayerTable, kinds: tuple[int, ...], border: _Border | None) -> Settings:
    """Settings that place layers in the same kind of way, whatever the ones in question are: answers are shared."""
    *gpus, partial = kinds
    if not any(gpus):
        return msgspec.structs.replace(settings, gpu_layers=0, cpu_moe_layers=0, tensor_split=())
    offloaded = (table.layers + 1) // 2 if partial else table.layers + 1
    if not any(kind % 2 for kind in gpus):
        offloaded = 1  # the output alone
    counts = _shared_out(gpus, offloaded)
    experts = 0
    if border is not None:
        on_border = counts[border.device] // 2 if border.mixed else counts[border.device]
        experts = table.layers + 1 - offloaded + sum(counts[: border.device]) + max(1, on_border)
    split = tuple(map(float, counts)) if len(counts) > 1 and settings.split_mode != "none" else ()
    return msgspec.structs.replace(
        settings, gpu_layers=offloaded, cpu_moe_layers=min(table.layers, experts), tensor_split=split
    )


def _shared_out(kinds: Sequence[int], offloaded: int) -> list[int]:
    """Counts per device for as many layers: one for a device that holds the output alone, the others alike."""
    holders = [device for device, kind in enumerate(kinds) if kind % 2]
    lone = sum(kind == 2 for kind in kinds)
    counts = [int(kind == 2) for kind in kinds]
    for rank, device in enumerate(holders):
        counts[device] = (offloaded - lone) * (rank + 1) // len(holders) - (offloaded - lone) * rank // len(holders)
    return counts


def _cells(settings: Settings) -> int:
    """Cells of one sequence's cache (of all, where it is unified): the engine rounds up to multiples of 256."""
    whole = _rounded(settings.context_tokens, _CELLS)
    return whole if settings.kv_unified else _rounded(whole // settings.parallel, _CELLS)


def _rounded(value: int, step: int) -> int:
    return -(-value // step) * step


def _running(values: Iterable[float]) -> list[float]:
    return list(accumulate(values, initial=0.0))
