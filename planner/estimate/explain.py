"""Takes an estimate apart: every part of every device, from the engine's own tensors and caches, adding up to the byte.

The mistake it prevents is a second estimate: the totals are those of the estimate, the parts are the engine's answer,
and where the two disagree the difference stands there as ``unaccounted`` instead of being hidden in a neighbour.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import get_args

from planner.engine.answers import Buffers
from planner.engine.devices import HOST, device_of
from planner.engine.holdings import HeldCache, HeldTensor, Holdings
from planner.estimate.groups import layer_kinds, layer_of, part_of
from planner.estimate.memory import REPACKED, engine_structures_bytes
from planner.types.explanation import DeviceParts, Explanation, Form, Part, PartName, Section, TypeBytes
from planner.types.plan import Candidate, DeviceMemory

__all__ = ["explain"]

_ORDER: tuple[PartName, ...] = get_args(PartName)
_CACHES: dict[str, PartName] = {
    "attention": "attention-cache",
    "window": "window-cache",
    "recurrent": "recurrent-cache",
    "indexer": "indexer-cache",
    "compressed": "compressed-cache",
    "compressor": "compressor-cache",
}


def explain(candidate: Candidate, held: Holdings, full: Buffers) -> Explanation:
    """The parts of ``candidate.memory``, device by device.

    ``held`` and ``full`` are the engine's answers under the candidate's settings, with the same devices.
    """
    model = _Model(held, candidate.memory)
    return Explanation(
        estimate=candidate,
        devices=tuple(
            DeviceParts(
                device=row.device,
                total_bytes=row.total_bytes,
                parts=(
                    *_closed("weights", row.weights_bytes, model.weights(row)),
                    *_closed("cache", row.cache_bytes, model.caches(row)),
                    *_closed("compute", row.compute_bytes, model.compute(row, full)),
                    *_closed("overhead", row.overhead_bytes, _overhead(row, full, unified=model.unified)),
                ),
            )
            for row in candidate.memory
        ),
        not_loaded=tuple(_grouped((t for t in held.tensors if not t.buffer), model.part, None)),
    )


class _Model:
    """The engine's tensors and caches, and the device of each as the estimate has them."""

    def __init__(self, held: Holdings, memory: Sequence[DeviceMemory]) -> None:
        self._tensors = held.tensors
        self._caches = held.caches
        self._kinds = layer_kinds((tensor.name for tensor in held.tensors), held.caches or ())
        self._devices = [row.device for row in memory]
        self.unified = len(memory) == 1 and memory[0].device != HOST
        self._tied = all(tensor.name != "output.weight" for tensor in held.tensors)
        self._tables = sum(tensor.name == "token_embd.weight" for tensor in held.tensors)
        self._homes = {
            layer: self._home(tensor.buffer)
            for tensor in held.tensors
            if tensor.buffer and "attn_norm" in tensor.name and (layer := layer_of(tensor.name)) is not None
        }

    def _home(self, buffer: str) -> str:
        """The row that counts a buffer type; a machine of one budget has only one."""
        device = device_of(buffer)
        return device if device in self._devices else self._devices[0]

    def part(self, tensor: HeldTensor) -> PartName:
        """The part of the model, a tied table told from its second copy."""
        part = part_of(tensor.name, self._kinds)
        if part != "embedding" or not self._tied or tensor.name != "token_embd.weight":
            return part
        if self._tables == 1:
            return "tied-embedding"
        return "embedding" if device_of(tensor.buffer) == HOST and tensor.buffer not in REPACKED else "head-copy"

    def weights(self, row: DeviceMemory) -> Iterator[Part]:
        """The weights on a device by form and part, then the padding of each form."""
        here = [tensor for tensor in self._tensors if tensor.buffer and self._home(tensor.buffer) == row.device]
        forms: dict[Form, tuple[int, list[HeldTensor]]] = {
            "mapped": (row.weights_mapped_bytes, []),
            "private": (row.weights_private_bytes, []),
            "repacked": (row.weights_repacked_bytes, []),
        }
        for tensor in here:
            forms[self._form(tensor, row)][1].append(tensor)
        for form, (target, members) in forms.items():
            tensors, held = members, sum(tensor.held_bytes for tensor in members)
            if form == "mapped" and held != target:
                tensors, held = self._spans(members)
            # One budget has one row, which does not tell pages of the file from buffers.
            told = None if self.unified else form
            yield from _grouped(tensors, self.part, told)
            padding = held - sum(tensor.size_bytes for tensor in tensors)
            yield Part(name="padding", section="weights", size_bytes=padding, form=told)
            if self.unified and target < held:
                yield Part(name="shared-pages", section="weights", size_bytes=target - held, form=told)

    def _form(self, tensor: HeldTensor, row: DeviceMemory) -> Form:
        if tensor.buffer in REPACKED and not self.unified:
            return "repacked"
        return "mapped" if row.weights_mapped_bytes and device_of(tensor.buffer) == HOST else "private"

    def _spans(self, tensors: Sequence[HeldTensor]) -> tuple[list[HeldTensor], int]:
        """All that a mapping holds which reaches from a buffer's first tensor to its last, and its bytes."""
        file = {tensor.name: tensor for tensor in self._tensors}.values()
        found: list[HeldTensor] = []
        total = 0
        for buffer in sorted({tensor.buffer for tensor in tensors}):
            of_buffer = [tensor for tensor in tensors if tensor.buffer == buffer]
            first = min(tensor.offset for tensor in of_buffer)
            end = max(tensor.offset + tensor.size_bytes for tensor in of_buffer)
            inside = [tensor for tensor in file if first <= tensor.offset < end]
            # A table outside the layers without a buffer is read row by row: mapped with the rest, not in memory.
            lazy = [tensor for tensor in inside if not tensor.buffer and layer_of(tensor.name) is None]
            found += [tensor for tensor in inside if tensor not in lazy]
            total += end - first - sum(tensor.size_bytes for tensor in lazy)
        return found, total

    def caches(self, row: DeviceMemory) -> Iterator[Part]:
        """The caches on a device, one part for each that the engine keeps."""
        if self._caches is None:
            yield Part(name="unknown-cache", section="cache", size_bytes=row.cache_bytes)
        for cache in self._caches or ():
            size = sum(size for buffer, size in cache.buffers.items() if self._home(buffer) == row.device)
            if size:
                yield self._cache(cache, row.device, size)

    def _cache(self, cache: HeldCache, device: str, size: int) -> Part:
        layers = cache.layers
        if cache.kind == "recurrent":
            layers = tuple(sorted(layer for layer, kind in self._kinds.items() if kind == "recurrent-attention"))
        cells = (cache.cells or 0) * (cache.streams or 0)
        cell_bytes = _quotient(sum(cache.buffers.values()), cells * len(layers or ()))
        here = tuple(layers or ())
        if cell_bytes is None or cell_bytes * cells * len(here) != size:
            # Not all of its layers are on this device: those whose norms are, if that agrees with the bytes.
            here = tuple(layer for layer in layers or () if self._homes.get(layer) == device)
            if cell_bytes is None or cell_bytes * cells * len(here) != size:
                here = ()
        return Part(
            name=_CACHES.get(cache.kind, "unknown-cache"),
            section="cache",
            size_bytes=size,
            layers=here,
            cells=cache.cells,
            streams=cache.streams,
            cell_bytes=cell_bytes,
        )

    def compute(self, row: DeviceMemory, full: Buffers) -> Iterator[Part]:
        """The compute buffers that lie on a device; pinned ones are RAM."""
        for buffer in full.buffers:
            if self._home(buffer.name) == row.device:
                name: PartName = "pinned-compute" if buffer.name.endswith("_Host") else "compute"
                yield Part(name=name, section="compute", size_bytes=buffer.compute_bytes, buffer=buffer.name)


