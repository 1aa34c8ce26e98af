"""Hybrids: layers of several kinds, caches of several kinds; llama.cpp is the judge of each layout, slice and cache."""

import re
from collections import Counter

import msgspec
import pytest

from planner.catalogue import load
from planner.engine.child import EngineChild
from planner.engine.phantom import write_phantom
from planner.errors import BadInputError
from planner.measure.bench import RANDOM_FOR_ROUTING, Bench
from planner.measure.slices import plan_slices, weights_bytes
from planner.types import measurement
from planner.types.model import Layout, Model, TensorSpec
from planner.types.settings import Settings

pytestmark = pytest.mark.engine

_BASE = load()

# One model per architecture, with layers that show every kind, and what the engine itself calls optional in it.
_EXPERTS = ("ffn_gate_shexp.weight", "ffn_up_shexp.weight", "ffn_down_shexp.weight")
_DELTA = ("attn_qkv.weight", "attn_gate.weight")
_INDEXER = ("k_norm.weight", "k_norm.bias", "proj.weight", "attn_k.weight", "attn_q_b.weight")
_SLICES = {
    "qwen3-next-80b-a3b": ((0, 3, 5), _DELTA),
    "qwen3.5-0.8b": ((2, 3, 4), _DELTA),
    "qwen3.5-35b-a3b": ((3, 4), _DELTA),
    "qwen3.8-flash-next": ((0, 1, 3), ()),
    "deepseek-v3.2": ((0, 40), ("exp_probs_b.bias",)),
    "glm-5": ((0, 40), ("exp_probs_b.bias", *(f"indexer.{name}" for name in _INDEXER))),
    "glm-5.2": ((1, 6, 7), ("exp_probs_b.bias", *(f"indexer.{name}" for name in _INDEXER))),
    "deepseek-v4-flash": ((0, 2, 3, 4), ()),
    "glm-5.3-flash": ((0, 3, 4), ()),
    "kimi-linear-48b-a3b": ((0, 1, 26), _EXPERTS),
    "kimi-k3": ((0, 1, 92), (*_EXPERTS, "attn_gate.weight", "ffn_routed_norm.weight")),
}

# (model, settings, sizes in MiB that the engine prints, source): what load logs of real files show.
_ISSUE = "https://github.com/ggml-org/llama.cpp/issues/"
_CACHES = [
    ("glm-5.2", {"context_tokens": 131072}, (11232.0, 672.0), "a published load log"),
    ("deepseek-v4-flash", {"context_tokens": 131072}, (32.25, 672.0, 20.0, 168.0), _ISSUE + "25468"),
    ("qwen3-next-80b-a3b", {"context_tokens": 69888}, (1638.0, 75.38), "a published load log"),
    ("qwen3.6-35b-a3b", {"context_tokens": 69888}, (1365.0, 62.81), "a published load log"),
    ("qwen3.6-35b-a3b", {"context_tokens": 8192, "parallel": 2}, (160.0, 125.62), "a published load log"),
    (
        "qwen3.6-35b-a3b",
        {"context_tokens": 262144, "cache_type_k": "q4_0", "cache_type_v": "q4_0", "flash_attention": "on"},
        (1440.0, 62.81),
        _ISSUE + "25721",
    ),
    (
        "qwen3.6-27b",
        {"context_tokens": 4096, "parallel": 3},
        (448.88,),
        "https://github.com/ggml-org/llama.cpp/pull/23792",
    ),
    ("qwen3.8-flash-next", {"context_tokens": 262144}, (6144.0, 112.57, 768.0), "2927 + 4097 MiB of context in a log"),
]
_SIZE = re.compile(r"(?:llama_kv_cache|llama_memory_recurrent): size = +([\d.]+) MiB")


def part(model: str, layers: tuple[int, ...]) -> Layout:
    """Some layers of a model as shipped."""
    return _BASE.layout(_BASE.model(model), layers)


def test_every_hybrid_architecture_has_a_slice_here():
    """A layout whose layers differ by a rule of their own is one of those that are tested."""
    hybrid = {
        model.architecture
        for model in _BASE.models.values()
        if any(isinstance(value, tuple) and len(value) > 4 for value in _BASE.layout(model).metadata.values())
    }
    assert hybrid <= {_BASE.model(name).architecture for name in _SLICES}


