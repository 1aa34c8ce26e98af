"""llama.cpp is the judge: it loads every phantom, counts the same parameters, and quantizes to the published sizes."""

from pathlib import Path

import msgspec
import pytest

from planner.catalogue import load
from planner.engine.child import EngineChild
from planner.engine.oracle import Oracle
from planner.engine.phantom import write_phantom
from planner.types.model import TensorSpec
from planner.types.settings import Settings

pytestmark = pytest.mark.engine

# One model per way that an architecture's layout can branch, with a slice that shows every kind of layer.
_SLICES = {
    "qwen2.5-0.5b": (0, 23),
    "qwen2.5-7b": (1, 2, 3),
    "qwen3-0.6b": (5,),
    "qwen3-8b": (0, 35),
    "qwen3-30b-a3b": (0, 1),
    "deepseek-r1-distill-llama-8b": (0, 31),
    "deepseek-v2-lite": (0, 1),
    "deepseek-v2": (0, 59),
    "deepseek-r1": (0, 40, 41),
    "qwen1.5-0.5b": (0, 23),
    "qwen1.5-moe-a2.7b": (0, 23),
    "qwen3-vl-2b": (0, 1, 27),
    "qwen3-vl-30b-a3b": (0, 47),
    "mistral-small-24b-2501": (0,),
    "baichuan2-13b": (0, 39),
    "glm-4-9b": (0, 39),
    "glm-4-9b-0414": (0,),
    "glm-4-32b-0414": (0, 60),
    "glm-4.5-air": (0, 1, 46),
    "glm-4.6": (2, 3, 92),
    "deepseekmoe-16b": (0, 1),
    "hunyuan-0.5b": (0, 23),
    "hunyuan-a13b": (0, 31),
    "hy3": (0, 1, 80),
    "ernie-4.5-0.3b": (0, 17),
    "ernie-4.5-21b-a3b": (0, 1),
    "ernie-4.5-300b-a47b": (2, 3),
    "openpangu-embedded-7b": (0, 33),
}

# (model, quantization, GiB, source). "file size" in llama.cpp's load log and llama-bench's size column count the
# tensors alone, as the dry run does. Mixed recipes of single publishers (UD-…, "XL", files that keep an extra output
# matrix, and rows whose label and size contradict other rows of the same model) are no evidence about llama.cpp.
_LOG = "print_info in a published load log"
_BENCH = "llama-bench table"
_README = "llama.cpp tools/quantize/README.md, Llama-3.1-8B"
_PERPLEXITY = "llama.cpp tools/perplexity/README.md, Llama-3-8B"
_LLAMA = "deepseek-r1-distill-llama-8b"
_PUBLISHED = [
    ("qwen3-0.6b", "Q8_0", 0.59, _LOG),
    ("qwen2.5-3b", "Q4_K_M", 1.79, _LOG),
    ("qwen2.5-3b", "IQ3_M", 1.38, _BENCH),
    ("qwen2.5-3b", "IQ4_XS", 1.61, _BENCH),
    ("qwen2.5-3b", "Q3_K_L", 1.58, _BENCH),
    ("qwen2.5-3b", "Q4_0", 1.70, _BENCH),
    ("qwen2.5-3b", "Q6_K", 2.36, _BENCH),
    ("qwen2.5-3b", "Q8_0", 3.05, _BENCH),
    ("qwen2.5-14b", "Q4_K_M", 8.37, _BENCH),
    ("qwen3-8b", "Q4_K_M", 4795 / 1024, "published file with its tokenizer"),
    ("qwen3-8b", "Q4_K_M", 4.68, _BENCH),
    ("qwen3-14b", "Q4_K_M", 8.38, _BENCH),
    ("qwen3-32b", "Q4_K_M", 18.40, _BENCH),
    ("qwen3-32b", "Q8_0", 32.421, _BENCH),
    ("qwen3-30b-a3b", "Q4_K_M", 17.28, _LOG),
    ("qwen3-30b-a3b", "Q2_K", 10.48, _BENCH),
    ("qwen3-235b-a22b", "Q4_K_M", 132.386, _LOG),
    ("qwen3-235b-a22b", "Q6_K", 179.75, _LOG),
    ("qwen3-235b-a22b", "Q8_0", 232.769, _LOG),
    ("deepseek-r1", "Q4_K_M", 404e9 / 2**30, "published file, 404 GB"),
    ("deepseek-r1", "Q4_K_M", 376.65, _LOG),
    ("deepseek-r1", "Q4_K_S", 353.9, _BENCH),
    ("deepseek-r1", "Q5_K_M", 442.74, _BENCH),
    ("deepseek-r1", "Q8_0", 664.295, _LOG),
    ("deepseek-v2-lite", "Q4_0", 8.29, _LOG),
    ("deepseek-v2-lite", "Q4_K_M", 9.65, _BENCH),
    ("deepseek-r1-distill-llama-70b", "Q4_K_M", 39.59, _BENCH),
    ("deepseek-r1-distill-llama-70b", "F16", 131.42, _BENCH),
    ("llama-3.2-3b", "Q4_K_M", 1.87, _BENCH),
    ("qwen1.5-moe-a2.7b", "Q4_K_M", 9.5e9 / 2**30, "published file with its tokenizer"),
    ("glm-4-32b-0414", "Q4_K_M", 18.32, _BENCH),
    ("glm-4.5-air", "Q4_K_M", 67.96, _BENCH),
    ("ernie-4.5-21b-a3b", "Q4_0", 11.64, _BENCH),
    ("ernie-4.5-21b-a3b", "Q4_K_M", 13.3e9 / 2**30, "published file with its tokenizer"),
    (_LLAMA, "Q4_0", 4.34, _PERPLEXITY),
    (_LLAMA, "Q4_1", 4.78, _PERPLEXITY),
    (_LLAMA, "Q5_0", 5.21, _PERPLEXITY),
    (_LLAMA, "Q5_1", 5.65, _PERPLEXITY),
    *(
        (_LLAMA, name, size, _README)
        for name, size in {
            "IQ1_S": 1.87, "IQ1_M": 2.01, "IQ2_XXS": 2.23, "IQ2_XS": 2.42, "IQ2_S": 2.56, "IQ2_M": 2.74,
            "IQ3_XXS": 3.04, "IQ3_XS": 3.27, "IQ3_S": 3.42, "IQ3_M": 3.52, "IQ4_XS": 4.17, "IQ4_NL": 4.38,
            "Q2_K_S": 2.78, "Q2_K": 2.95, "Q3_K_S": 3.41, "Q3_K_M": 3.74, "Q3_K_L": 4.02, "Q4_K_S": 4.36,
            "Q4_K_M": 4.58, "Q5_K_S": 5.21, "Q5_K_M": 5.33, "Q6_K": 6.14, "Q8_0": 7.95, "F16": 14.96,
        }.items()
    ),
]  # fmt: skip

