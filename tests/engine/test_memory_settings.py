"""Each setting changes the answer as it changes a real load: small models, loaded and run by a referee of their own."""

import json
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
from msgspec.structs import replace

from planner import catalogue
from planner.engine.child import EngineChild
from planner.engine.devices import PhantomDevice
from planner.engine.drafting import second_context
from planner.engine.oracle import Oracle
from planner.engine.phantom import write_phantom
from planner.errors import EngineError
from planner.types.model import Quantization, TensorSpec
from planner.types.settings import Settings

pytestmark = pytest.mark.engine
REFEREE = Path(__file__).with_name("real_context.py")
MIB = 1 << 20
WORDS = 4096
PLAIN = Settings(context_tokens=1024, batch=256, ubatch=128, load_mode="none", threads=2, threads_batch=2)
AS_IT_IS = Quantization(name="file", ftype=None, bits_per_weight=8.5, kld=None, kld_source=None)


@pytest.fixture(scope="module")
def child():
    """One child for the whole module."""
    with EngineChild() as running:
        yield running


@pytest.fixture(scope="module")
def known():
    """The shipped catalogue."""
    return catalogue.load()


def small(known, name, layers, kind="Q8_0"):
    """The first layers of a model with a vocabulary of 4096 words, all matrices of one type."""
    layout = known.layout(known.model(name), layers)
    arch = layout.metadata["general.architecture"]
    words = layout.metadata[f"{arch}.vocab_size"]

    def changed(tensor):
        dims = tuple(WORDS if size == words else size for size in tensor.dims)
        return TensorSpec(name=tensor.name, dims=dims, type=tensor.type if tensor.type == "F32" else kind)

    metadata = {**layout.metadata, f"{arch}.vocab_size": WORDS}
    return replace(layout, metadata=metadata, tensors=tuple(map(changed, layout.tensors)))


def with_drafting_block(layout):
    """Qwen3.5 with the block that its converter adds for multi-token prediction (``src/models/qwen35.cpp``)."""
    last = layout.metadata["qwen35.block_count"]
    width = layout.metadata["qwen35.embedding_length"]
    recurrent = layout.metadata["qwen35.attention.recurrent_layers"]
    attention = next(index for index, each in enumerate(recurrent) if not each)
    block = [
        replace(tensor, name=tensor.name.replace(f"blk.{attention}.", f"blk.{last}."))
        for tensor in layout.tensors
        if tensor.name.startswith(f"blk.{attention}.")
    ]
    block.append(TensorSpec(name=f"blk.{last}.nextn.eh_proj.weight", dims=(2 * width, width), type="Q8_0"))
    norms = ("enorm", "hnorm", "shared_head_norm")
    block += [TensorSpec(name=f"blk.{last}.nextn.{name}.weight", dims=(width,), type="F32") for name in norms]
    metadata = {
        **layout.metadata,
        "qwen35.block_count": last + 1,
        "qwen35.nextn_predict_layers": 1,
        "qwen35.attention.recurrent_layers": (*recurrent, False),
    }
    return replace(layout, metadata=metadata, tensors=(*layout.tensors, *block))


