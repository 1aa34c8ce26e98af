"""What the shipped profiles say, and how the catalogue answers for names that people type."""

import math
from collections import defaultdict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner.catalogue import load
from planner.errors import BadInputError, MissingInputError, UsageError

_CATALOGUE = load()
_MODELS = sorted(_CATALOGUE.models.values(), key=lambda model: model.id)
_each_model = pytest.mark.parametrize("model", _MODELS, ids=[model.id for model in _MODELS])

# What the first step promises; later families come on top.
_PROMISED = [
    "qwen2.5-0.5b",
    "qwen2.5-7b",
    "qwen2.5-72b",
    "qwen2.5-7b-1m",
    "qwen2.5-coder-7b",
    "qwen2.5-coder-32b",
    "qwq-32b",
    "qwen3-0.6b",
    "qwen3-8b",
    "qwen3-32b",
    "qwen3-30b-a3b",
    "qwen3-235b-a22b",
    "qwen3-4b-instruct-2507",
    "qwen3-30b-a3b-thinking-2507",
    "qwen3-coder-30b-a3b",
    "qwen3-coder-480b-a35b",
    "deepseek-r1-distill-qwen-1.5b",
    "deepseek-r1-distill-qwen-7b",
    "deepseek-r1-distill-llama-8b",
    "deepseek-r1-distill-llama-70b",
    "deepseek-r1-0528-qwen3-8b",
    "deepseek-v2-lite",
    "deepseek-v2.5",
    "deepseek-coder-v2-lite",
    "deepseek-v3",
    "deepseek-v3-0324",
    "deepseek-v3.1",
    "deepseek-v3.1-terminus",
    "deepseek-r1",
    "deepseek-r1-0528",
]


def test_the_promised_families_are_there():
    """Every model of the first families has its id."""
    assert set(_PROMISED) <= set(_CATALOGUE.models)


@_each_model
def test_the_parameters_are_those_of_the_layout(model):
    """The profile's exact counts, total and active, are what its shape and layout give."""
    assert _CATALOGUE.parameters(model) == (model.parameters, model.parameters_active)


# Labels that are further off than rounding explains; each profile says so in its notes.
_LOOSE_LABELS = {
    "llama-2-70b",
    "glm-4-32b-0414",
    "glm-z1-32b-0414",
    "kimi-linear-48b-a3b",
    "ernie-4.5-21b-a3b",
    "ernie-4.5-21b-a3b-thinking",
}


def _counted(model):
    """The parameters that a published count covers, from what the profile knows."""
    mtp, vision = model.mtp_parameters or 0, (model.vision.parameters if model.vision else 0) or 0
    shape = model.shape
    return {
        "text": model.parameters,
        "text+mtp": model.parameters + mtp,
        "text+mtp+vision": model.parameters + mtp + vision,
        "text-without-lookup": model.parameters - (model.lookup_parameters or 0),
        "text-without-embeddings": model.parameters - shape["n_vocab"] * shape["n_embd"] * (1 if shape["tied"] else 2),
    }[model.published_counts]


@_each_model
def test_the_parameters_agree_with_the_published_label(model):
    """Within 1 %, or within the rounding of the label (16 B for 15.7 B, 1 T for 1.026 T), or the notes say so."""
    if model.parameters_published is None:
        assert "1.5b" in model.id, "only R1-Distill-Qwen-1.5B has no published count"
        return
    unit = 1e12 if model.parameters_published >= 1e12 else 1e9
    label = f"{model.parameters_published / unit:g}"
    rounding = 0.5 * 10 ** -len(label.partition(".")[2]) * unit
    off = abs(_counted(model) - model.parameters_published)
    if model.id in _LOOSE_LABELS:
        assert 0.01 * model.parameters_published < off < 0.05 * model.parameters_published
        assert model.notes is not None
        return
    assert off <= max(rounding, 0.01 * model.parameters_published)


@_each_model
def test_every_model_names_its_sources_and_what_it_is_for(model):
    """A model without a source, a use or a plausible context is no fact."""
    assert model.sources
    assert model.uses
    assert set(model.uses) <= {"chat", "code", "reasoning", "documents"}
    assert model.context_native >= 4096
    assert "documents" not in model.uses or model.context_native >= 32768
    assert model.context_extended is None or model.context_extended > model.context_native
    assert model.parameters_active <= model.parameters
    assert "reasoning" not in model.uses or model.thinking != "none"