# How many tensors of each type a published file holds (load logs): a size can be right by chance, this cannot.
_COUNTS = [
    ("qwen3-0.6b", "Q8_0", {"f32": 113, "q8_0": 197}),
    ("qwen2.5-3b", "Q4_K_M", {"f32": 181, "q4_k": 216, "q6_k": 37}),
    ("qwen3-30b-a3b", "Q4_K_M", {"f32": 241, "q4_k": 289, "q6_k": 49}),
    ("qwen3-235b-a22b", "Q4_K_M", {"f32": 471, "q4_k": 567, "q6_k": 93}),
    ("qwen3-235b-a22b", "Q6_K", {"f32": 471, "q6_k": 660}),
    ("qwen3-235b-a22b", "Q8_0", {"f32": 471, "q8_0": 660}),
]


# Tensors of published files, and those of them that stay F32 (load logs and header dumps; codegeex4 has GLM-4-9B's
# shape, GLM-Z1-Rumination-32B that of GLM-4-32B but for its key-value heads).
_TENSORS = [
    ("glm-4-9b", 283, 121),
    ("glm-4-32b-0414", 613, 245),
    ("glm-4.5", 1761, 835),
    ("hy3", 1298, 488),
]


@pytest.fixture(scope="module")
def phantoms(tmp_path_factory, catalogue):
    """A phantom of every model, in sparse files: terabytes that take less than ten megabytes."""
    folder = tmp_path_factory.mktemp("phantoms")
    files = {
        model.id: write_phantom(folder / f"{model.id}.gguf", catalogue.layout(model))
        for model in catalogue.models.values()
    }
    assert sum(file.size_bytes for file in files.values()) > 10**12
    assert sum(file.disk_bytes for file in files.values()) < 10**7
    return {name: file.path for name, file in files.items()}


def test_the_engine_loads_every_model_and_counts_the_same_parameters(catalogue, phantoms, ask_engine):
    """Every layout is complete and right to the last number: the engine reads the whole file and counts its own way."""
    models = list(catalogue.models.values())
    answers = ask_engine([{"path": phantoms[model.id]} for model in models])
    wrong = {m.id: a for m, a in zip(models, answers, strict=True) if a.get("n_params") != catalogue.layout(m).elements}
    assert not wrong