@pytest.mark.parametrize("model", _SLICES)
def test_a_missing_and_a_misshapen_tensor_are_noticed(model, tmp_path, ask_engine):
    """The engine refuses what is wrong and counts what is there; only what it calls optional may be missing."""
    layers, optional = _SLICES[model]
    layout = part(model, layers)
    changed = {"as shipped": layout.tensors}
    for index, tensor in enumerate(layout.tensors):
        before, after = layout.tensors[:index], layout.tensors[index + 1 :]
        changed[f"{tensor.name} missing"] = (*before, *after)
        longer = TensorSpec(name=tensor.name, dims=(*tensor.dims[:-1], tensor.dims[-1] + 32), type=tensor.type)
        changed[f"{tensor.name} misshapen"] = (*before, longer, *after)
    questions = []
    for number, tensors in enumerate(changed.values()):
        path = tmp_path / f"{number}.gguf"
        write_phantom(path, msgspec.structs.replace(layout, tensors=tensors))
        questions.append({"path": str(path)})
    answers = dict(zip(changed, ask_engine(questions), strict=True))
    assert answers["as shipped"].get("n_params") == layout.elements
    loaded = {what for what, answer in answers.items() if "error" not in answer} - {"as shipped"}
    # The lookup table may be longer than its heads need.
    may = ("output.weight", *optional)
    rows = {"per_layer_token_embd.weight misshapen"}
    assert all(what.removesuffix(" missing").endswith(may) for what in loaded - rows), loaded
    assert all(answers[what]["n_params"] != layout.elements for what in loaded)


def test_the_engine_loads_every_slice_that_would_be_timed(tmp_path, ask_engine):
    """Periods, odd layers at both ends and the block that predicts further tokens: each slice is a model."""
    layouts = {}
    for name in _SLICES:
        whole = part(name, tuple(range(len(_BASE.layout(_BASE.model(name)).layers))))
        plan = plan_slices(whole, cache_bytes=0, budget_bytes=weights_bytes(whole), once_bytes=0)
        assert plan is not None, name
        for number, each in enumerate(plan.slices):
            layouts[f"{name} {number}"] = part(name, each.layers)
    paths = [write_phantom(tmp_path / f"{name}.gguf", layout).path for name, layout in layouts.items()]
    answers = ask_engine([{"path": path} for path in paths])
    assert {name: answer.get("n_params") for name, answer in zip(layouts, answers, strict=True)} == {
        name: layout.elements for name, layout in layouts.items()
    }


@pytest.mark.parametrize(
    "model", ["qwen3.5-4b", "qwen3.6-27b", "qwen3.6-35b-a3b", "qwen3-next-80b-a3b", "deepseek-v3.2"]
)
def test_a_file_with_the_block_that_predicts_further_tokens_is_larger_by_just_that(model, tmp_path, ask_engine):
    """``mtp_blocks = 1`` describes the other published files (27.32 B instead of 26.90 B); parameters stay."""
    plain = _BASE.model(model)
    other = msgspec.structs.replace(plain, shape={**plain.shape, "mtp_blocks": 1})
    layout = _BASE.layout(other)
    path = write_phantom(tmp_path / "mtp.gguf", layout).path
    assert ask_engine([{"path": path}])[0]["n_params"] == layout.elements == plain.parameters + plain.mtp_parameters
    assert _BASE.parameters(other) == (plain.parameters, plain.parameters_active)


@pytest.fixture(scope="module")
def child():
    """One engine for all questions of this file."""
    pytest.importorskip("llama_cpp", reason="needs the engine")
    with EngineChild() as running:
        yield running


@pytest.mark.parametrize(("model", "settings", "sizes", "source"), _CACHES)
def test_caches_and_states_are_those_of_load_logs(child, tmp_path, model, settings, sizes, source):
    """To the last printed digit: keys and values, compressed keys, indexers, windows, recurrent states."""
    path = write_phantom(tmp_path / "model.gguf", _BASE.layout(_BASE.model(model))).path
    wanted = msgspec.to_builtins(Settings(**settings))
    answer = child.ask("buffers", {"path": path, "settings": [wanted]})["answers"][0]
    printed = [float(found[1]) for line in answer["log"] if (found := _SIZE.search(line))]
    assert not Counter(sizes) - Counter(printed), (printed, source)


_TINY = {
    "n_embd": 256, "n_ff": 256, "n_head": 4, "n_head_kv": 2, "n_vocab": 512, "n_expert": 16, "n_expert_used": 2,
    "n_ff_exp": 256, "n_ff_shexp": 256, "linear_value_heads": 32, "hc_low_rank": 32, "o_lora_rank": 64, "o_groups": 4,
    "q_lora_rank": 64, "n_expert_latent": 256, "ple_heads_per_ngram": 4,
}  # fmt: skip


def tiny(name: str) -> Model:
    """A model of the same layers in miniature: every width is small, every kind of layer is there."""
    model = _BASE.model(name)
    shape = {key: _TINY.get(key, value) for key, value in model.shape.items()}
    if model.architecture == "qwen4exp":
        shape["ple_heads_per_ngram"] = _TINY["ple_heads_per_ngram"]
    return msgspec.structs.replace(model, shape=shape)