@_each_model
def test_a_model_answers_to_the_names_it_is_published_under(model):
    """The id, the Hugging Face name with and without its organisation, in any case, with GGUF behind it."""
    repo = model.hf_repo
    assert repo is not None
    for name in (model.id, model.id.upper(), model.name, repo, repo.lower(), f"{repo}-GGUF", f" {model.name} "):
        assert _CATALOGUE.model(name) is model


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("qwen3-8b-instruct", "qwen3-8b"),
        ("Qwen2.5-7B-Instruct-1M", "qwen2.5-7b-1m"),
        ("deepseek-v2-lite-chat", "deepseek-v2-lite"),
        ("bartowski/DeepSeek-R1-Distill-Qwen-7B-GGUF", "deepseek-r1-distill-qwen-7b"),
        ("Qwen2.5-Coder-7B", "qwen2.5-coder-7b"),
    ],
)
def test_the_suffix_instruct_does_not_matter(typed, meant):
    """People leave ``-Instruct`` away or add it where there is none."""
    assert _CATALOGUE.model(typed).id == meant


@pytest.mark.parametrize(("typed", "close"), [("qwen3-8", "qwen3-8b"), ("deepseek-r2", "deepseek-r1")])
def test_an_unknown_model_is_refused_with_the_names_that_come_closest(typed, close):
    """The error is a usage error and suggests what may have been meant."""
    with pytest.raises(UsageError) as caught:
        _CATALOGUE.model(typed)
    assert caught.value.code == "unknown-model"
    assert close in caught.value.hint


@given(st.text(max_size=40))
def test_any_name_is_a_model_or_a_usage_error(name):
    """No text can make the look-up fail in another way."""
    try:
        found = _CATALOGUE.model(name).id
    except UsageError:
        return
    assert found in _CATALOGUE.models


def test_quantizations_are_found_in_any_case_and_refused_with_a_suggestion():
    """``q4_k_m`` is Q4_K_M, and Q4_KM suggests it."""
    assert _CATALOGUE.quantization("q4_k_m").name == "Q4_K_M"
    with pytest.raises(UsageError) as caught:
        _CATALOGUE.quantization("Q4_KM")
    assert caught.value.code == "unknown-quantization"
    assert "Q4_K_M" in caught.value.hint


def test_models_share_a_shape_key_exactly_when_their_tensors_are_equal():
    """Revisions and fine-tunes share the engine's answers; different tensors, or layers of other kinds, never do."""
    by_key, by_tensors = defaultdict(set), defaultdict(set)
    for model in _MODELS:
        layout = _CATALOGUE.layout(model)
        by_key[_CATALOGUE.shape_key(model)].add(model.id)
        # GLM-5.2 has the tensors of GLM-5; a list in the metadata says which layers index.
        kinds = tuple((key, value) for key, value in layout.metadata.items() if isinstance(value, tuple))
        by_tensors[(layout.architecture, layout.tensors, kinds)].add(model.id)
    assert sorted(map(sorted, by_key.values())) == sorted(map(sorted, by_tensors.values()))
    assert {"deepseek-r1", "deepseek-v3", "deepseek-v3.1"} <= by_key[
        _CATALOGUE.shape_key(_CATALOGUE.model("deepseek-r1"))
    ]


def test_what_a_shape_key_leaves_out_is_only_what_costs_nothing():
    """Models with one key differ in rope and context metadata alone."""
    seen = {}
    for model in _MODELS:
        metadata = _CATALOGUE.layout(model).metadata
        first = seen.setdefault(_CATALOGUE.shape_key(model), metadata)
        different = {key.split(".", 1)[1] for key in {*first, *metadata} if first.get(key) != metadata.get(key)}
        assert different <= {"context_length", "rope.freq_base", "rope.scaling.factor"}


