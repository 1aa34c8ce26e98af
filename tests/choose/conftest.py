"""A small world for the choose room: the real catalogue, invented machines, and an estimator that obeys physics."""

from collections.abc import Callable
from pathlib import Path

import pytest

from planner.catalogue import Catalogue, load
from planner.catalogue.quality import Quality, load_quality
from planner.estimate.assignment import assign
from planner.estimate.speed import Stage, generate_speed
from planner.types.estimate import Estimate, LayerSize, Refusal
from planner.types.machine import Cpu, Engine, Gpu, Machine, Memory, Power
from planner.types.model import Model, Quantization
from planner.types.plan import DeviceMemory, Speeds
from planner.types.settings import Settings

GIB = 1 << 30
MIB = 1 << 20

_CACHE_BITS = {"f16": 16.0, "q8_0": 8.5, "q4_0": 4.5}
_REPACKED = ("Q4_0", "Q4_K", "IQ4_NL", "Q2_K")


def build_machine(
    ram_gib: float = 16.0,
    *,
    gpu_gib: tuple[float, ...] = (),
    ram_bandwidth: float | None = 60e9,
    gpu_bandwidth: float | None = 400e9,
    threads: int = 8,
    unified: bool = False,
    offload: bool = True,
) -> Machine:
    """A machine with so much free RAM and so many GPUs."""
    ram = int(ram_gib * GIB)
    gpus = tuple(
        Gpu(
            index=index,
            vendor="apple" if unified else "nvidia",
            name="invented",
            backend="metal" if unified else "cuda",
            memory_total_bytes=int(size * GIB),
            memory_free_bytes=int(size * GIB),
            unified_memory=unified,
            bandwidth_bytes_per_s=int(gpu_bandwidth) if gpu_bandwidth else None,
        )
        for index, size in enumerate(gpu_gib)
    )
    engine = Engine(package_version="0", build="test", llama_cpp=None, system_info="", gpu_offload=offload, devices=())
    return Machine(
        name="invented",
        kind="described",
        os="linux",
        kernel=None,
        architecture="x86_64",
        cpu=Cpu(
            model=None,
            vendor=None,
            sockets=1,
            physical_cores=threads,
            logical_cpus=threads,
            affinity_cpus=None,
            quota_cpus=None,
            usable_threads=threads,
        ),
        memory=Memory(
            total_bytes=ram,
            available_bytes=ram,
            swap_total_bytes=0,
            swap_free_bytes=0,
            usable_bytes=ram,
            bandwidth_bytes_per_s=int(ram_bandwidth) if ram_bandwidth else None,
        ),
        disk=None,
        power=Power(on_battery=None, battery_percent=None),
        gpus=gpus,
        engine=engine,
        source="invented for a test",
    )


