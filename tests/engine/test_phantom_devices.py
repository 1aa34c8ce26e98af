"""Phantom devices: the engine plans GPUs that are not here, by the numbers that others' engines printed."""

from functools import partial

import msgspec
import psutil
import pytest

from planner import catalogue
from planner.engine.child import EngineChild
from planner.engine.devices import PhantomDevice
from planner.engine.oracle import Oracle
from planner.engine.phantom import write_phantom
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
    return card(gib, backend, fusion=False, attention_scratch=False, **details)


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


def test_experts_joined_into_one_kernel_keep_what_was_measured(ask):
    """Qwen3.6-35B-A3B, micro-batches of 8192: 537,427,968 bytes for the weighted sum, a little more for the choice.

    https://github.com/GenerelSchwerz/llama.cpp/issues/80, on a build of before the choice of experts was kept too.
    """
    settings = Settings(context_tokens=65536, batch=8192, ubatch=8192, outputs_max=1)
    _, joined = ask("qwen3.6-35b-a3b", settings, card(40))
    _, apart = ask("qwen3.6-35b-a3b", settings, old(40))
    more = joined["CUDA0"].compute_bytes - apart["CUDA0"].compute_bytes
    assert 537_427_968 <= more <= 1.05 * 537_427_968


@pytest.mark.parametrize("cache", ["q8_0", "q5_1", "q4_0"])
def test_a_quantized_cache_costs_a_converted_copy_of_one_layer(ask, cache):
    """Qwen3-8B at 131072 tokens: 2 bytes for each key and value of a layer, beside what attention needs anyway."""
    settings = Settings(context_tokens=131072, cache_type_k=cache, cache_type_v=cache, flash_attention="on")
    _, buffers = ask("qwen3-8b", settings, card(80))
    copies = 2 * 2 * 131072 * 8 * 128
    assert copies <= buffers["CUDA0"].compute_bytes <= copies + 161 * MIB
    _, before = ask("qwen3-8b", settings, old(80))
    assert before["CUDA0"].compute_bytes / MIB == 304.75


def test_a_cache_that_cuda_cannot_read_sends_attention_to_the_processor(ask):
    """iq4_nl has no kernel: with flash attention on the CPU attends, with auto it is off and the scores take room."""
    on = Settings(context_tokens=32768, cache_type_k="iq4_nl", flash_attention="on")
    auto = Settings(context_tokens=32768, cache_type_k="iq4_nl")
    fast = Settings(context_tokens=32768, cache_type_k="q4_0")
    host, scores, usual = (ask("qwen3-8b", settings, card(80))[1] for settings in (on, auto, fast))
    assert host["CUDA_Host"].compute_bytes > usual["CUDA_Host"].compute_bytes
    assert scores["CUDA0"].compute_bytes > 4 * usual["CUDA0"].compute_bytes


def test_two_cards_hold_what_was_published(ask):
    """Llama-3-8B Q4_K_M: 2113.28 and 2290.21 MiB, caches of 544 and 480; 640 of compute, in four copies of a batch.

    ``LLaMA 3/Gaming GPUs/3090_2_v3.ipynb`` of XiongjieDai/GPU-Benchmarks-on-LLM-Inference at commit aa72e0ec; llama.cpp
    of May 2024, so compute is compared loosely.
    """
    settings = Settings(context_tokens=8192, flash_attention="off")
    told, buffers = ask("llama-3.1-8b", settings, old(24), old(24))
    for name, model, context in (("CUDA0", 2113.28, 544), ("CUDA1", 2290.21, 480)):
        assert told.buffers[name] / MIB == pytest.approx(model, abs=0.01)
        assert buffers[name].context_bytes / MIB == context
        assert buffers[name].compute_bytes / MIB == pytest.approx(640, rel=0.08)
    _, alone = ask("llama-3.1-8b", settings, old(24))
    assert buffers["CUDA_Host"].compute_bytes > 3 * alone["CUDA_Host"].compute_bytes


