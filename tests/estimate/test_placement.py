"""Weights and cache on GPUs that are not here: against published load logs, and laws of adding up."""

from functools import partial

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner import catalogue, machine
from planner.engine.answers import Buffer, Buffers, LayerBytes, Weights
from planner.engine.child import EngineChild
from planner.engine.oracle import Oracle
from planner.estimate.placement import layers_per_device, modelled_memory
from planner.types.settings import Settings

MIB = 1 << 20


@pytest.fixture(scope="module")
def ask(tmp_path_factory):
    """Modelled rows of a model on a shipped machine, from the engine's own tensor table."""
    known = catalogue.load()
    with EngineChild() as child, Oracle(child, folder=tmp_path_factory.mktemp("answers"), devices=()) as oracle:

        def rows(name, quantization, settings, on):
            model, recipe = known.model(name), known.quantization(quantization)
            key, source = known.shape_key(model), partial(known.layout, model)
            weights = oracle.weights(key, source, recipe, settings)
            lean = msgspec.structs.replace(settings, outputs_max=settings.parallel)
            full, small = oracle.buffers(key, source, [settings, lean], recipe)
            return {
                row.device: row
                for row in modelled_memory(machine.load(on), settings, weights, full, small, process_bytes=0)
            }

        yield rows


@pytest.mark.engine
@pytest.mark.parametrize(
    ("name", "quantization", "settings", "gpu_mib", "host_mib", "cache_mib"),
    [
        # Published load log of Qwen3-0.6B Q8_0, all 29 layers on one GPU: the tied matrix lies on both sides.
        ("qwen3-0.6b", "Q8_0", Settings(context_tokens=4096), 604.15, 157.65, 448.0),
        # https://github.com/ggml-org/llama.cpp/issues/13729: the last 30 layers of a Qwen3-30B-A3B Q4_K_M without its
        # output (243.43 MiB), as builds of May 2025 counted "30 of 49"; today that is one more, the output first.
        ("qwen3-30b-a3b", "Q4_K_M", Settings(context_tokens=4096, gpu_layers=31), 10750.86 + 243.43, 6697.05, None),
    ],
)
def test_weights_and_cache_equal_published_load_logs(ask, name, quantization, settings, gpu_mib, host_mib, cache_mib):
    """Within 0.1 %: the assignment rule and the engine's tensor table, nothing else."""
    rows = ask(name, quantization, settings, "rtx-4090")
    assert rows["CUDA0"].weights_bytes / MIB == pytest.approx(gpu_mib, rel=1e-3)
    assert rows["CPU"].weights_mapped_bytes / MIB == pytest.approx(host_mib, rel=1e-3)
    if cache_mib is not None:
        assert rows["CUDA0"].cache_bytes / MIB == pytest.approx(cache_mib, rel=1e-3)


@pytest.mark.engine
@pytest.mark.parametrize(
    ("name", "settings", "device_mib"),
    [
        # ROCm0 of the same log; Vulkan0 of Qwen3-Coder-30B-A3B at 4096 and 16384 tokens (strix-halo-guide, May 2026).
        ("qwen3-0.6b", Settings(context_tokens=4096), 298.75),
        ("qwen3-coder-30b-a3b", Settings(context_tokens=4096), 300.75),
        ("qwen3-coder-30b-a3b", Settings(context_tokens=16384, parallel=4), 304.75),
    ],
)
def test_compute_buffers_bound_the_published_ones_within_a_tenth(ask, name, settings, device_mib):
    """The CPU engine's graph is never below what the GPU took, and at most 10 % above."""
    row = ask(name, "Q4_K_M", settings, "rtx-4090")["CUDA0"]
    assert 0.999 <= row.compute_bytes / MIB / device_mib <= 1.10


@st.composite
def placements(draw):
    """A model of random layers, random settings, a shipped machine with GPUs."""
    sizes = st.integers(1, 1 << 32)
    count = draw(st.integers(1, 80))
    layers = tuple(LayerBytes(dense_bytes=draw(sizes), expert_bytes=draw(st.just(0) | sizes)) for _ in range(count))
    tied = draw(st.booleans())
    head, table = draw(sizes), draw(sizes)
    total = sum(x.dense_bytes + x.expert_bytes for x in layers) + head + (0 if tied else table)
    weights = Weights(
        file_bytes=total, buffers={"CPU": total}, mapped={"CPU": total}, layers=layers,
        input_bytes=0 if tied else table, head_bytes=head, tied=tied,
    )  # fmt: skip
    buffer = Buffer(name="CPU", host=True, model_bytes=0, context_bytes=draw(sizes), compute_bytes=draw(sizes))
    settings = Settings(
        context_tokens=4096,
        gpu_layers=draw(st.integers(-1, count + 2)),
        cpu_moe_layers=draw(st.integers(0, count)),
        load_mode=draw(st.sampled_from(["none", "mmap"])),
    )
    return draw(st.sampled_from(["rtx-4090", "2x-rtx-3090", "8x-h100"])), settings, weights, Buffers(buffers=(buffer,))


@given(placements())
def test_nothing_is_lost_and_nothing_is_counted_twice(case):
    """Weights over all devices are the file, plus one copy of a tied matrix when both sides need it; cache likewise."""
    name, settings, weights, buffers = case
    rows = modelled_memory(machine.load(name), settings, weights, buffers, buffers, process_bytes=1)
    on_gpus = any(row.device != "CPU" and row.weights_bytes >= weights.head_bytes for row in rows)
    extra = weights.head_bytes if weights.tied and on_gpus and settings.gpu_layers != 0 else 0
    assert sum(row.weights_bytes for row in rows) == weights.file_bytes + extra
    assert sum(row.cache_bytes for row in rows) == buffers.buffers[0].context_bytes
    for row in rows:
        assert row.total_bytes == row.weights_bytes + row.cache_bytes + row.compute_bytes + row.overhead_bytes


@given(placements())
def test_the_last_layers_go_to_gpus_in_order(case):
    """Host layers come first, GPU indices never fall, and exactly as many layers are offloaded as asked for."""
    name, settings, weights, _ = case
    found = machine.load(name)
    count = len(weights.layers)
    places, output = layers_per_device(found, settings, count)
    wanted = count + 1 if settings.gpu_layers < 0 else min(settings.gpu_layers, count + 1)
    assert [*places, output] == sorted([*places, output])
    assert sum(place >= 0 for place in [*places, output]) == wanted
    assert max([*places, output]) < len(found.gpus)


@given(placements())
def test_more_layers_on_gpus_never_leave_more_on_the_host(case):
    """Moving one more layer never raises the host's weights by more than the copy of a tied matrix."""
    name, settings, weights, buffers = case
    if settings.gpu_layers < 0:
        return
    found = machine.load(name)

    def host(layers):
        rows = modelled_memory(
            found, msgspec.structs.replace(settings, gpu_layers=layers), weights, buffers, buffers, process_bytes=1
        )
        return next(row.weights_bytes for row in rows if row.device == "CPU")

    assert host(settings.gpu_layers + 1) <= host(settings.gpu_layers)