def test_more_bits_never_lose_more():
    """The published losses fall with the bits among files made the same way, within one family of types."""
    groups = (("Q8_0", "Q6_K", "Q5_K_M", "Q4_K_M", "Q3_K_M", "Q2_K"), ("IQ4_XS", "IQ3_M", "IQ3_XXS", "IQ2_M", "IQ1_M"))
    for names in groups:
        recipes = [_CATALOGUE.quantization(name) for name in names]
        assert [r.kld for r in recipes] == sorted(r.kld for r in recipes)
        assert [r.bits_per_weight for r in recipes] == sorted((r.bits_per_weight for r in recipes), reverse=True)


def test_every_published_loss_names_its_source_and_unknown_is_none():
    """MXFP4 on models that were not trained for it has no published loss."""
    for recipe in _CATALOGUE.quantizations.values():
        assert (recipe.kld is None) == (recipe.kld_source is None)
    assert _CATALOGUE.quantization("MXFP4_MOE").kld is None


@pytest.mark.parametrize(
    ("file", "old", "new", "named"),
    [
        ("models/qwen3.toml", "generation = 3.0", "generation = ", "line"),
        ("models/qwen3.toml", "generation = 3.0", 'generation = "new"', "models.qwen3-0.6b"),
        ("models/qwen3.toml", "parameters = 596_049_920", "parameter = 596_049_920", "models.qwen3-0.6b"),
        ("models/qwen3.toml", "parameters = 596_049_920", "", "parameters"),
        ("models/qwen3.toml", '[models."qwen3-0.6b"]', '[models."Qwen3-0.6B"]', "lower-case"),
        ("models/qwen3.toml", '[models."qwen3-0.6b"]', "[models.deepseek-r1]", "taken"),
        ("models/qwen3.toml", "[defaults]", "[defaults]\nvendor2 = 1", "vendor2"),
        ("quantizations.toml", "ftype = 15", 'ftype = "x"', "quantizations.Q4_K_M"),
        ("quantizations.toml", "ftype = 15", "f_type = 15", "quantizations.Q4_K_M"),
    ],
)
def test_a_wrong_profile_names_its_file_and_place(broken, file, old, new, named):
    """A typing slip ends in one line that says where it is, never in a traceback or in silence."""
    with pytest.raises(BadInputError) as caught:
        load(broken(file, old, new))
    assert file in caught.value.message
    assert named in caught.value.message


@pytest.mark.parametrize(
    ("file", "old", "new", "named"),
    [
        ("architectures/qwen3.toml", '"n_head * head_dim"', '"n_head * head_dims"', "blk.{i}.attn_q.weight.dims"),
        ("architectures/qwen3.toml", '"n_head * head_dim"', '"n_head ** 2"', "blk.{i}.attn_q.weight.dims"),
        ("architectures/qwen3.toml", '"n_head * head_dim"', '"n_head - 99"', "blk.{i}.attn_q.weight.dims"),
        ("architectures/qwen3.toml", '"n_head * head_dim"', '"n_head / 3"', "blk.{i}.attn_q.weight.dims"),
        ("architectures/qwen3.toml", 'when = "not tied"', 'when = "not tide"', "output.weight.when"),
        ("architectures/qwen3.toml", 'block_count = "layers"', 'block_count = "layer"', "metadata.block_count"),
        ("architectures/qwen3.toml", "norm_eps = 1e-6", 'norm_eps = "eps"', "defaults.norm_eps"),
        ("architectures/qwen3.toml", "[metadata]", "[metadatas]", "metadata"),
        ("models/qwen3.toml", "n_embd = 4096, ", "", "n_embd"),
        ("models/qwen3.toml", "n_embd = 4096, ", "n_embd = 4096, n_embed = 4096, ", "n_embed"),
    ],
)
def test_a_wrong_layout_names_its_file_and_key(broken, file, old, new, named):
    """An unknown name, a forbidden operator, a dimension that is none: the key that is wrong is named."""
    catalogue = load(broken(file, old, new))
    with pytest.raises(BadInputError) as caught:
        catalogue.layout(catalogue.model("qwen3-8b"))
    assert "qwen3.toml" in caught.value.message
    assert named in caught.value.message


def test_missing_profiles_are_told_from_wrong_ones(tmp_path):
    """An empty folder is missing input, and so is an architecture that nobody described."""
    with pytest.raises(MissingInputError):
        load(tmp_path)


