"""Matches the engine's devices to those the system told of; prevents planning for a GPU that the engine cannot use.

The engine tells neither bus address nor index of a device, so names decide, then memory sizes, then order: CUDA, ROCm
and Metal list equal cards in the order in which they use them. What only the engine sees becomes a GPU of its own.
"""

import re
from typing import TYPE_CHECKING

import msgspec

from planner.machine.gpu import Draft
from planner.types.machine import Gpu

if TYPE_CHECKING:
    from planner.types.machine import Backend, Engine, EngineDevice, Machine

__all__ = ["match_engine"]

_BACKENDS: "tuple[tuple[str, Backend], ...]" = (
    ("CUDA", "cuda"),
    ("ROCm", "rocm"),
    ("HIP", "rocm"),
    ("Vulkan", "vulkan"),
    ("SYCL", "sycl"),
    ("Metal", "metal"),
    ("MTL", "metal"),
)
_VENDOR_WORDS = {
    "nvidia": ("nvidia", "geforce", "rtx", "tesla", "quadro", "orin", "thor"),
    "amd": ("amd", "radeon", "instinct", "gfx"),
    "intel": ("intel", "arc", "iris", "uhd"),
    "apple": ("apple",),
}
_NOISE = re.compile(r"\([^)]*\)|\b(?:nvidia|amd|intel|graphics|corporation|inc|series)\b|[^a-z0-9]+")


def match_engine(machine: "Machine", engine: "Engine") -> "Machine":
    """The machine with the engine's own answers in it: its device list, and each GPU's name in the engine."""
    gpus = {gpu.index: _without_device(gpu, engine) for gpu in machine.gpus}
    taken: set[int] = set()
    extra: list[Gpu] = []
    for device in engine.devices:
        if device.kind not in ("gpu", "igpu"):
            continue
        scored = [(score, -gpu.index) for gpu in gpus.values() if (score := _score(gpu, device)) > 0]
        free = [(score, index) for score, index in scored if -index not in taken]
        if free:
            index = -max(free)[1]
            taken.add(index)
            gpus[index] = _matched(gpus[index], device)
        elif not scored:  # the same card through a second backend is no second card
            extra.append(_only_engine(len(gpus) + len(extra), device))
    return msgspec.structs.replace(machine, engine=engine, gpus=(*gpus.values(), *extra))


def _score(gpu: Gpu, device: "EngineDevice") -> int:
    """How well a device fits: 0 not at all; a name counts more than a size."""
    text = device.description.lower()
    mine, theirs = _core(gpu.name or ""), _core(device.description)
    named = bool(mine) and bool(theirs) and (mine in theirs or theirs in mine)
    vendor = any(word in text for word in _VENDOR_WORDS[gpu.vendor])
    others = any(word in text for name, words in _VENDOR_WORDS.items() if name != gpu.vendor for word in words[:2])
    sized = _close(gpu.memory_total_bytes, device.memory_total_bytes)
    if named:
        return 4 + sized
    if (others and not vendor) or not (vendor or sized):
        return 0
    return 1 + sized if vendor and (sized or gpu.memory_total_bytes is None or gpu.unified_memory) else 0


def _core(name: str) -> str:
    """The part of a name that tells models apart: ``NVIDIA GeForce RTX 4090`` is ``geforcertx4090``."""
    return _NOISE.sub("", name.lower())


def _close(left: int | None, right: int | None) -> bool:
    return left is not None and right is not None and abs(left - right) * 10 <= max(left, right)


def _without_device(gpu: Gpu, engine: "Engine") -> Gpu:
    """The GPU as if the engine had just been asked and did not know it."""
    why = "the engine lists no such device" if engine.gpu_offload else "this engine was built for the CPU only"
    sources = {name: text for name, text in gpu.sources.items() if name != "engine_device"}
    return msgspec.structs.replace(gpu, engine_device=None, sources=sources, notes={**gpu.notes, "engine_device": why})


def _matched(gpu: Gpu, device: "EngineDevice") -> Gpu:
    """The GPU with its engine name; memory that was unknown, or a share of RAM, becomes the engine's own figure."""
    source = f"the engine's device list, {device.name}"
    values: dict[str, object] = {"engine_device": device.name, "backend": _backend(device.name) or gpu.backend}
    total, free = _memory(device)
    if total is not None and (gpu.memory_total_bytes is None or gpu.unified_memory):
        values["memory_total_bytes"] = total
        if free is not None:
            lower = free if gpu.memory_free_bytes is None else min(free, gpu.memory_free_bytes)
            values["memory_free_bytes"] = min(lower, total)
    sources = gpu.sources | dict.fromkeys(values, source)
    notes = {name: text for name, text in gpu.notes.items() if name not in values}
    return msgspec.convert({**msgspec.structs.asdict(gpu), **values, "sources": sources, "notes": notes}, Gpu)


def _only_engine(index: int, device: "EngineDevice") -> Gpu:
    """A device that only the engine sees (a driver without sysfs files, a remote card)."""
    text = device.description.lower()
    vendor = next((name for name, words in _VENDOR_WORDS.items() if any(word in text for word in words)), "nvidia")
    source = f"the engine's device list, {device.name}"
    total, free = _memory(device)
    draft = Draft(vendor, _backend(device.name) or "vulkan", source).put("name", device.description, source)
    draft.put("memory_total_bytes", total, source).put("memory_free_bytes", free, source)
    draft.put("unified_memory", device.kind == "igpu", source).put("engine_device", device.name, source)
    return draft.build(index)


def _memory(device: "EngineDevice") -> tuple[int | None, int | None]:
    """Total and free, where free is never more than total (Vulkan on Intel says so, llama.cpp issue 29277)."""
    total, free = device.memory_total_bytes or None, device.memory_free_bytes
    return total, None if total is None or free is None else min(free, total)


def _backend(name: str) -> "Backend | None":
    return next((backend for prefix, backend in _BACKENDS if name.startswith(prefix)), None)