class PhysicalEstimator:
    """Bytes from parameters, bits and shape; speeds from the published physics; counts the questions it is asked.

    Weights are spread evenly over layers, nine tenths of a mixture are experts; quantizations of the 4-bit kind are
    held twice on the CPU when mapped, as the engine does.
    """

    def __init__(
        self,
        machine: Machine,
        *,
        refuse: Callable[[Model, Quantization, Settings], bool] | None = None,
        tells_layers: bool = True,
    ):
        self.machine = machine
        self.tells_layers = tells_layers
        self.refuse = refuse
        self.asked: list[tuple[str, str, Settings]] = []
        self._compute = 0

    def __call__(self, model: Model, quantization: Quantization, settings: Settings) -> Estimate | Refusal:
        """The answer to one question."""
        self.asked.append((model.id, quantization.name, settings))
        self._compute = 300 * MIB * settings.ubatch // 512
        if self.refuse is not None and self.refuse(model, quantization, settings):
            return Refusal(text="the engine refuses it")
        layers = int(model.shape["n_layer"])
        weights = int(model.parameters * quantization.bits_per_weight / 8)
        cache = _cache_bytes(model, settings)
        on_gpu = self._share_on_gpu(model, settings, layers)
        attention_on_gpu = min(1.0, max(0, settings.gpu_layers) / layers) if settings.gpu_layers >= 0 else 1.0
        attention_on_gpu = attention_on_gpu if on_gpu is not None else 0.0
        gpu_weights = int(weights * (on_gpu or 0.0))
        gpu_cache = int(cache * attention_on_gpu)
        expert = int(0.9 * weights / layers) if model.parameters_active < model.parameters else 0
        sizes = tuple(LayerSize(int(weights / layers) - expert, expert) for _ in range(layers))
        if self.machine.gpus and self.machine.gpus[0].unified_memory:
            rows = [self._row("MTL0", weights, cache, self.machine.memory.usable_bytes)]
        else:
            rows = [self._host_row(quantization, settings, weights - gpu_weights, cache - gpu_cache)]
            rows += self._gpu_rows(settings, sizes, cache / layers) if on_gpu is not None else []
        return Estimate(
            file_bytes=weights,
            memory=tuple(rows),
            speed=Speeds(
                generate=self._speed(model, quantization, settings, layers, gpu_weights, weights - gpu_weights)
            ),
            layers=sizes if self.tells_layers else (),
            devices=tuple(f"CUDA{gpu.index}" for gpu in self.machine.gpus),
        )

    def _share_on_gpu(self, model: Model, settings: Settings, layers: int) -> float | None:
        if not self.machine.gpus or not (self.machine.engine and self.machine.engine.gpu_offload):
            return None
        share = 1.0 if settings.gpu_layers < 0 else settings.gpu_layers / layers
        if model.parameters_active < model.parameters:
            return share * (0.1 + 0.9 * (1 - min(settings.cpu_moe_layers, layers) / layers))
        return share

    def _row(self, device: str, weights: int, cache: int, available: int | None) -> DeviceMemory:
        compute, overhead = self._compute, 100 * MIB
        return DeviceMemory(
            device=device,
            weights_bytes=weights,
            cache_bytes=cache,
            compute_bytes=compute,
            overhead_bytes=overhead,
            total_bytes=weights + cache + compute + overhead,
            available_bytes=available,
        )

    def _host_row(self, quantization: Quantization, settings: Settings, weights: int, cache: int) -> DeviceMemory:
        repacked = int(0.6 * weights) if settings.repack and quantization.name.startswith(_REPACKED) else 0
        mapped = settings.load_mode == "mmap"
        held = weights + repacked if mapped else weights
        row = self._row("CPU", held, cache, self.machine.memory.usable_bytes)
        return DeviceMemory(
            **{name: getattr(row, name) for name in row.__struct_fields__ if not name.startswith("weights_")},
            weights_bytes=held,
            weights_mapped_bytes=weights if mapped else 0,
            weights_repacked_bytes=repacked,
            weights_private_bytes=0 if mapped else weights - repacked,
        )

    def _gpu_rows(self, settings: Settings, sizes: tuple[LayerSize, ...], cache: float) -> list[DeviceMemory]:
        """Layers where the engine's rule puts them; the experts of the first ones on the host."""
        free = [float(gpu.memory_free_bytes or 0) for gpu in self.machine.gpus]
        where = assign(len(sizes), settings.gpu_layers, settings.tensor_split or free)
        rows = []
        for gpu, start, end in zip(self.machine.gpus, where.starts, where.ends, strict=True):
            mine = range(start, min(end, where.layers))
            held = sum(
                sizes[i].dense_bytes + (sizes[i].expert_bytes if i >= settings.cpu_moe_layers else 0) for i in mine
            )
            rows.append(self._row(f"CUDA{gpu.index}", held, int(cache * len(mine)), gpu.memory_free_bytes))
        return rows

    def _speed(self, model, quantization, settings, layers, gpu_weights, host_weights):
        active = model.parameters_active / model.parameters
        stages = []
        if host_weights:
            stages.append(
                Stage(
                    device="CPU",
                    backend="cpu",
                    weights_bytes=int(host_weights * active),
                    layers=layers if not gpu_weights else 0,
                    quantization=quantization.name,
                    bandwidth_bytes_per_s=self.machine.memory.bandwidth_bytes_per_s,
                    threads=settings.threads,
                )
            )
        if gpu_weights:
            stages.append(
                Stage(
                    device="GPU",
                    backend=self.machine.gpus[0].backend,
                    weights_bytes=int(gpu_weights * active),
                    layers=layers,
                    quantization=quantization.name,
                    bandwidth_bytes_per_s=self.machine.gpus[0].bandwidth_bytes_per_s,
                )
            )
        return generate_speed(stages)


def _cache_bytes(model: Model, settings: Settings) -> int:
    shape = model.shape
    heads = int(shape.get("n_head_kv", 8)) * int(shape.get("head_dim", shape.get("head_dim_k", 128)))
    values = 2 * int(shape["n_layer"]) * heads * settings.context_tokens
    return int(values * _CACHE_BITS[settings.cache_type_k] / 8)


class Everything(tuple):
    """All models or all quantizations; short when hypothesis prints a failing example."""

    __slots__ = ()

    def __repr__(self) -> str:
        return f"<{len(self)} of the catalogue>"


@pytest.fixture(scope="session")
def catalogue() -> Catalogue:
    """The catalogue that ships."""
    return load(Path(__file__).parents[2] / "profiles")


@pytest.fixture(scope="session")
def models(catalogue: Catalogue) -> tuple[Model, ...]:
    """Every model of the catalogue."""
    return Everything(catalogue.models.values())


@pytest.fixture(scope="session")
def quantizations(catalogue: Catalogue) -> tuple[Quantization, ...]:
    """Every quantization of the catalogue."""
    return Everything(catalogue.quantizations.values())


@pytest.fixture(scope="session")
def quality() -> Quality:
    """The indices and loss curves that ship."""
    return load_quality(Path(__file__).parents[2] / "profiles")


@pytest.fixture(scope="session")
def make_machine() -> Callable[..., Machine]:
    """Builds an invented machine."""
    return build_machine


@pytest.fixture(scope="session")
def physics() -> type[PhysicalEstimator]:
    """The estimator that obeys physics."""
    return PhysicalEstimator
