"""The engine's graphs: what they show of real models, remembered, and asked again when damaged."""

import msgspec
import pytest

from planner import catalogue
from planner.engine.child import EngineChild
from planner.engine.graphs import GraphQuestion, Graphs
from planner.engine.oracle import Oracle
from planner.errors import EngineError
from planner.estimate.costs import amounts
from planner.gguf.ggml_types import tensor_bytes
from planner.types.settings import Settings

pytestmark = pytest.mark.engine
SETTINGS = Settings(context_tokens=1024)


@pytest.fixture(scope="module")
def child():
    """One child for the whole module."""
    with EngineChild() as running:
        yield running


@pytest.fixture(scope="module")
def known():
    """The shipped catalogue."""
    return catalogue.load()


@pytest.fixture
def ask(child, known, tmp_path):
    """The amounts of one micro-batch of a model."""
    graphs = Graphs(Oracle(child, folder=tmp_path / "engine"), folder=tmp_path / "graphs")

    def asked(name, quantization="Q8_0", *, tokens=1, outputs=1, filled=0.0, settings=SETTINGS, layers=None, n=1):
        model = known.model(name)
        layout = known.layout(model, layers)
        key = f"{known.shape_key(model)}-{layers}"
        question = GraphQuestion(settings=settings, tokens=tokens, sequences=n, outputs=outputs)
        (graph,) = graphs.ask(key, lambda: layout, known.quantization(quantization), [question])
        return amounts(graph, filled=filled)

    return asked


def weights(found):
    """Bytes of weights that one token is multiplied with."""
    return sum(amount for name, amount in found.items() if name.startswith(("mm/", "id/")))


def test_a_token_is_multiplied_with_every_weight_of_a_dense_model(ask, known):
    """The bytes in the graph are those of the file without tables that are looked up and norms (a tied head counts)."""
    model = known.model("qwen3-0.6b")
    rows = [each for each in known.layout(model).tensors if len(each.dims) > 1]
    expected = sum(tensor_bytes("Q8_0", each.dims) for each in rows)
    assert weights(ask("qwen3-0.6b")) == pytest.approx(expected, rel=1e-9)


def test_work_is_additive_in_layers(ask):
    """Of 2, 4 and 6 layers the second step adds what the first did, kind by kind."""
    two, four, six = (ask("qwen3-0.6b", layers=count) for count in (2, 4, 6))
    first = {name: four[name] - two[name] for name in two}
    assert {name: six[name] - four[name] for name in two} == pytest.approx(first)


def test_a_token_visits_the_experts_that_the_model_uses(ask, known):
    """8 of 128 experts of each layer of Qwen3-30B-A3B, in bytes."""
    model = known.model("qwen3-30b-a3b")
    found = ask("qwen3-30b-a3b", layers=2)
    expert = tensor_bytes("Q8_0", (model.shape["n_embd"], model.shape["n_ff_exp"]))
    read = sum(amount for name, amount in found.items() if name.startswith("id/"))
    assert read == pytest.approx(2 * 3 * 8 * expert)


@pytest.mark.parametrize(
    ("name", "layers", "kind"),
    [
        ("qwen3.5-4b", 4, "state/GATED_DELTA_NET"),
        ("deepseek-v2-lite", 2, "attn/latent/f16"),
        ("kimi-linear-48b-a3b", 4, "state/GATED_DELTA_NET"),
    ],
)
def test_other_architectures_show_what_is_their_own(ask, name, layers, kind):
    """Recurrent states and latent attention are in the graph without a list of ours."""
    assert ask(name, layers=layers, filled=100)[kind] > 0


def test_the_engine_passes_one_token_of_a_prompt_through_the_end_of_the_last_layer(ask):
    """A slice of one layer says nothing about long prompts: the engine itself drops what nobody asked for."""
    one, two = (ask("qwen3-0.6b", tokens=512, layers=count) for count in (1, 2))
    assert two["mm/q8_0/plain@256"] > 3 * one["mm/q8_0/plain@256"]


def test_sequences_that_write_together_share_the_weights(ask):
    """Four sequences read the weights once, in a product of four columns, and each attends to its own cache."""
    settings = msgspec.structs.replace(SETTINGS, context_tokens=4096, parallel=4)
    together = ask("qwen3-0.6b", tokens=4, n=4, outputs=4, filled=99, settings=settings)
    alone = ask("qwen3-0.6b", filled=99)
    assert weights(together) == pytest.approx(weights(alone))
    assert any(name.endswith("@4") for name in together)
    assert together["pos/single"] == 4 * alone["pos/single"]


def test_answers_are_remembered_and_a_damaged_file_is_asked_again(child, known, tmp_path):
    """The second ask needs no layout; after damage the engine answers the same."""
    oracle = Oracle(child, folder=tmp_path / "engine")
    layout, question = known.layout(known.model("qwen3-0.6b")), GraphQuestion(settings=SETTINGS, tokens=1)
    quantization = known.quantization("Q8_0")

    def forbidden():
        raise AssertionError("a remembered answer needs no layout")

    first = Graphs(oracle, folder=tmp_path / "graphs")
    told = first.ask("shape", lambda: layout, quantization, [question])
    first.flush()
    assert Graphs(oracle, folder=tmp_path / "graphs").ask("shape", forbidden, quantization, [question]) == told
    (file,) = (tmp_path / "graphs").rglob("*.json.z")
    file.write_bytes(b"damaged")
    assert Graphs(oracle, folder=tmp_path / "graphs").ask("shape", lambda: layout, quantization, [question]) == told


def test_settings_that_the_engine_refuses_are_an_error_in_its_words(ask):
    """A quantized value cache without flash attention is refused by llama.cpp."""
    settings = msgspec.structs.replace(SETTINGS, cache_type_v="q4_0", flash_attention="off")
    with pytest.raises(EngineError, match="graph"):
        ask("qwen3-0.6b", settings=settings)


def test_a_batch_in_a_context_made_for_another_number_is_refused_and_not_asked(ask):
    """The engine would abort over it; the child answers on."""
    settings = msgspec.structs.replace(SETTINGS, context_tokens=4096, parallel=4)
    with pytest.raises(EngineError, match="2 sequences in a context made for 4"):
        ask("qwen3-0.6b", tokens=2, n=2, outputs=2, settings=settings)
    assert ask("qwen3-0.6b")["call"] == 1