def test_experts_in_host_memory_leave_the_other_cards_as_published(ask):
    """Qwen3.5-122B-A10B on four P100, no flash attention: the second card 268.02, the last 1006.00, the host 32.03.

    miminashi/llm-server-ops at commit 6b04e192, 2026-04-18 phase M, ``fa0_ctx1024.log``.
    """
    settings = Settings(context_tokens=1024, ubatch=1024, flash_attention="off", cpu_moe_layers=-1)
    _, buffers = ask("qwen3.5-122b-a10b", settings, *[old(15, compute_capability="6.0")] * 4)
    found = {name: buffers[name].compute_bytes / MIB for name in ("CUDA1", "CUDA3", "CUDA_Host")}
    assert found == pytest.approx({"CUDA1": 268.02, "CUDA3": 1006.0, "CUDA_Host": 32.03}, abs=0.01)
    # The first card stages the experts of a layer.
    assert buffers["CUDA0"].compute_bytes / MIB > 900


def test_vulkan_moves_operations_and_rocm_does_not(ask):
    """Qwen3.6-35B-A3B in 4 sequences on a Radeon 8060S: 501.0 MiB with Vulkan, 497.0 with ROCm.

    hogeheer499-commits/strix-halo-guide at commit 3aa373c6, full-sweep-qwen36-workstation-baseline, ``vulkan-radv/np4``
    and ``lemonade-b1259-rocm/np4``. The order of a graph is Vulkan's of today.
    """
    settings = Settings(context_tokens=16384, parallel=4)
    _, vulkan = ask("qwen3.6-35b-a3b", settings, card(128, "vulkan", integrated=True))
    _, rocm = ask("qwen3.6-35b-a3b", settings, old(112, "rocm", integrated=True))
    assert vulkan["Vulkan0"].compute_bytes / MIB == pytest.approx(501.0, abs=0.03)
    assert rocm["ROCm0"].compute_bytes / MIB == pytest.approx(497.0, abs=0.03)
    assert {"Vulkan_Host", "ROCm_Host"} <= vulkan.keys() | rocm.keys()


def test_a_part_on_vulkan_is_placed_as_published(ask):
    """Qwen2.5-3B Q4_K_M, 35 of 37 layers: 1740.74 MiB and a cache of 68 there, 337.51 and 4 in host memory.

    DzKriMo/Aigis at commit 848ac32c, ``llama-server.log``.
    """
    settings = Settings(context_tokens=2048, parallel=4, kv_unified=True, gpu_layers=35)
    weights, buffers = ask("qwen2.5-3b", settings, card(5, "vulkan"))
    assert weights.buffers["Vulkan0"] / MIB == pytest.approx(1740.74, abs=0.01)
    assert sum(weights.buffers.values()) / MIB - 1740.74 == pytest.approx(337.51, abs=0.02)
    assert (buffers["Vulkan0"].context_bytes / MIB, buffers["CPU"].context_bytes / MIB) == (68, 4)
    assert buffers["Vulkan0"].compute_bytes / MIB == pytest.approx(300.75, abs=4.1)


def test_metal_holds_what_was_published(ask):
    """Llama-3-8B Q4_K_M on an M1 Max: 4403.5 MiB, 1024 of cache, 560 of compute without flash attention.

    ``LLaMA 3/Mac/M1max_64GB.ipynb`` of XiongjieDai/GPU-Benchmarks-on-LLM-Inference at commit aa72e0ec.
    """
    settings = Settings(context_tokens=8192, flash_attention="off")
    weights, buffers = ask("llama-3.1-8b", settings, card(48, "metal", integrated=True))
    assert weights.buffers["MTL0"] / MIB == pytest.approx(4403.5, abs=0.01)
    assert buffers["MTL0"].context_bytes / MIB == 1024
    assert buffers["MTL0"].compute_bytes / MIB == pytest.approx(560, rel=0.03)
    assert set(buffers) == {"MTL0", "CPU"}


