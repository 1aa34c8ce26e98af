"""Splits one token's work over the devices that do it, so that :mod:`planner.estimate.speed` can add their times.

The mistake it prevents: dividing "the model's size" by "the bandwidth" when a token of a mixture of experts reads a
few per cent of the weights, and when the layers live on two devices of very different speed.
"""

from collections import Counter

import msgspec

from planner.engine.answers import LayerBytes, Weights
from planner.engine.devices import HOST, device_names, device_of
from planner.estimate.device_facts import DeviceFacts, device_facts
from planner.estimate.speed import Calibration, Stage, Structure, cache_bytes_at, generate_speed, prompt_speed
from planner.types.machine import Gpu, Machine
from planner.types.model import Model
from planner.types.plan import Speeds
from planner.types.settings import Settings

__all__ = ["active_bytes", "expert_share", "predicted_speeds", "structure_of"]

_X86 = frozenset(["x86_64", "amd64", "i386", "i686"])
_LANE_BYTES_PER_S = {1: 0.25e9, 2: 0.5e9, 3: 0.985e9, 4: 1.969e9, 5: 3.938e9, 6: 7.563e9}
"""What a PCIe lane of each generation carries in one direction: PCI-SIG, line rate less its coding."""
_REACHED_OF_LINK = 0.8
_USUAL_LINK_BYTES_PER_S = 25e9
"""PCIe 4.0 × 16 as it is reached, where the slot is not told; what the constants were fitted with."""


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
        prompt=prompt_speed(shallow, microbatch=settings.ubatch, link_bytes_per_s=_link(machine, settings)),
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
    in_layers: Counter[str] = Counter()
    resident: Counter[str] = Counter()
    read[device_of(weights.head_buffer)] += weights.head_bytes
    for layer in weights.layers:
        routed = round(layer.expert_bytes * share)
        if layer.dense_bytes:
            layers[device_of(layer.buffer)] += 1
        for buffer, active, whole in (
            (layer.buffer, layer.dense_bytes, layer.dense_bytes),
            (layer.expert_buffer, routed, layer.expert_bytes),
        ):
            if whole:
                read[device_of(buffer)] += active
                in_layers[device_of(buffer)] += active
                resident[device_of(buffer)] += whole
    everything, of_layers = read.total() or 1, in_layers.total() or 1
    numbers = _layer_parameters(model)
    gpus = dict(zip(device_names(machine.gpus), machine.gpus, strict=True))
    return [
        _stage(
            machine,
            gpus.get(device),
            Stage(
                device=device,
                backend="cpu",
                weights_bytes=size,
                layers=layers[device],
                quantization=quantization,
                parameters_active=round(model.parameters_active * size / everything),
                threads=settings.threads,
                structure=structure_of(model, weights),
                calibrations=calibrations if device == HOST else (),
                resident_bytes=resident[device],
                layer_parameters=round(numbers * in_layers[device] / of_layers),
            ),
        )
        for device, size in sorted(read.items(), key=lambda item: (item[0] == HOST, item[0]))
        if size
    ]


def _layer_parameters(model: Model) -> int:
    """Active numbers that every token of a prompt is multiplied with: those of the layers, tables and head aside."""
    table = (model.size("n_vocab") or 0) * (model.size("n_embd") or 0)
    # A mixture's active count leaves the input table out already.
    dense_and_untied = model.parameters_active == model.parameters and not model.shape.get("tied")
    return max(0, model.parameters_active - (2 if dense_and_untied else 1) * table)


def _stage(machine: Machine, gpu: Gpu | None, stage: Stage) -> Stage:
    """The stage with what is known of the hardware it runs on."""
    if gpu is None:
        return msgspec.structs.replace(
            stage,
            bandwidth_bytes_per_s=machine.memory.bandwidth_bytes_per_s,
            generation="x86" if machine.architecture.casefold() in _X86 else "arm",
        )
    facts = _facts(gpu)
    bandwidth = gpu.bandwidth_bytes_per_s or (facts.bandwidth_bytes_per_s if facts else None)
    if gpu.unified_memory and bandwidth is None:
        bandwidth = machine.memory.bandwidth_bytes_per_s
    return msgspec.structs.replace(
        stage,
        backend=gpu.backend,
        bandwidth_bytes_per_s=bandwidth,
        matrix_flops_per_s=facts.matrix_flops_per_s if facts else None,
        memory=facts.memory if facts else None,
        generation=facts.generation if facts else None,
    )


def _facts(gpu: Gpu) -> DeviceFacts | None:
    """The data sheet of a GPU; a slice of one (MIG) has a share of it that nobody tells."""
    return None if gpu.mig else device_facts(gpu.name)


def _link(machine: Machine, settings: Settings) -> float | None:
    """Bytes per second from RAM to the first GPU with memory of its own, where the engine may copy weights there."""
    gpu = next((gpu for gpu in machine.gpus if not gpu.unified_memory), None)
    if gpu is None or not settings.op_offload:
        return None
    lane = _LANE_BYTES_PER_S.get(gpu.pcie_generation or 0)
    return _REACHED_OF_LINK * lane * gpu.pcie_lanes if lane and gpu.pcie_lanes else _USUAL_LINK_BYTES_PER_S
