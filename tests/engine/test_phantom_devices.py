"""Phantom devices: the engine plans GPUs that are not here, by the numbers that others' engines printed."""

from functools import partial

import pytest

from planner import catalogue
from planner.engine.child import EngineChild
from planner.engine.devices import PhantomDevice
from planner.engine.oracle import Oracle
from planner.errors import EngineError
from planner.types.settings import Settings

pytestmark = pytest.mark.engine

MIB = 1 << 20
GIB = 1 << 30
KNOWN = catalogue.load()


@pytest.fixture(scope="module")
def ask(tmp_path_factory):
    """Weights and buffers of a model on phantom devices, in MiB by buffer type."""
    folder = tmp_path_factory.mktemp("answers")
    with EngineChild() as child:

        def told(name, settings, *devices, quantization="Q4_K_M"):
            model, recipe = KNOWN.model(name), KNOWN.quantization(quantization)
            key, source = KNOWN.shape_key(model), partial(KNOWN.layout, model)
            with Oracle(child, folder=folder, devices=devices) as oracle:
                weights = oracle.weights(key, source, recipe, settings)
                (buffers,) = oracle.buffers(key, source, [settings], recipe)
            return weights, {buffer.name: buffer for buffer in buffers.buffers}

        yield told


def card(gib, backend="cuda", **details):
    """A card with that much free memory."""
    return PhantomDevice(backend=backend, free_bytes=gib * GIB, total_bytes=gib * GIB, **details)


def old(gib, backend="cuda", **details):
    """A card under a build of before August 2026, which kept no memory for joined operations."""
    return card(gib, backend, fusion=False, **details)


def test_compute_and_weights_equal_a_published_load_of_a_mixture(ask):
    """Qwen3-Coder-30B-A3B, 4096 and 16384 tokens in 4 sequences, all on one device: 300.75 and 304.75 MiB."""
    for settings, mib in (
        (Settings(context_tokens=4096), 300.75),
        (Settings(context_tokens=16384, parallel=4), 304.75),
    ):
        _, buffers = ask("qwen3-coder-30b-a3b", settings, old(24))
        assert buffers["CUDA0"].compute_bytes / MIB == pytest.approx(mib, abs=4.1)


def test_a_tied_head_lies_on_both_sides(ask):
    """Qwen3-0.6B Q8_0, all layers on one GPU: 604.15 MiB there and 157.65 MiB in host memory, as published."""
    weights, buffers = ask("qwen3-0.6b", Settings(context_tokens=4096), card(24), quantization="Q8_0")
    assert weights.buffers["CUDA0"] / MIB == pytest.approx(604.15, abs=0.01)
    assert weights.buffers["CUDA_Host"] / MIB == pytest.approx(157.65, abs=0.01)
    assert buffers["CUDA0"].context_bytes / MIB == 448.0


def test_two_cards_share_layers_by_free_memory(ask):
    """Three quarters of the free memory take about three quarters of the layers, and everything adds up."""
    weights, buffers = ask("qwen3-8b", Settings(context_tokens=4096), card(24), card(8))
    alone, _ = ask("qwen3-8b", Settings(context_tokens=4096), card(24))
    assert sum(weights.buffers.values()) == sum(alone.buffers.values())
    assert 3.0 <= buffers["CUDA0"].context_bytes / buffers["CUDA1"].context_bytes <= 3.5


def test_recurrent_state_needs_no_memory_to_be_planned_on_a_card(ask):
    """A hybrid's state is counted on the card where its layers are."""
    _, buffers = ask("qwen3.6-27b", Settings(context_tokens=4096, parallel=4), card(24))
    assert buffers["CUDA0"].context_bytes / MIB == pytest.approx(4 * 149.62 + 256.0, abs=0.1)


def test_a_backend_without_rules_is_refused_by_name(ask):
    """An answer for a device that nobody described would be a guess."""
    with pytest.raises(EngineError, match="no rules are known for devices of 'cpu'"):
        ask("qwen3-0.6b", Settings(context_tokens=4096), card(8, backend="cpu"))
