"""Every loser that a user can name gets exactly one reason, and the right one."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from planner.choose.evaluate import evaluate
from planner.choose.why_not import why_not
from planner.types.plan import Goal


@pytest.fixture(scope="module")
def desktop(models, quantizations, make_machine, physics):
    """A finished search on a desktop with a 24 GiB card."""
    machine = make_machine(64, gpu_gib=(24.0,), gpu_bandwidth=1000e9)
    return evaluate(Goal(), machine, models, quantizations, physics(machine))


@settings(max_examples=25, deadline=None)
@given(
    use=st.sampled_from(["chat", "code", "reasoning", "documents"]),
    ram_gib=st.floats(2, 100),
    gpu_gib=st.lists(st.floats(4, 48), max_size=1).map(tuple),
    commercial=st.booleans(),
    fixed=st.sampled_from([None, "Q4_K_M", "BF16"]),
    floor=st.sampled_from([1.0, 8.0, 200.0]),
)
def test_every_combination_has_one_reason_and_only_the_winner_is_best(
    use, ram_gib, gpu_gib, commercial, fixed, floor, models, quantizations, make_machine, physics
):
    """All models, alone and with each quantization: a reason with words; ``best`` for the chosen one and no other."""
    machine = make_machine(ram_gib, gpu_gib=gpu_gib)
    goal = Goal(use=use, commercial_license=commercial, quantization=fixed, min_tokens_per_s=floor)
    evaluation = evaluate(goal, machine, models, quantizations, physics(machine))
    chosen = evaluation.chosen
    for model in models:
        answers = [why_not(evaluation, model), *(why_not(evaluation, model, q) for q in quantizations)]
        for answer in answers:
            assert answer.model == model.id
            assert answer.reason.text
            assert answer.reason.code not in {"fits", "meets-speed", "trade-off"}
        best = [answer for answer in answers if answer.reason.code == "best"]
        if chosen is not None and chosen.model == model.id:
            assert [answer.quantization for answer in best] == [None, chosen.quantization]
        else:
            assert best == []


def test_what_is_said_to_be_too_big_is_too_big(desktop, models, quantizations, make_machine, physics):
    """Asked for alone, everything that lost as too big, too slow or refused still finds no plan."""
    machine = make_machine(64, gpu_gib=(24.0,), gpu_bandwidth=1000e9)
    for model in models[::5]:
        for quantization in quantizations[::4]:
            answer = why_not(desktop, model, quantization)
            if answer.reason.code in {"too-big", "too-slow"}:
                goal = Goal(model=model.id, quantization=quantization.name)
                alone = evaluate(goal, machine, models, quantizations, physics(machine))
                assert alone.chosen is None, (model.id, quantization.name, answer)


def test_too_big_names_the_bytes(desktop, catalogue):
    """DeepSeek-R1 on a desktop: what it needs at least and what there is."""
    answer = why_not(desktop, catalogue.models["deepseek-r1"])
    assert answer.reason.code == "too-big"
    assert answer.needed_bytes > 100 << 30
    assert "GiB" in answer.reason.text


def test_too_slow_names_both_speeds(desktop, catalogue):
    """A dense 72B that does not fit the card is slow: its predicted speed and the floor are both told."""
    answer = why_not(desktop, catalogue.models["qwen2.5-72b"], catalogue.quantizations["Q4_K_M"])
    assert answer.reason.code == "too-slow"
    assert answer.tokens_per_s < 8
    assert "8.00 asked for" in answer.reason.text


def test_an_older_generation_is_told_so(desktop, catalogue):
    """Qwen2.5-32B loses to Qwen3-32B by its generation, in words."""
    answer = why_not(desktop, catalogue.models["qwen2.5-32b"])
    assert desktop.chosen.model == "qwen3-32b"
    assert answer.reason.code == "lower-rank"
    assert "newer generation" in answer.reason.text


def test_a_lighter_quantization_that_was_worked_out_is_compared_with_the_winner(desktop):
    """What fits and lost, of the winner's own model, is told by how much and why."""
    own = [option for option in desktop.trade_offs if option.quantization != desktop.chosen.quantization]
    assert own
    for option in own:
        assert option.reasons[0].code == "trade-off"


def test_a_smaller_model_is_told_so(desktop, catalogue):
    """Qwen3-14B loses by its size."""
    assert "is larger" in why_not(desktop, catalogue.models["qwen3-14b"]).reason.text


def test_another_quantization_of_the_winner_is_told_what_it_keeps(desktop, catalogue):
    """Two bits of the winner: the better quantization and both shares of quality."""
    answer = why_not(desktop, catalogue.models[desktop.chosen.model], catalogue.quantizations["IQ2_M"])
    assert answer.reason.code == "same-model-better-quantization"
    assert desktop.chosen.quantization in answer.reason.text


def test_a_pointless_quantization_names_the_better_one(desktop, catalogue):
    """F16 of a model that fits at Q8_0 is beaten by Q8_0 itself."""
    answer = why_not(desktop, catalogue.models["qwen3-8b"], catalogue.quantizations["F16"])
    assert answer.reason.code == "same-model-better-quantization"
    assert "Q8_0" in answer.reason.text


def test_a_recipe_for_mixtures_does_not_suit_a_dense_model(desktop, catalogue):
    """MXFP4_MOE of a dense model is told so."""
    answer = why_not(desktop, catalogue.models["qwen3-8b"], catalogue.quantizations["MXFP4_MOE"])
    assert answer.reason.code == "engine-refused"


@pytest.mark.parametrize(
    ("goal", "model", "code"),
    [
        (Goal(families=("qwen",)), "deepseek-r1", "family"),
        (Goal(commercial_license=True), "qwen2.5-3b", "licence"),
        (Goal(context_tokens=1_000_000), "qwen3-8b", "context-too-long"),
        (Goal(model="qwen3-4b"), "qwen3-8b", "not-for-this-use"),
    ],
)
def test_what_the_goal_excludes_is_told_before_anything_else(
    goal, model, code, catalogue, models, quantizations, make_machine, physics
):
    """Family, licence, context and a fixed model come first, with or without a quantization."""
    machine = make_machine(32)
    evaluation = evaluate(goal, machine, models, quantizations, physics(machine))
    for quantization in (None, catalogue.quantizations["Q4_K_M"]):
        assert why_not(evaluation, catalogue.models[model], quantization).reason.code == code


def test_a_model_that_was_not_in_the_catalogue_is_told_so(quantizations, catalogue, make_machine, physics):
    """A model that the search never saw gets an answer too."""
    machine = make_machine(32)
    evaluation = evaluate(Goal(), machine, [catalogue.models["qwen3-4b"]], quantizations, physics(machine))
    answer = why_not(evaluation, catalogue.models["qwen3-8b"])
    assert answer.reason.text
    assert answer.reason.code != "best"
