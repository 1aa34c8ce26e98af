"""Every loser that a user can name gets exactly one reason, and the right one."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import structs

from planner.choose.evaluate import evaluate
from planner.choose.why_not import why_not
from planner.choose.words import decided_by
from planner.types.plan import Goal


@pytest.fixture(scope="module")
def desktop(models, quantizations, make_machine, physics, quality):
    """A finished search on a desktop with a 24 GiB card."""
    machine = make_machine(64, gpu_gib=(24.0,), gpu_bandwidth=1000e9)
    return evaluate(Goal(), machine, models, quantizations, physics(machine), quality)


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
    use, ram_gib, gpu_gib, commercial, fixed, floor, models, quantizations, make_machine, physics, quality
):
    """All models, alone and with each quantization: a reason with words; ``best`` for the chosen one and no other."""
    machine = make_machine(ram_gib, gpu_gib=gpu_gib)
    goal = Goal(use=use, commercial_license=commercial, quantization=fixed, min_tokens_per_s=floor)
    evaluation = evaluate(goal, machine, models, quantizations, physics(machine), quality)
    chosen = evaluation.chosen
    for model in models:
        answers = [
            why_not(evaluation, quality, model),
            *(why_not(evaluation, quality, model, q) for q in quantizations),
        ]
        for answer in answers:
            assert answer.model == model.id
            assert answer.reason.text
            assert answer.reason.code not in {"fits", "meets-speed", "trade-off"}
        best = [answer for answer in answers if answer.reason.code == "best"]
        if chosen is not None and chosen.model == model.id:
            assert [answer.quantization for answer in best] == [None, chosen.quantization]
        else:
            assert best == []


def test_what_is_said_to_be_too_big_is_too_big(desktop, models, quantizations, make_machine, physics, quality):
    """Asked for alone, everything that lost as too big, too slow or refused still finds no plan."""
    machine = make_machine(64, gpu_gib=(24.0,), gpu_bandwidth=1000e9)
    for model in models[::5]:
        for quantization in quantizations[::4]:
            answer = why_not(desktop, quality, model, quantization)
            if answer.reason.code in {"too-big", "too-slow"}:
                goal = Goal(model=model.id, quantization=quantization.name)
                alone = evaluate(goal, machine, models, quantizations, physics(machine), quality)
                assert alone.chosen is None, (model.id, quantization.name, answer)


def test_too_big_names_the_bytes(catalogue, quantizations, make_machine, physics, quality):
    """DeepSeek-R1 at 8 bits on a desktop: what it needs at least and what there is."""
    desktop = make_machine(64, gpu_gib=(24.0,))
    goal = Goal(model="deepseek-r1")
    evaluation = evaluate(goal, desktop, [catalogue.models["deepseek-r1"]], quantizations, physics(desktop), quality)
    answer = why_not(evaluation, quality, catalogue.models["deepseek-r1"])
    assert answer.reason.code == "too-big"
    assert answer.needed_bytes > 100 << 30
    assert "GiB" in answer.reason.text


def test_too_slow_names_both_speeds(catalogue, models, quantizations, make_machine, physics, quality):
    """A dense 72B on a CPU is slow: its predicted speed and the floor are both told, and the rule."""
    machine = make_machine(64)
    goal = Goal(model="qwen2.5-72b")
    evaluation = evaluate(goal, machine, models, quantizations, physics(machine), quality)
    answer = why_not(evaluation, quality, catalogue.models["qwen2.5-72b"])
    assert answer.reason.code == "too-slow"
    assert answer.reason.rule == "speed-floor"
    told = [
        float(number) for number in re.findall(r"([\d.]+) (?:tokens/s|are asked for|asked for)", answer.reason.text)
    ]
    assert min(told) < 8
    assert max(told) == 8.0


def test_a_late_answer_names_the_wait_and_the_limit(catalogue, models, quantizations, make_machine, physics, quality):
    """A model that always thinks, on a slow machine: how long, how long at most, and the rule."""
    machine = make_machine(64, ram_bandwidth=30e9)
    goal = Goal(model="qwen3-4b-thinking-2507", min_tokens_per_s=4.5)
    evaluation = evaluate(goal, machine, models, quantizations, physics(machine), quality)
    answer = why_not(evaluation, quality, catalogue.models["qwen3-4b-thinking-2507"])
    assert answer.reason.rule == "answer-time"
    assert answer.reason.code == "answer-too-late"
    assert "longer than 90 s" in answer.reason.text


def test_an_older_generation_loses_by_its_index(desktop, catalogue, quality):
    """Qwen2.5-32B loses to a newer one by its index or by the most that it could score, and the rule says so."""
    answer = why_not(desktop, quality, catalogue.models["qwen2.5-32b"])
    assert desktop.chosen.model.startswith("qwen3.")
    assert answer.reason.code == "lower-rank"
    assert answer.reason.rule == "index"


@settings(max_examples=25, deadline=None)
@given(
    use=st.sampled_from(["chat", "code", "reasoning", "documents"]),
    ram_gib=st.floats(4, 200),
    gpu_gib=st.lists(st.floats(4, 48), max_size=1).map(tuple),
    language=st.sampled_from([(), ("ar",), ("vi", "th")]),
)
def test_every_loser_names_the_rule_that_decided(
    use, ram_gib, gpu_gib, language, models, quantizations, make_machine, physics, quality
):
    """Whatever the machine: each rejected model, each other ranked one and each recipe asked about has a rule."""
    machine = make_machine(ram_gib, gpu_gib=gpu_gib)
    evaluation = evaluate(Goal(use=use, languages=language), machine, models, quantizations, physics(machine), quality)
    assert all(lost.reason.rule for lost in evaluation.rejected)
    assert all(other.reasons[0].rule for other in evaluation.ranked[1:])
    for model in models[::6]:
        answers = [
            why_not(evaluation, quality, model),
            *(why_not(evaluation, quality, model, q) for q in quantizations),
        ]
        assert all(answer.reason.rule or answer.reason.code == "best" for answer in answers)


def test_an_index_that_counts_more_and_is_lower_is_called_surer_and_not_higher(desktop):
    """84 (80 to 87) went ahead of 85 (78 to 89), and a plan called it the higher one."""
    other = next(each for each in desktop.considered if each.index.value > 1)
    sure = structs.replace(other.index, value=other.index.value - 1)
    winner = structs.replace(other, index=sure, factors=other.factors._replace(capability=99.0))
    assert "is surer" in decided_by(winner, other).text
    assert (
        "is higher" in decided_by(structs.replace(winner, index=other.index), structs.replace(other, index=sure)).text
    )


def test_few_bits_are_named_as_such(desktop, catalogue, quality):
    """A two-bit recipe of another model that scores less is told by what it keeps."""
    answer = why_not(desktop, quality, catalogue.models["qwen2.5-72b"], catalogue.quantizations["IQ2_XXS"])
    assert answer.reason.rule == "few-bits"


def test_a_lighter_quantization_that_was_worked_out_is_compared_with_the_winner(desktop):
    """What fits and lost, of the winner's own model, is told by how much and why."""
    own = [option for option in desktop.trade_offs if option.quantization != desktop.chosen.quantization]
    assert own
    for option in own:
        assert option.reasons[0].code == "trade-off"