def test_an_architecture_without_a_file_is_missing_input(broken):
    """A model may name an architecture whose layout is not written yet; asking for it says so."""
    catalogue = load(broken("models/qwen3.toml", 'architecture = "qwen3"', 'architecture = "qwen9"'))
    with pytest.raises(MissingInputError, match="qwen9"):
        catalogue.layout(catalogue.model("qwen3-8b"))


@pytest.mark.parametrize(
    "model", ["qwen2.5-7b", "qwen3-8b", "qwen3-30b-a3b", "deepseek-r1", "deepseek-r1-distill-llama-8b"]
)
@given(data=st.data())
def test_a_slice_is_the_head_and_the_sum_of_its_layers(model, data):
    """Parameters are linear in layers: what a slice predicts for a whole model can be added up."""
    shape = _CATALOGUE.model(model)
    total = int(shape.shape["n_layer"])
    layers = sorted(data.draw(st.lists(st.integers(0, total - 1), min_size=1, max_size=6)))

    def elements(*kept):
        return _CATALOGUE.layout(shape, kept).elements

    head = 2 * elements(0) - elements(0, 0)
    assert elements(*layers) == head + sum(elements(layer) - head for layer in layers)


@pytest.mark.parametrize("model", ["qwen2.5-7b", "qwen3-30b-a3b", "deepseek-r1", "deepseek-r1-distill-llama-70b"])
def test_all_layers_are_the_whole_model(model):
    """``None``, the number of layers and the list of all layers say the same."""
    found = _CATALOGUE.model(model)
    total = int(found.shape["n_layer"])
    whole = _CATALOGUE.layout(found)
    assert whole == _CATALOGUE.layout(found, total) == _CATALOGUE.layout(found, range(total))
    constants = sum(math.prod(t.dims) for t in whole.tensors if t.name == "rope_freqs.weight")
    assert whole.elements == found.parameters + constants


def test_a_slice_knows_where_its_layers_came_from():
    """Blocks are numbered anew; their origin, their kind and the count of leading dense layers stay right."""
    layout = _CATALOGUE.layout(_CATALOGUE.model("deepseek-r1"), (0, 40, 41))
    names = {tensor.name for tensor in layout.tensors}
    assert layout.metadata["deepseek2.block_count"] == 3
    assert layout.metadata["deepseek2.leading_dense_block_count"] == 1
    assert "blk.0.ffn_up.weight" in names
    assert "blk.1.ffn_up_exps.weight" in names
    assert layout.origin_of("blk.1.ffn_up_exps.weight") == "blk.40.ffn_up_exps.weight"
    assert layout.origin_of("output.weight") == "output.weight"


def test_a_block_that_predicts_further_tokens_is_in_the_file_and_no_parameter(broken):
    """What ``mtp`` names is laid out like any layer, and counted in neither number of parameters."""
    profiles = broken(
        "architectures/qwen3.toml", "neutral =", 'layers = "n_layer + 1"\nmtp = "i >= n_layer"\nneutral ='
    )
    changed, model = load(profiles), _CATALOGUE.model("qwen3-8b")
    layout, before = changed.layout(model), _CATALOGUE.layout(model)
    assert changed.parameters(model) == _CATALOGUE.parameters(model)
    assert layout.layers == tuple(range(37))
    assert layout.elements - before.elements == before.elements - _CATALOGUE.layout(model, 35).elements


def test_a_second_copy_of_a_shared_matrix_is_in_the_file_and_no_parameter(broken):
    """What is no ``parameter`` takes memory and counts for nothing."""
    profiles = broken("architectures/qwen3.toml", 'when = "not tied"', 'when = "1", parameter = "not tied"')
    changed, model = load(profiles), _CATALOGUE.model("qwen3-0.6b")
    assert changed.parameters(model) == _CATALOGUE.parameters(model)
    head = model.shape["n_embd"] * model.shape["n_vocab"]
    assert changed.layout(model).elements == _CATALOGUE.layout(model).elements + head


@pytest.mark.parametrize("layers", [(), (-1,), (3, 2), (61,), (0, 99)])
def test_layers_that_do_not_exist_are_refused(layers):
    """A slice of nothing, out of order or out of range is a mistake of the caller."""
    with pytest.raises(ValueError, match="layers"):
        _CATALOGUE.layout(_CATALOGUE.model("deepseek-r1"), layers)
