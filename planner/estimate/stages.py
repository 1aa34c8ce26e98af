"""Splits one token's work over the devices that do it, so that :mod:`planner.estimate.speed` can add their times.

The mistake it prevents: dividing "the model's size" by "the bandwidth" when a token of a mixture of experts reads a
few per cent of the weights, and when the layers live on two devices of very different speed.
"""

from collections import Counter

import msgspec

from planner.engine.answers import LayerBytes, Weights
from planner.engine.devices import device_names
from planner.estimate.rows import HOST, device_of
from planner.estimate.speed import Calibration, Stage, Structure, cache_bytes_at, generate_speed, prompt_speed
from planner.types.machine import Gpu, Machine
from planner.types.model import Model
from planner.types.plan import Speeds
from planner.types.settings import Settings

__all__ = ["active_bytes", "expert_share", "predicted_speeds", "structure_of"]


def expert_share(model: Model) -> float:
    """Share of the routed experts that one token passes through; 1.0 for a dense model."""
    experts, used = model.size("n_expert"), model.size("n_expert_used")
    return used / experts if experts and used else 1.0


def structure_of(model: Model, weights: Weights) -> Structure:
    """Whether a model's layers are recurrent and whether its tokens are routed."""
    return Structure(recurrent=weights.recurrent_layers > 0, mixture=model.parameters_active < model.parameters)


def active_bytes(model: Model, weights: Weights) -> int:
    """Weight bytes that decoding one token reads: dense parts, the used share of experts, and the head once."""
    share = expert_share(model)
    return weights.head_bytes + sum(_layer_read(layer, share) for layer in weights.layers)


def predicted_speeds(
    machine: Machine,
    model: Model,
    quantization: str,
    settings: Settings,
    weights: Weights,
    cache_bytes: int,
    calibrations: tuple[Calibration, ...] = (),
) -> Speeds:
    """Predicted decode and prompt speed at depth 0, and decode with half the context of one sequence filled.

    ``cache_bytes`` is the whole cache; ``calibrations`` were learnt on this machine's CPU.
    """
    per_sequence = settings.context_tokens // settings.parallel
    depth = per_sequence // 2
    read = cache_bytes_at(cache_bytes // settings.parallel, per_sequence, depth)
    shallow = _stages(machine, model, quantization, settings, weights, calibrations)
    deep = [msgspec.structs.replace(stage, cache_bytes=read * stage.layers // len(weights.layers)) for stage in shallow]
    return Speeds(
        generate=generate_speed(shallow),
        prompt=prompt_speed(shallow),
        generate_at_depth=generate_speed(deep, at_context_tokens=depth),
    )


def _layer_read(layer: LayerBytes, share: float) -> int:
    return layer.dense_bytes + round(layer.expert_bytes * share)


def _stages(
    machine: Machine,
    model: Model,
    quantization: str,
    settings: Settings,
    weights: Weights,
    calibrations: tuple[Calibration, ...],
) -> list[Stage]:
    share = expert_share(model)
    read: Counter[str] = Counter()
    layers: Counter[str] = Counter()
    read[device_of(weights.head_buffer)] += weights.head_bytes
    for layer in weights.layers:
        if layer.dense_bytes:
            read[device_of(layer.buffer)] += layer.dense_bytes
            layers[device_of(layer.buffer)] += 1
        if layer.expert_bytes:
            read[device_of(layer.expert_buffer)] += round(layer.expert_bytes * share)
    everything = read.total() or 1
    gpus = dict(zip(device_names(machine.gpus), machine.gpus, strict=True))
    return [
        _stage(
            machine,
            device,
            gpus.get(device),
            weights_bytes=size,
            layers=layers[device],
            quantization=quantization,
            parameters_active=round(model.parameters_active * size / everything),
            threads=settings.threads,
            structure=structure_of(model, weights),
            calibrations=calibrations if device == HOST else (),
        )
        for device, size in sorted(read.items(), key=lambda item: (item[0] == HOST, item[0]))
        if size
    ]


def _stage(
    machine: Machine,
    device: str,
    gpu: Gpu | None,
    *,
    weights_bytes: int,
    layers: int,
    quantization: str,
    parameters_active: int,
    threads: int,
    structure: Structure,
    calibrations: tuple[Calibration, ...],
) -> Stage:
    bandwidth = gpu.bandwidth_bytes_per_s if gpu else machine.memory.bandwidth_bytes_per_s
    if gpu is not None and gpu.unified_memory and bandwidth is None:
        bandwidth = machine.memory.bandwidth_bytes_per_s
    return Stage(
        device=device,
        backend=gpu.backend if gpu else "cpu",
        weights_bytes=weights_bytes,
        layers=layers,
        quantization=quantization,
        parameters_active=parameters_active,
        bandwidth_bytes_per_s=bandwidth,
        threads=threads,
        structure=structure,
        calibrations=calibrations,
    )
