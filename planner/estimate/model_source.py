"""Builds the fast model of memory from the engine's answers: a tensor table twice, and the cache layer by layer.

What a layer's cache takes is not derived from its shape: the engine is given as many phantom devices as it can have,
one layer each, and says what it puts on every one. The mistake it prevents: a rule for windows, delta nets, latent
attention and indexers that is right for the models it was written for.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

from planner.engine.answers import Buffers
from planner.engine.devices import PhantomDevice
from planner.engine.oracle import LayoutSource, Oracle
from planner.errors import EngineError
from planner.estimate.model import LayerCache, MemoryModel
from planner.estimate.table import TensorRow, Tensors
from planner.types.model import Quantization
from planner.types.settings import Settings

__all__ = ["layer_caches", "memory_model"]

_MOST_DEVICES = 15
"""ggml's scheduler takes 16 backends, the CPU's among them."""
_ONE_LAYER_DEVICE = PhantomDevice(backend="cuda", free_bytes=1 << 40, total_bytes=1 << 40)
# Two contexts beyond every window; what grows between them grows with the context.
_SHORT, _LONG = 1 << 16, 1 << 17


def memory_model(
    oracle: Oracle,
    shape_key: str,
    layout: LayoutSource,
    quantization: Quantization,
    *,
    layers: int,
    devices: Sequence[str] = (),
    free_bytes: Sequence[int] = (),
    longest_context: int = 1 << 17,
    folder: Path | None = None,
) -> MemoryModel:
    """The model of one shape × quantization on the devices that ``oracle`` answers for.

    ``layers`` counts all blocks of the file; ``devices`` are named as the engine names them. Raises
    :class:`EngineError` when the engine refuses the model.
    """
    base = Settings(context_tokens=_SHORT, gpu_layers=-1)
    host = oracle.tensors(shape_key, layout, quantization, msgspec.structs.replace(base, gpu_layers=0))
    gpus = oracle.tensors(shape_key, layout, quantization, base) if devices else None
    tensors = Tensors(
        on_gpus=tuple(TensorRow(*row) for row in gpus.rows) if gpus else (),
        gpu_buffers=gpus.buffers if gpus else {},
        on_host=tuple(TensorRow(*row) for row in host.rows),
        host_buffers=host.buffers,
    )
    caches = layer_caches(oracle, shape_key, layout, quantization, layers, folder=folder) if devices else ()

    def probe(settings: Sequence[Settings]) -> Sequence[Buffers]:
        return oracle.buffers(shape_key, layout, settings, quantization)

    return MemoryModel(tensors, caches, probe, devices=devices, free_bytes=free_bytes, longest_context=longest_context)


def layer_caches(
    oracle: Oracle,
    shape_key: str,
    layout: LayoutSource,
    quantization: Quantization,
    layers: int,
    *,
    folder: Path | None = None,
) -> tuple[LayerCache, ...]:
    """What each layer's cache takes, fixed and per cell, in bytes for one sequence at f16, as the engine places it."""
    phantoms = (_ONE_LAYER_DEVICE,) * min(_MOST_DEVICES, layers + 1)
    windows = Oracle(oracle.child, folder=folder, devices=phantoms)
    caches: list[LayerCache] = []
    with windows:
        for first, counts in _windows(layers, len(phantoms)):
            short, long = windows.buffers(
                shape_key, layout, [_one_each(counts, _SHORT), _one_each(counts, _LONG)], quantization
            )
            if short.refused is not None or long.refused is not None:
                raise EngineError(f"the engine refuses to tell the cache by layer: {short.refused or long.refused}")
            known = len(caches)
            for layer in range(known, min(layers, first + counts.count(1.0))):
                name = f"CUDA{layer - first + bool(first)}"
                caches.append(_layer_cache(_held(short, name), _held(long, name)))
    return tuple(caches)


def _windows(layers: int, devices: int) -> Iterator[tuple[int, tuple[float, ...]]]:
    """Splits that give each layer a device of its own once: the first such layer, and the counts per device."""
    total, first = layers + 1, 0
    while first < layers:
        before = (float(first),) if first else ()
        singles = min(devices - len(before) - 1, total - first)
        after = total - first - singles
        yield first, (*before, *(1.0,) * singles, *((float(after),) if after else ()))
        first += singles


def _one_each(counts: tuple[float, ...], context: int) -> Settings:
    return Settings(context_tokens=context, tensor_split=counts, op_offload=False)


def _held(answer: Buffers, device: str) -> int:
    return sum(buffer.context_bytes for buffer in answer.buffers if buffer.name == device)


def _layer_cache(short: int, long: int) -> LayerCache:
    growing = (long - short) / (_LONG - _SHORT)
    return LayerCache(fixed=short - growing * _SHORT, growing=growing)