@pytest.mark.parametrize("backend", ["cuda", "rocm", "vulkan", "metal", "sycl"])
@pytest.mark.parametrize("name", ["deepseek-v2-lite", "qwen3.6-27b"])
def test_every_backend_plans_every_kind_of_model(ask, backend, name):
    """Latent attention and recurrent layers: all weights and the whole cache are somewhere, once."""
    settings = Settings(context_tokens=4096, gpu_layers=8, cpu_moe_layers=2)
    weights, buffers = ask(name, settings, card(80, backend))
    whole, alone = ask(name, settings)
    assert sum(weights.buffers.values()) == pytest.approx(sum(whole.buffers.values()), rel=0.001)
    here = sum(buffer.context_bytes for buffer in buffers.values())
    assert here == sum(buffer.context_bytes for buffer in alone.values())


def test_two_backends_in_one_list_share_the_layers(ask):
    """A CUDA and a Vulkan card at once, each with its own pinned memory; the order of the list is the split's."""
    weights, buffers = ask("qwen3-8b", Settings(context_tokens=4096), card(24), card(8, "vulkan"))
    alone, _ = ask("qwen3-8b", Settings(context_tokens=4096), card(24))
    assert weights.buffers["CUDA0"] > weights.buffers["Vulkan0"] > 0
    assert sum(weights.buffers.values()) == pytest.approx(sum(alone.buffers.values()), rel=0.001)
    assert buffers["Vulkan0"].compute_bytes > 0


def test_an_integrated_device_is_left_alone_beside_a_card(ask):
    """As the engine does when nobody names devices; two integrated ones of a backend are both used."""
    weights, _ = ask("qwen3-0.6b", Settings(context_tokens=4096), card(8), card(64, integrated=True))
    assert "CUDA1" not in weights.buffers
    weights, _ = ask("qwen3-0.6b", Settings(context_tokens=4096), *[card(8, integrated=True)] * 2)
    assert {"CUDA0", "CUDA1"} <= weights.buffers.keys()


def test_the_main_gpu_takes_all_where_nothing_is_split(ask):
    """Split mode none and the second card: nothing on the first."""
    weights, _ = ask("qwen3-0.6b", Settings(context_tokens=4096, split_mode="none", main_gpu=1), card(8), card(8))
    assert "CUDA0" not in weights.buffers
    assert weights.buffers["CUDA1"] > 0


def test_rows_split_over_cards_are_refused_as_the_engine_refuses_them(ask):
    """CUDA has no split buffers any more."""
    with pytest.raises(EngineError, match="does not support split buffers"):
        ask("qwen3-0.6b", Settings(context_tokens=4096, split_mode="row"), card(8), card(8))


def test_as_many_devices_as_the_engine_schedules_and_not_one_more(ask):
    """Fifteen beside the CPU; with more the engine would abort."""
    weights, _ = ask("qwen3-8b", Settings(context_tokens=4096), *[card(8)] * 15)
    assert sum(name.startswith("CUDA") and name[4:].isdigit() for name in weights.buffers) == 15
    with pytest.raises(EngineError, match="15 devices beside the CPU at most, not 16"):
        ask("qwen3-8b", Settings(context_tokens=4096), *[card(8)] * 16)


def test_a_hundred_questions_leave_no_memory_behind(tmp_path):
    """The structs are made once; what a question says about its devices replaces what the last one said."""
    model = KNOWN.model("qwen3-0.6b")
    with EngineChild() as child:
        with Oracle(child, folder=tmp_path) as oracle:
            layout = oracle.typed_layout(
                KNOWN.shape_key(model), partial(KNOWN.layout, model), KNOWN.quantization("Q8_0")
            )
        path = tmp_path / "phantom.gguf"
        write_phantom(path, layout)

        def resident_after(questions):
            for step in questions:
                devices = msgspec.to_builtins((card(8 + step % 5), card(4, "vulkan")))
                settings = [msgspec.to_builtins(Settings(context_tokens=4096 + 256 * step))]
                child.ask("buffers", {"path": str(path), "settings": settings, "devices": devices})
            return psutil.Process(child.pid).memory_info().rss

        before = resident_after(range(15))
        assert resident_after(range(15, 115)) - before < 8 * MIB


def test_a_backend_without_rules_is_refused_by_name(ask):
    """An answer for a device that nobody described would be a guess."""
    with pytest.raises(EngineError, match="no rules are known for devices of 'cpu'"):
        ask("qwen3-0.6b", Settings(context_tokens=4096), card(8, backend="cpu"))