def real(path, settings, **more):
    """What a real load of the file holds."""
    request = {"path": str(path), "settings": msgspec.to_builtins(settings), **more}
    program = [sys.executable, str(REFEREE)]
    done = subprocess.run(program, input=json.dumps(request), capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr[-500:]
    return json.loads(done.stdout.splitlines()[-1])


def cache_bytes(buffers):
    """Cache and recurrent state."""
    return sum(each.context_bytes for each in buffers.buffers)


def compute_bytes(buffers):
    """Compute buffers."""
    return sum(each.compute_bytes for each in buffers.buffers)


CASES = [
    ("qwen3-0.6b", 2, "Q8_0", {}),
    ("qwen3-0.6b", 2, "Q4_0", {"threads": 7, "threads_batch": 7}),
    ("qwen3-0.6b", 2, "BF16", {"threads": 33, "threads_batch": 33}),
    ("qwen3-0.6b", 2, "Q4_K", {"repack": False, "flash_attention": "off"}),
    ("qwen3-0.6b", 2, "Q8_0", {"cache_type_k": "q8_0", "cache_type_v": "q4_0", "parallel": 3}),
    ("qwen3-0.6b", 2, "Q8_0", {"kv_unified": True, "parallel": 4, "outputs_max": 4}),
    ("qwen3-30b-a3b", 1, "Q4_K", {"ubatch": 64}),
    ("qwen3-30b-a3b", 1, "Q4_0", {"threads": 40, "threads_batch": 40}),
    ("qwen3.5-0.8b", 4, "Q8_0", {"parallel": 2}),
    ("deepseek-v2-lite", 2, "Q5_0", {"flash_attention": "off"}),
]


@pytest.mark.parametrize(("name", "layers", "kind", "changes"), CASES)
def test_every_buffer_and_the_kernels_work_space_are_those_of_a_real_load(
    child, known, tmp_path, name, layers, kind, changes
):
    """Cache and compute to the last digit that the log prints, work space to the byte."""
    layout, settings = small(known, name, layers, kind), replace(PLAIN, **changes)
    write_phantom(tmp_path / "real.gguf", layout)
    seen = real(tmp_path / "real.gguf", settings)
    (told,) = Oracle(child, folder=tmp_path).buffers(f"{name} {kind} {layers}", lambda: layout, [settings], AS_IT_IS)
    assert cache_bytes(told) / MIB == pytest.approx(seen["cache"], abs=0.011)
    assert compute_bytes(told) / MIB == pytest.approx(seen["compute"], abs=0.011)
    assert told.output_bytes / MIB == pytest.approx(seen["output"], abs=0.011)
    assert told.work_bytes == seen["work_bytes"]


@pytest.mark.parametrize("changes", [{"parallel": 2, "ubatch": 64}, {"draft_cache_type_k": "q8_0", "draft_tokens": 5}])
def test_a_model_that_drafts_for_itself_holds_what_a_real_one_does(child, known, tmp_path, changes):
    """The first context with its snapshots and hidden states, the second with its cache, sampler and logits."""
    layout = with_drafting_block(small(known, "qwen3.5-0.8b", 4))
    settings = replace(PLAIN, speculation="draft-mtp", **changes)
    settings = replace(settings, outputs_max=settings.parallel * (1 + settings.draft_tokens))
    write_phantom(tmp_path / "real.gguf", layout)
    seen = real(tmp_path / "real.gguf", settings)
    oracle = Oracle(child, folder=tmp_path)
    asked = ("drafts", lambda: layout)
    (told,) = oracle.buffers(*asked, [settings], AS_IT_IS)
    drafts = oracle.drafting_buffers(*asked, settings, AS_IT_IS)
    weights = oracle.weights(*asked, AS_IT_IS, settings)
    assert sum(weights.buffers.values()) / MIB == pytest.approx(seen["weights"], abs=0.021)
    assert cache_bytes(told) / MIB == pytest.approx(seen["cache"], abs=0.011)
    assert compute_bytes(told) / MIB == pytest.approx(seen["compute"], abs=0.011)
    assert told.output_bytes == seen["output_bytes"]
    assert cache_bytes(drafts) / MIB == pytest.approx(seen["drafts"]["cache"], abs=0.011)
    assert compute_bytes(drafts) / MIB == pytest.approx(seen["drafts"]["compute"], abs=0.011)
    assert drafts.output_bytes == seen["drafts"]["output_bytes"]


def test_the_block_for_drafts_is_held_only_when_it_drafts(child, known, tmp_path):
    """Without drafting it stays in the file; the state of recurrent layers is kept once more for each draft."""
    layout = with_drafting_block(small(known, "qwen3.5-0.8b", 4))
    oracle = Oracle(child, folder=tmp_path)
    idle, drafting = (
        oracle.weights("block", lambda: layout, AS_IT_IS, replace(PLAIN, speculation=each))
        for each in ("none", "draft-mtp")
    )
    assert sum(drafting.buffers.values()) > sum(idle.buffers.values())
    states = []
    for tokens in (1, 2, 5):
        settings = replace(PLAIN, speculation="draft-mtp", draft_tokens=tokens)
        states.append(cache_bytes(oracle.buffers("block", lambda: layout, [settings], AS_IT_IS)[0]))
    assert states[2] - states[1] == 3 * (states[1] - states[0])


def test_a_model_without_a_block_for_drafts_is_refused(child, known, tmp_path):
    """In words that say what to do instead."""
    layout = small(known, "qwen3-0.6b", 2)
    settings = replace(PLAIN, speculation="draft-mtp")
    (told,) = Oracle(child, folder=tmp_path).buffers("plain", lambda: layout, [settings], AS_IT_IS)
    assert "draft with another model" in (told.refused or "")


def test_yarn_changes_no_buffer(known, tmp_path):
    """A stretched context costs what the same number of tokens costs: only angles are computed otherwise."""
    write_phantom(tmp_path / "real.gguf", small(known, "qwen3-0.6b", 2))
    assert real(tmp_path / "real.gguf", PLAIN, yarn=[4, 256]) == real(tmp_path / "real.gguf", PLAIN)


def test_whole_windows_cost_a_cache_that_grows_with_the_context(child, known, tmp_path):
    """DeepSeek-V4 looks back 128 tokens in its own keys; with --swa-full these are kept for the whole context."""
    model = known.model("deepseek-v4-flash")
    asked = (known.shape_key(model), lambda: known.layout(model, 4))
    held = {}
    for whole in (False, True):
        for context in (4096, 8192):
            settings = [Settings(context_tokens=context, swa_full=whole)]
            (told,) = Oracle(child, folder=tmp_path).buffers(*asked, settings, known.quantization("Q8_0"))
            held[whole, context] = cache_bytes(told)
    assert held[True, 8192] - held[True, 4096] > 4 * (held[False, 8192] - held[False, 4096])


def test_settings_that_share_a_context_are_answered_as_if_each_had_its_own(child, known, tmp_path):
    """The number of outputs and of threads: asked together and asked alone, for every kind of cache that is known."""
    for name in ("qwen3-4b", "deepseek-v3.2", "qwen3.5-27b", "deepseek-v2-lite", "glm-5"):
        model = known.model(name)
        key, source = known.shape_key(model), lambda model=model: known.layout(model)
        wanted = [
            Settings(context_tokens=4096, parallel=2, outputs_max=outputs, threads=threads)
            for outputs, threads in ((0, 1), (2, 1), (100, 4))
        ]
        together = Oracle(child, folder=tmp_path / "together").buffers(key, source, wanted, known.quantization("Q4_0"))
        for settings, told in zip(wanted, together, strict=True):
            alone = Oracle(child, folder=tmp_path / f"{settings.outputs_max}").buffers(
                key, source, [settings], known.quantization("Q4_0")
            )
            assert [msgspec.structs.replace(told, log=()), told.refused] == [
                msgspec.structs.replace(alone[0], log=()),
                None,
            ]


GPUS = [
    PhantomDevice(backend="cuda", free_bytes=24 << 30, total_bytes=24 << 30, compute_capability="8.9") for _ in range(2)
]


@pytest.fixture
def on_gpus(child, known, tmp_path):
    """Weights, buffers and layout of a small mixture of experts on two phantom GPUs."""
    oracle = Oracle(child, folder=tmp_path, devices=GPUS)
    layout = small(known, "qwen3-30b-a3b", 4)

    def ask(**changes):
        settings = replace(PLAIN, **changes)
        weights = oracle.weights("moe", lambda: layout, AS_IT_IS, settings)
        return weights, oracle.buffers("moe", lambda: layout, [settings], AS_IT_IS)[0]

    return ask, layout


def tensor_bytes(layout, word):
    """Bytes in the file of all tensors with ``word`` in their name."""
    from planner.gguf.ggml_types import tensor_bytes as size

    return sum(size(tensor.type, tensor.dims) for tensor in layout.tensors if word in tensor.name)


def in_ram(weights):
    """Bytes outside the GPUs."""
    return sum(size for name, size in weights.buffers.items() if not name.startswith("CUDA") or name == "CUDA_Host")


def test_an_override_moves_the_tensors_that_match_and_no_others(on_gpus):
    """To RAM, and to the other GPU; the first pattern that matches counts."""
    ask, layout = on_gpus
    whole, _ = ask(tensor_split=(1.0, 1.0))
    ram, _ = ask(tensor_split=(1.0, 1.0), tensor_overrides=((r"blk\.0\.ffn_.*_exps", "CPU"),))
    moved = tensor_bytes(layout, "_exps") // 4
    assert in_ram(ram) - in_ram(whole) == moved
    other, _ = ask(
        tensor_split=(1.0, 1.0),
        tensor_overrides=((r"blk\.0\.ffn_.*_exps", "CUDA1"), (r"blk\.0\.", "CPU")),
    )
    # A GPU pads a row whose length is no multiple of 512.
    assert 0 <= other.buffers["CUDA1"] - whole.buffers["CUDA1"] - moved < 1024


def test_all_experts_in_ram_are_the_experts_of_every_layer(on_gpus):
    """−1 and the number of layers are the same; --override-tensor says it, too."""
    ask, layout = on_gpus
    every, _ = ask(cpu_moe_layers=-1)
    counted, _ = ask(cpu_moe_layers=4)
    said, _ = ask(tensor_overrides=(("_exps", "CPU"),))
    nothing, _ = ask()
    assert every == counted == said
    assert in_ram(every) - in_ram(nothing) == tensor_bytes(layout, "_exps")


def test_without_a_split_the_main_gpu_holds_everything(on_gpus):
    """The other one holds nothing at all."""
    ask, _ = on_gpus
    for main in (0, 1):
        weights, buffers = ask(split_mode="none", main_gpu=main)
        devices = {name for name in weights.buffers if name in ("CUDA0", "CUDA1")}
        assert devices == {f"CUDA{main}"}
        assert all(not each.name.startswith(f"CUDA{1 - main}") for each in buffers.buffers if each.compute_bytes)


def test_weights_in_ram_are_repacked_where_they_need_not_be_pinned(on_gpus):
    """--no-host lets the CPU keep its faster form of the experts."""
    ask, _ = on_gpus
    pinned, _ = ask(cpu_moe_layers=-1)
    free, _ = ask(cpu_moe_layers=-1, host_buffer=False)
    assert "CUDA_Host" in pinned.buffers
    assert "CUDA_Host" not in free.buffers


def test_layers_in_ram_need_work_space_although_a_gpu_helps(on_gpus):
    """Short batches are the CPU's; with everything on the GPU there is nothing for it to work in."""
    ask, _ = on_gpus
    assert ask()[1].work_bytes == 0
    assert ask(gpu_layers=2)[1].work_bytes > 0
    assert ask(cpu_moe_layers=2)[1].work_bytes > 0


@pytest.mark.parametrize(
    ("override", "words"),
    [
        (("blk[", "CPU"), r"regular expression.*'blk\['"),
        (("blk", "CUDA7"), "CUDA7.*known here: .*CUDA0"),
        (("a,b", "CPU"), "'a,b'.*llama-server would cut"),
    ],
)
def test_an_override_that_means_nothing_is_refused_in_words(on_gpus, override, words):
    """A broken pattern, a buffer type that is not here, and a pattern that llama-server would cut in two."""
    ask, _ = on_gpus
    with pytest.raises(EngineError, match=words):
        ask(tensor_overrides=(override,))


def test_the_second_context_is_as_long_as_the_engine_makes_the_first():
    """Rounded up to 256 tokens for each sequence, or for all of them together."""
    assert second_context(Settings(context_tokens=1000)).context_tokens == 1024
    assert second_context(Settings(context_tokens=1000, parallel=3)).context_tokens == 3 * 512
    assert second_context(Settings(context_tokens=1000, parallel=3, kv_unified=True)).context_tokens == 1024


@pytest.mark.parametrize(
    ("mode", "devices", "lazy"),
    [
        ("auto", (), True),
        ("off", (), False),
        ("on", GPUS[:1], True),
        # An integrated GPU maps no files, so the engine reads the table in full.
        ("auto", [PhantomDevice(backend="vulkan", free_bytes=1 << 36, total_bytes=1 << 36, integrated=True)], False),
    ],
)
def test_a_lookup_table_in_the_file_is_not_held(child, known, tmp_path, mode, devices, lazy):
    """Qwen3.8-Flash-Next: 51 billion numbers, of which a token reads a few rows."""
    layout = known.layout(known.model("qwen3.8-flash-next"))
    settings = Settings(context_tokens=512, lazy_mode=mode)
    weights = Oracle(child, folder=tmp_path, devices=devices).weights("lookup", lambda: layout, AS_IT_IS, settings)
    table = tensor_bytes(layout, "per_layer_token_embd")
    assert table > 90 << 30
    assert weights.lazy_bytes == (table if lazy else 0)
    # A GPU pads rows, and holds a tied head once more.
    assert 0 <= sum(weights.buffers.values()) + weights.lazy_bytes - weights.file_bytes < 2 << 30
    assert not lazy or max(weights.mapped.values()) + table <= weights.file_bytes