@pytest.mark.parametrize(("model", "tensors", "f32"), _TENSORS)
def test_a_layout_has_as_many_tensors_as_the_published_file(catalogue, model, tensors, f32):
    """Multi-token-prediction blocks and their copies included, exactly as converters write them."""
    types = [tensor.type for tensor in catalogue.layout(catalogue.model(model)).tensors]
    assert (len(types), types.count("F32")) == (tensors, f32)


@pytest.fixture(scope="module")
def quantized(catalogue, phantoms, ask_engine):
    """The engine's dry run of every published quantization, by (model, quantization)."""
    pairs = sorted({(model, name) for model, name, *_ in (*_PUBLISHED, *_COUNTS)})
    questions = [
        {"path": phantoms[model], "ftype": catalogue.quantization(name).ftype, "imatrix": True} for model, name in pairs
    ]
    return dict(zip(pairs, ask_engine(questions), strict=True))


@pytest.mark.parametrize(("model", "quantization", "gib", "source"), _PUBLISHED)
def test_a_dry_run_gives_the_published_file_size(quantized, model, quantization, gib, source):
    """Within 1 % of what people report for real files."""
    answer = quantized[model, quantization]
    assert answer["mib"] / 1024 == pytest.approx(gib, rel=0.01), source


@pytest.mark.parametrize(("model", "quantization", "counts"), _COUNTS)
def test_a_dry_run_gives_each_tensor_its_published_type(quantized, model, quantization, counts):
    """The tensors per type are those of the published file, exactly."""
    assert quantized[model, quantization]["counts"] == counts


def test_the_engine_offers_every_quantization_and_says_which_need_an_importance_matrix(catalogue, phantoms, ask_engine):
    """``needs_imatrix`` is what the engine itself says about the model that the losses were measured on."""
    recipes = list(catalogue.quantizations.values())
    answers = ask_engine([{"path": phantoms[_LLAMA], "ftype": recipe.ftype, "imatrix": False} for recipe in recipes])
    said = {recipe.name: answer.get("needs_imatrix") for recipe, answer in zip(recipes, answers, strict=True)}
    assert said == {recipe.name: recipe.needs_imatrix for recipe in recipes}


def test_the_engine_calls_each_quantization_by_the_same_number(catalogue):
    """The ftype numbers are those of the binding's own enumeration."""
    api = pytest.importorskip("llama_cpp.llama_cpp")
    for recipe in catalogue.quantizations.values():
        known = getattr(api, f"LLAMA_FTYPE_MOSTLY_{recipe.name}", None)
        assert known is None or known == recipe.ftype
    assert catalogue.quantization("Q4_K_M").ftype == api.LLAMA_FTYPE_MOSTLY_Q4_K_M


def test_the_engine_loads_slices(catalogue, tmp_path, ask_engine):
    """A few layers of a model are a model: leading dense layers, experts and heads stay right."""
    layouts = {name: catalogue.layout(catalogue.model(name), layers) for name, layers in _SLICES.items()}
    layouts["dense only"] = catalogue.layout(catalogue.model("deepseek-r1"), (0, 1))
    layouts["experts only"] = catalogue.layout(catalogue.model("deepseek-r1"), (7, 7, 7))
    layouts["the first layers"] = catalogue.layout(catalogue.model("deepseek-v3"), 4)
    paths = [write_phantom(tmp_path / f"{name}.gguf", layout).path for name, layout in layouts.items()]
    answers = ask_engine([{"path": path} for path in paths])
    assert {name: a.get("n_params") for name, a in zip(layouts, answers, strict=True)} == {
        name: layout.elements for name, layout in layouts.items()
    }


def test_the_engine_makes_a_context_for_slices(catalogue, tmp_path):
    """What loads must also run: a graph is built for each slice, down to a single layer."""
    pytest.importorskip("llama_cpp", reason="needs the engine")
    recipe, settings = catalogue.quantization("Q4_K_M"), [Settings(context_tokens=256)]
    with EngineChild() as child:
        oracle = Oracle(child, folder=tmp_path)
        for name, layers in _SLICES.items():
            for kept in (layers, layers[:1]):
                layout = catalogue.layout(catalogue.model(name), kept)
                (answer,) = oracle.buffers(f"{name} {kept}", lambda layout=layout: layout, settings, recipe)
                assert answer.refused is None, (name, kept)
                assert answer.buffers


_BASE = load()