@pytest.mark.parametrize("name", _SLICES)
def test_a_miniature_of_each_hybrid_runs(name, tmp_path):
    """The engine computes a prompt and tokens with random weights: no key is missing that only the graph needs."""
    pytest.importorskip("llama_cpp", reason="needs the engine")
    layout = _BASE.layout(tiny(name), _SLICES[name][0])
    settings = Settings(context_tokens=1024, threads=1, threads_batch=1, ubatch=64, batch=64)
    with Bench(lambda env: EngineChild(env=env), folder=tmp_path, random_weights=True) as bench:
        bench.open(layout, settings, "tiny", usable_bytes=4 << 30)
        for kind, tokens in (("prompt", 32), ("generate", 2)):
            run = bench.run("tiny", measurement.Test(kind=kind, tokens=tokens), tokens=tokens, deadline_s=60)
            assert run.ns_per_token > 0


def test_every_router_sees_something_that_is_not_zero():
    """The norm in front of the experts is among the tensors that a timed phantom fills; else all tokens go one way."""
    for model in _BASE.models.values():
        names = {tensor.name for tensor in _BASE.layout(model).tensors}
        for block in {name.rsplit(".", 2)[0] for name in names if name.endswith("ffn_gate_inp.weight")}:
            assert any(
                f"{block}.{prefix}" in names for prefix in ("ffn_norm.weight", "post_attention_norm.weight")
            ) or (f"{block}.hc_ffn_norm.weight" in names and "ffn_norm.weight" in RANDOM_FOR_ROUTING)


def test_lists_of_a_slice_follow_its_layers():
    """Per-layer lists and counts are those of the kept layers, wherever these stood in the model."""
    flash = part("deepseek-v4-flash", (0, 2, 3, 4)).metadata
    assert flash["deepseek4.attention.compress_ratios"] == (0, 4, 128, 4)
    assert flash["deepseek4.hash_layer_count"] == 2
    # The list of GLM-5.2 leaves the block that predicts further tokens (78) out, as the engine wants it.
    glm = part("glm-5.2", (1, 6, 7, 78)).metadata
    assert glm["glm-dsa.attention.indexer.types"] == (True, True, False)
    assert (glm["glm-dsa.block_count"], glm["glm-dsa.nextn_predict_layers"]) == (4, 1)
    assert part("kimi-k3", (0, 3, 91, 92)).metadata["kimi-k3.attention.head_count_kv"] == (0, 1, 1, 1)
    assert part("qwen3.5-27b", (2, 3)).metadata["qwen35.attention.recurrent_layers"] == (True, False)


def test_a_lookup_table_goes_with_its_layer_and_is_short_in_a_slice():
    """51 billion numbers for a slice of two layers would fill a disk to no purpose."""
    without, short = part("qwen3.8-flash-next", (0, 2)), part("qwen3.8-flash-next", (0, 1))
    assert not any("ple" in key or "per_layer" in key for key in without.metadata)
    assert all(tensor.name != "per_layer_token_embd.weight" for tensor in without.tensors)
    table = next(tensor for tensor in short.tensors if tensor.name == "per_layer_token_embd.weight")
    assert table.dims == (160, 65536)
    whole = _BASE.layout(_BASE.model("qwen3.8-flash-next"))
    table = next(tensor for tensor in whole.tensors if tensor.name == "per_layer_token_embd.weight")
    assert table.dims == (160, 320_001_536)
    assert round(whole.elements / 1e9, 2) == 176.94  # printed for a published file


@pytest.mark.parametrize(
    ("file", "old", "new", "model", "named"),
    [
        ("qwen35.toml", 'attends = "(i + 1)', 'attends = "(j + 1)', "qwen3.5-9b", "layer.attends"),
        (
            "qwen4exp.toml",
            '"count(i == ple_layer) > 0"',
            '"count(i == ple) > 0"',
            "qwen3.8-flash-next",
            "kept.has_table",
        ),
        ("deepseek4.toml", '"at(compress_ratios, i)"', '"at(compress_ratios, i + 9)"', "deepseek-v4-pro", "list of 61"),
        ("kimi-k3.toml", "full_attn_layers)", "attn_layers)", "kimi-k3", "needs the list 'attn_layers'"),
        ("qwen4exp.toml", 'type = "[u64]"', 'type = "[u46]"', "qwen3.8-flash-next", "[u46]"),
        ("qwen35.toml", 'entries = "4"', 'entries = "four"', "qwen3.5-9b", "rope.dimension_sections"),
    ],
)
def test_a_wrong_line_of_a_hybrid_is_named(broken, file, old, new, model, named):
    """Names shared by lines, lists and their types fail as everything else in a profile: with file and key."""
    catalogue = load(broken(f"architectures/{file}", old, new))
    with pytest.raises(BadInputError) as caught:
        catalogue.layout(catalogue.model(model))
    assert file in caught.value.message
    assert named in caught.value.message
