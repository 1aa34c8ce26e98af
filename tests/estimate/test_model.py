"""The fast model of memory against the engine's own answers on phantom devices, over settings drawn at random."""

import random
from collections.abc import Iterator

import pytest

from planner import catalogue
from planner.engine.child import EngineChild
from planner.engine.devices import PhantomDevice
from planner.engine.oracle import Oracle
from planner.estimate.model_source import layer_caches, memory_model
from planner.types.settings import Settings

_MIB = 1 << 20
_DEVICES = (
    PhantomDevice(backend="cuda", free_bytes=24 << 30, total_bytes=24 << 30, compute_capability="8.6"),
    PhantomDevice(backend="cuda", free_bytes=8 << 30, total_bytes=8 << 30, compute_capability="8.6"),
)
_NAMES = ("CUDA0", "CUDA1")


class _Told:
    """One model's engine and fast model."""

    def __init__(self, oracle: Oracle, name: str, quantization: str) -> None:
        known = catalogue.load()
        model = known.model(name)
        self.oracle, self.key = oracle, known.shape_key(model)
        self.quantization = known.quantization(quantization)
        self._layout = known.layout(model)
        self.layers = len(self._layout.layers)
        self.model = memory_model(
            oracle,
            self.key,
            self.source,
            self.quantization,
            layers=self.layers,
            devices=_NAMES,
            free_bytes=[each.free_bytes for each in _DEVICES],
            longest_context=4096,
        )

    def source(self):
        return self._layout

    def exact(self, settings: Settings) -> dict[str, tuple[int, int, int]]:
        """Weights, cache and compute per GPU, as the engine says."""
        weights = self.oracle.weights(self.key, self.source, self.quantization, settings)
        (buffers,) = self.oracle.buffers(self.key, self.source, [settings], self.quantization)
        assert buffers.refused is None
        return {
            name: (
                weights.buffers.get(name, 0),
                sum(each.context_bytes for each in buffers.buffers if each.name == name),
                sum(each.compute_bytes for each in buffers.buffers if each.name == name),
            )
            for name in _NAMES
        }


@pytest.fixture(scope="module")
def oracle(tmp_path_factory) -> Iterator[Oracle]:
    """An engine that plans two cards."""
    with EngineChild() as child, Oracle(child, folder=tmp_path_factory.mktemp("answers"), devices=_DEVICES) as made:
        yield made


@pytest.fixture(scope="module", params=["qwen3-0.6b", "qwen3.5-0.8b"])
def told(request, oracle) -> _Told:
    """A dense model with a tied head, and a hybrid whose layers differ."""
    return _Told(oracle, request.param, "Q4_K_M")


def _drawn(layers: int) -> list[Settings]:
    rng = random.Random(4)  # noqa: S311 - a sample that can be repeated
    return [
        Settings(
            context_tokens=rng.randint(600, 4096),
            ubatch=rng.choice((512, 512, 384)),
            gpu_layers=rng.choice((-1, -1, rng.randint(1, layers))),
            tensor_split=rng.choice(((), (3.0, 1.0), (1.0, 7.0))),
            kv_offload=rng.random() < 0.8,
        )
        for _ in range(4)
    ]


def test_weights_and_caches_are_the_engines_own(told):
    """To a few hundred KiB of padding: nothing is estimated where arithmetic is exact."""
    for settings in _drawn(told.layers):
        exact, sketch = told.exact(settings), told.model.sketch(settings)
        for (weights, cache, _), device in zip(exact.values(), sketch.gpus, strict=True):
            assert abs(device.weights - weights) <= _MIB, settings
            assert abs(device.cache - cache) <= 1024, settings


def test_the_bound_of_compute_is_never_below_the_truth(told):
    """What fits by the bound fits."""
    for settings in _drawn(told.layers):
        exact, sketch = told.exact(settings), told.model.sketch(settings)
        for (_, _, compute), device in zip(exact.values(), sketch.gpus, strict=True):
            assert device.compute_bound >= compute, settings
            assert device.compute == pytest.approx(compute, rel=0.15, abs=16 * _MIB), settings


def test_what_the_model_does_not_know_it_does_not_tell(told):
    """Splitting by rows, drafting, and contexts beyond the last answer are the engine's to say."""
    assert told.model.sketch(Settings(context_tokens=4096, split_mode="row")) is None
    assert told.model.sketch(Settings(context_tokens=4096, speculation="draft-mtp")) is None
    assert told.model.sketch(Settings(context_tokens=1 << 20)) is None


def test_an_override_moves_a_tensor_in_the_model_too(told):
    """What is pinned to the host leaves the card, byte for byte as in the engine."""
    settings = Settings(context_tokens=1024, tensor_overrides=((r"blk\.[0-5]\.ffn_down", "CPU"),), tensor_split=(1, 1))
    exact, sketch = told.exact(settings), told.model.sketch(settings)
    for (weights, _, _), device in zip(exact.values(), sketch.gpus, strict=True):
        assert abs(device.weights - weights) <= _MIB


def test_the_cache_is_told_layer_by_layer(told, oracle, tmp_path):
    """The layers' own answers sum to the engine's total."""
    caches = layer_caches(oracle, told.key, told.source, told.quantization, told.layers, folder=tmp_path)
    (whole,) = oracle.buffers(told.key, told.source, [Settings(context_tokens=8192)], told.quantization)
    assert len(caches) == told.layers
    total = sum(each.context_bytes for each in whole.buffers)
    assert sum(each.fixed + each.growing * 8192 for each in caches) == pytest.approx(total, rel=1e-6)