# What the engine loads a file without. A file with a multi-token-prediction block and without the first layer's norm is
# taken for that block alone, and the block itself may be absent; hy_v3 calls every feed-forward tensor optional. The
# tensors of such models are counted against published files instead.
_OPTIONAL = ("output.weight", "rope_freqs.weight", "exp_probs_b.bias", "attn_q.bias", "attn_k.bias", "attn_v.bias")
_MTP = (
    "blk.0.attn_norm.weight",
    "blk.2.attn_q.weight",
    "blk.2.attn_k.weight",
    "blk.2.attn_v.weight",
    "nextn.eh_proj.weight",
    "nextn.shared_head_norm.weight",
)
_OPTIONAL_OF = {
    "glm-4-9b": ("attn_qkv.bias",),
    "glm-4.5-air": (*_MTP, "nextn.embed_tokens.weight", "nextn.shared_head_head.weight"),
    "glm-4.6": (*_MTP, "attn_q_norm.weight", "attn_k_norm.weight"),
    "hy3": (
        *_MTP,
        *(f"ffn_{part}{kind}.weight" for part in ("gate", "up", "down") for kind in ("", "_exps", "_shexp")),
        "ffn_gate_inp.weight",
        "exp_probs_b",
    ),
    "ernie-4.5-21b-a3b": ("ffn_gate_exps.weight",),
    "ernie-4.5-300b-a47b": ("ffn_gate_exps.weight",),
}


@pytest.mark.parametrize(
    "model", [name for name in _SLICES if name not in ("qwen2.5-0.5b", "qwen3-0.6b", "deepseek-v2")]
)
def test_a_missing_a_misshapen_and_a_stray_tensor_are_all_noticed(model, tmp_path, ask_engine):
    """The engine's verdict on our layouts can fail: it refuses, or counts fewer where a tensor is optional."""
    layout = _BASE.layout(_BASE.model(model), _SLICES[model])
    changed = {"a stray tensor": (*layout.tensors, TensorSpec(name="blk.0.stray.weight", dims=(32,), type="F32"))}
    for index, tensor in enumerate(layout.tensors):
        before, after = layout.tensors[:index], layout.tensors[index + 1 :]
        changed[f"{tensor.name} missing"] = (*before, *after)
        wider = TensorSpec(name=tensor.name, dims=(tensor.dims[0] + 32, *tensor.dims[1:]), type=tensor.type)
        changed[f"{tensor.name} misshapen"] = (*before, wider, *after)
    questions = []
    for number, tensors in enumerate(changed.values()):
        path = tmp_path / f"{number}.gguf"
        write_phantom(path, msgspec.structs.replace(layout, tensors=tensors))
        questions.append({"path": str(path)})
    answers = dict(zip(changed, ask_engine(questions), strict=True))
    unnoticed = {what for what, answer in answers.items() if answer.get("n_params") == layout.elements}
    assert not unnoticed
    # Only what the engine itself calls optional may be missing without a refusal.
    loaded = {what.removesuffix(" missing") for what, answer in answers.items() if "error" not in answer}
    optional = (*_OPTIONAL, *_OPTIONAL_OF.get(model, ()))
    assert not {name for name in loaded if not name.endswith(optional)}
    assert all(Path(question["path"]).exists() for question in questions)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("qwen2.5-7b", "qwen2.5-7b-1m"),
        ("qwen3-4b", "qwen3-4b-thinking-2507"),
        ("qwen3-30b-a3b", "qwen3-coder-30b-a3b"),
        ("glm-4.5", "glm-4.7"),
    ],
)
def test_models_with_one_shape_key_get_one_answer_from_the_engine(catalogue, tmp_path, one, other):
    """What the key leaves out (rope base, trained context) changes no buffer, also far beyond the trained context."""
    pytest.importorskip("llama_cpp", reason="needs the engine")
    models = [catalogue.model(name) for name in (one, other)]
    assert catalogue.shape_key(models[0]) == catalogue.shape_key(models[1])
    assert catalogue.layout(models[0]).metadata != catalogue.layout(models[1]).metadata
    settings = [Settings(context_tokens=tokens) for tokens in (4096, 65536)]
    recipe = catalogue.quantization("Q4_K_M")
    with EngineChild() as child:
        # Each model under a key of its own, so that the second answer is the engine's and not the store's.
        answers = [
            Oracle(child, folder=tmp_path).buffers(
                model.id, lambda model=model: catalogue.layout(model), settings, recipe
            )
            for model in models
        ]
    assert answers[0] == answers[1]