def test_a_smaller_model_is_told_by_its_points(desktop, catalogue, quality):
    """Qwen3-14B loses by its index: both numbers are told."""
    answer = why_not(desktop, quality, catalogue.models["qwen3-14b"])
    assert answer.reason.rule == "index"
    assert f"{desktop.chosen.score:.1f}" in answer.reason.text


def test_another_quantization_of_the_winner_is_told_what_it_keeps(desktop, catalogue, quality):
    """Two bits of the winner: the better quantization and both shares of quality."""
    answer = why_not(desktop, quality, catalogue.models[desktop.chosen.model], catalogue.quantizations["IQ2_M"])
    assert answer.reason.code == "same-model-better-quantization"
    assert desktop.chosen.quantization in answer.reason.text


def test_a_pointless_quantization_names_the_better_one(desktop, catalogue, quality):
    """F16 of a model that fits at Q8_0 is beaten by Q8_0 itself."""
    answer = why_not(desktop, quality, catalogue.models["qwen3-8b"], catalogue.quantizations["F16"])
    assert answer.reason.code == "same-model-better-quantization"
    assert "Q8_0" in answer.reason.text


def test_a_recipe_for_mixtures_does_not_suit_a_dense_model(desktop, catalogue, quality):
    """MXFP4_MOE of a dense model is told so."""
    answer = why_not(desktop, quality, catalogue.models["qwen3-8b"], catalogue.quantizations["MXFP4_MOE"])
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
    goal, model, code, catalogue, models, quantizations, make_machine, physics, quality
):
    """Family, licence, context and a fixed model come first, with or without a quantization."""
    machine = make_machine(32)
    evaluation = evaluate(goal, machine, models, quantizations, physics(machine), quality)
    for quantization in (None, catalogue.quantizations["Q4_K_M"]):
        assert why_not(evaluation, quality, catalogue.models[model], quantization).reason.code == code


def test_a_model_that_was_not_in_the_catalogue_is_told_so(quantizations, catalogue, make_machine, physics, quality):
    """A model that the search never saw gets an answer too."""
    machine = make_machine(32)
    evaluation = evaluate(Goal(), machine, [catalogue.models["qwen3-4b"]], quantizations, physics(machine), quality)
    answer = why_not(evaluation, quality, catalogue.models["qwen3-8b"])
    assert answer.reason.text
    assert answer.reason.code != "best"