def _grouped(
    tensors: Iterable[HeldTensor], part: Callable[[HeldTensor], PartName], form: Form | None
) -> Iterator[Part]:
    groups: dict[PartName, list[HeldTensor]] = {}
    for tensor in tensors:
        groups.setdefault(part(tensor), []).append(tensor)
    for name, members in sorted(groups.items(), key=lambda item: _ORDER.index(item[0])):
        layers = {layer for tensor in members if (layer := layer_of(tensor.name)) is not None}
        yield Part(
            name=name,
            section="weights",
            size_bytes=sum(tensor.size_bytes for tensor in members),
            form=form,
            tensors=len(members),
            types=_types(members),
            layers=tuple(sorted(layers)),
        )


def _types(tensors: Iterable[HeldTensor]) -> tuple[TypeBytes, ...]:
    """The types of some tensors, the one with most bytes first."""
    counts: Counter[str] = Counter()
    sizes: Counter[str] = Counter()
    for tensor in tensors:
        counts[tensor.type] += 1
        sizes[tensor.type] += tensor.size_bytes
    ordered = sorted(sizes, key=lambda kind: (-sizes[kind], kind))
    return tuple(TypeBytes(type=kind, tensors=counts[kind], size_bytes=sizes[kind]) for kind in ordered)


def _overhead(row: DeviceMemory, full: Buffers, *, unified: bool) -> Iterator[Part]:
    structures = min(engine_structures_bytes(full), row.process_bytes) if row.device == HOST else 0
    process: PartName = "process-and-driver" if unified else "process" if row.device == HOST else "driver"
    sizes: Mapping[PartName, int] = {
        "output": row.output_bytes,
        "work": row.work_bytes,
        process: row.process_bytes - structures,
        "engine-structures": structures,
        "companions": row.companion_bytes,
        "server": row.server_bytes,
        "margin": row.margin_bytes,
    }
    for name, size in sizes.items():
        yield Part(name=name, section="overhead", size_bytes=size)


def _closed(section: Section, total: int, parts: Iterable[Part]) -> Iterator[Part]:
    """The parts that are not empty, and what is left to ``total`` as a part of its own."""
    left = total
    for part in parts:
        left -= part.size_bytes
        if part.size_bytes:
            yield part
    if left:
        yield Part(name="unaccounted", section=section, size_bytes=left)


def _quotient(size: int, count: int) -> int | None:
    return size // count if count and size % count == 0 else None
