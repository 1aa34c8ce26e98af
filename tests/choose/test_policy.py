"""The opinions, each checked against what it is argued from."""

import math

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner.choose import policy
from planner.choose.candidates import better_recipe, ladder, recipes, screen
from planner.types.machine import CgroupLimit
from planner.types.plan import Goal

MIB = 1 << 20
GIB = 1 << 30


def score(catalogue, model, quantization="BF16", use="chat", context=8192, cache="f16"):
    """The score of a named model at a quantization."""
    found = catalogue.models[model]
    return policy.factors(Goal(use=use), found, catalogue.quantizations[quantization], context, cache).score


@pytest.mark.parametrize(
    ("newer", "older"),
    [
        ("qwen3-1.7b", "qwen2.5-3b"),
        ("qwen3-4b", "qwen2.5-7b"),
        ("qwen3-8b", "qwen2.5-14b"),
        ("qwen3-14b", "qwen2.5-32b"),
        ("qwen3-32b", "qwen2.5-72b"),
    ],
)
def test_a_generation_weighs_what_its_makers_say(newer, older, catalogue):
    """The Qwen team puts each Qwen3 base level with the next larger Qwen2.5: scores within 15 %."""
    assert score(catalogue, newer) == pytest.approx(score(catalogue, older), rel=0.15)


def test_a_mixture_weighs_what_its_makers_say(catalogue):
    """Qwen3-30B-A3B stands level with Qwen3-14B, within 10 %, not with a 3B and not with a 30B."""
    assert score(catalogue, "qwen3-30b-a3b") == pytest.approx(score(catalogue, "qwen3-14b"), rel=0.1)


def test_the_loss_orders_quantizations_as_published(catalogue):
    """Less divergence never scores lower; Q4_K_M keeps most, two bits a fifth, one bit nothing."""
    measured = [q for q in catalogue.quantizations.values() if q.kld is not None]
    ordered = sorted(measured, key=lambda q: q.kld)
    kept = [policy.loss(q) for q in ordered]
    assert kept == sorted(kept, reverse=True)
    named = {q.name: policy.loss(q) for q in catalogue.quantizations.values()}
    assert named["BF16"] == named["Q8_0"] == 1.0
    assert 0.85 < named["Q4_K_M"] < 0.9
    assert 0.15 < named["IQ2_M"] < 0.25
    assert named["IQ1_S"] < 0.001


def test_an_unmeasured_quantization_counts_as_worse_than_its_measured_neighbours(catalogue):
    """MXFP4 has no published divergence: below IQ4_XS, above two bits, never lossless."""
    unknown = catalogue.quantizations["MXFP4_MOE"]
    assert unknown.kld is None
    named = {q.name: policy.loss(q) for q in catalogue.quantizations.values()}
    assert named["IQ2_M"] < policy.loss(unknown) < named["IQ4_XS"]


@pytest.mark.parametrize("large", ["qwen2.5-72b", "deepseek-r1-distill-llama-70b"])
@pytest.mark.parametrize("bits2", ["Q2_K", "Q2_K_S", "IQ2_M", "IQ2_S", "IQ2_XS", "IQ2_XXS"])
def test_a_2_bit_70b_scores_below_a_32b_at_4_bits(large, bits2, catalogue):
    """Of the same generation and for the same use, whatever the speeds: the margin exceeds what speed can give."""
    pairs = {"qwen2.5-72b": "qwen2.5-32b", "deepseek-r1-distill-llama-70b": "deepseek-r1-distill-qwen-32b"}
    assert score(catalogue, large, bits2) < 0.55 * score(catalogue, pairs[large], "Q4_K_M")


def test_each_use_prefers_the_models_made_for_it(catalogue):
    """Coders for code, thinkers for reasoning, neither for a chat."""
    assert score(catalogue, "qwen2.5-coder-7b", use="code") > score(catalogue, "qwen2.5-7b", use="code")
    assert score(catalogue, "qwen2.5-coder-7b") < score(catalogue, "qwen2.5-7b")
    assert score(catalogue, "qwq-32b", use="reasoning") > 2 * score(catalogue, "qwen2.5-32b", use="reasoning")
    assert score(catalogue, "qwq-32b") < score(catalogue, "qwen2.5-32b")
    assert score(catalogue, "qwen3-30b-a3b-instruct-2507") > score(catalogue, "qwen3-30b-a3b-thinking-2507")


@given(st.floats(0.1, 1000), st.floats(1.01, 10), st.sampled_from([1.0, 8.0, 30.0]))
def test_speed_helps_less_and_less_and_never_more_than_half_again(speed, times, floor):
    """The factor grows with speed, stays below 1, and from 8 tokens/s on no speed is worth more than half again."""
    goal = Goal(min_tokens_per_s=floor)
    slow, fast = policy.speed_factor(speed, goal), policy.speed_factor(speed * times, goal)
    assert 0 < slow < fast < 1
    if speed >= 8:
        assert fast / slow <= 1.5


def test_speed_weighs_more_for_reasoning():
    """Twice the speed is worth more where thousands of thinking tokens are waited for."""
    gains = [
        policy.speed_factor(20, Goal(use=use)) / policy.speed_factor(10, Goal(use=use)) for use in ("chat", "reasoning")
    ]
    assert gains[1] > gains[0]


def test_an_unknown_speed_counts_as_what_was_asked_for_and_none_at_all_as_nothing():
    """Unknown is neither praised nor refused."""
    goal = Goal(min_tokens_per_s=8.0)
    assert policy.speed_factor(None, goal) == policy.speed_factor(8.0, goal)
    assert policy.speed_factor(0.0, goal) == 0.0


def test_contexts_follow_the_use_the_user_and_the_model(catalogue):
    """A named length is never changed, a default never exceeds the native length, nothing below 4096 is offered."""
    qwen, long = catalogue.models["qwen3-8b"], catalogue.models["qwen3-4b-instruct-2507"]
    assert policy.contexts(Goal(), qwen) == (8192, 4096)
    assert policy.contexts(Goal(use="documents"), long)[0] == 65536
    assert policy.contexts(Goal(use="documents"), qwen)[0] == 32768
    assert policy.contexts(Goal(context_tokens=1234), qwen) == (1234,)
    assert policy.contexts(Goal(context_tokens=100_000), qwen) == (100_000,)
    assert policy.contexts(Goal(context_tokens=500_000), qwen) == ()
    for use in ("chat", "code", "reasoning", "documents"):
        assert min(policy.contexts(Goal(use=use), long)) >= 4096


def test_a_context_beyond_the_native_one_counts_half(catalogue):
    """YaRN is needed and not applied: a model trained for the length is preferred up to half the size."""
    goal = Goal(context_tokens=100_000)
    quantization = catalogue.quantizations["Q8_0"]
    stretched = policy.factors(goal, catalogue.models["qwen3-8b"], quantization, 100_000, "f16")
    native = policy.factors(goal, catalogue.models["qwen3-4b-instruct-2507"], quantization, 100_000, "f16")
    assert stretched.context == 0.5
    assert native.context == 1.0
    assert native.score > stretched.score


@given(use=st.sampled_from(["chat", "code", "reasoning", "documents"]))
def test_the_ladder_falls_in_worth_and_ends_where_memory_is_least(use, catalogue):
    """Each rung is worth no more than the one before; the last has the shortest context and the smallest cache."""
    goal, model = Goal(use=use), catalogue.models["qwen3-4b-instruct-2507"]
    steps = ladder(goal, model)
    quantization = catalogue.quantizations["Q8_0"]
    worth = [policy.factors(goal, model, quantization, step.context, step.cache).score for step in steps]
    assert worth == sorted(worth, reverse=True)
    assert steps[0] == (policy.contexts(goal, model)[0], "f16")
    assert steps[-1] == (min(policy.contexts(goal, model)), "q4_0")


def test_default_families_are_qwen_and_deepseek_and_names_match_by_their_start(catalogue):
    """QwQ is Qwen, the distilled Llamas are DeepSeek's, another family only when asked for."""
    assert screen(Goal(), catalogue.models["qwq-32b"]) is None
    assert screen(Goal(families=("Qwen",)), catalogue.models["qwq-32b"]) is None
    assert screen(Goal(families=("qwen3",)), catalogue.models["qwen3-coder-30b-a3b"]) is None
    assert screen(Goal(families=("deepseek",)), catalogue.models["qwen3-8b"]).code == "family"
    stranger = msgspec.structs.replace(catalogue.models["qwen3-8b"], family="Llama-3")
    assert screen(Goal(), stranger).code == "family"
    assert screen(Goal(families=("llama",)), stranger) is None
    assert screen(Goal(model=stranger.id), stranger) is None


def test_a_licence_that_was_not_read_is_not_commercial(catalogue):
    """Unknown is not a yes; the words tell a no from an unknown."""
    goal = Goal(commercial_license=True)
    free, closed = catalogue.models["qwen3-8b"], catalogue.models["qwen2.5-3b"]
    unread = msgspec.structs.replace(free, license=msgspec.structs.replace(free.license, commercial=None))
    assert screen(goal, free) is None
    assert "does not allow" in screen(goal, closed).text
    assert "not confirmed" in screen(goal, unread).text


def test_pointless_recipes_are_left_out_unless_named(catalogue):
    """F16 beside Q8_0 and Q5_1 beside Q5_K_M are pointless; Q4_0 and Q3_K_S are faster than what beats them."""
    everything = list(catalogue.quantizations.values())
    model = catalogue.models["qwen3-8b"]
    tried = {q.name for q in recipes(Goal(), model, everything)}
    assert {"BF16", "F16", "Q5_1", "Q5_0", "IQ4_NL", "MXFP4_MOE"} & tried == set()
    assert {"Q8_0", "Q6_K", "Q5_K_M", "Q4_K_M", "Q4_0", "Q3_K_S", "IQ2_M", "IQ1_S"} <= tried
    assert better_recipe(catalogue.quantizations["F16"], everything).name == "Q8_0"
    assert [q.name for q in recipes(Goal(quantization="f16"), model, everything)] == ["F16"]
    assert "MXFP4_MOE" in {q.name for q in recipes(Goal(), catalogue.models["qwen3-30b-a3b"], everything)}


def test_no_recipe_is_pointless_because_of_one_that_is_worse(catalogue):
    """What replaces a recipe keeps at least as much and has no more bits, within 1 %."""
    everything = list(catalogue.quantizations.values())
    for quantization in everything:
        better = better_recipe(quantization, everything)
        if better is not None:
            assert policy.loss(better) >= policy.loss(quantization)
            assert better.bits_per_weight <= 1.01 * quantization.bits_per_weight


def test_the_reserve_is_stated_bounded_and_smaller_in_a_container(make_machine):
    """6 % of RAM between 512 MiB and 4 GiB; in a container 3 % from 128 MiB; the user's word beats both."""
    laptop, server = make_machine(8), make_machine(768)
    tight = msgspec.structs.replace(
        make_machine(64).memory,
        usable_bytes=4 * GIB,
        limits=(CgroupLimit(path="/", version="v2", limit_bytes=4 * GIB, used_bytes=0, available_bytes=4 * GIB),),
    )
    container = msgspec.structs.replace(make_machine(64), memory=tight)

    def reserve(machine, **changes):
        goal = Goal(**changes)
        return policy.reserve_bytes(goal, machine, host=True, available_bytes=machine.memory.usable_bytes)

    assert reserve(laptop) == 64 * MIB + 512 * MIB
    assert reserve(server) == 64 * MIB + 4 * GIB
    assert reserve(container) == 64 * MIB + 128 * MIB
    assert reserve(server, reserve_bytes=7) == 7
    for gib in (4, 12, 24, 80):
        of_gpu = policy.reserve_bytes(Goal(), laptop, host=False, available_bytes=gib * GIB)
        assert 256 * MIB <= of_gpu <= GIB


@given(st.floats(1, 2000), st.floats(1.0, 4.0))
def test_more_memory_always_leaves_more_after_the_reserve(make_machine, gib, times):
    """The reserve grows more slowly than the memory it is taken from, so a larger machine never offers less."""
    small, large = make_machine(gib), make_machine(gib * times)

    def rest(machine, *, host):
        available = machine.memory.usable_bytes
        return available - policy.reserve_bytes(Goal(), machine, host=host, available_bytes=available)

    assert rest(large, host=True) >= rest(small, host=True)
    assert rest(large, host=False) >= rest(small, host=False)


def test_the_score_is_the_product_of_its_factors(catalogue):
    """Nothing decides that is not named."""
    made = policy.factors(Goal(), catalogue.models["qwen3-8b"], catalogue.quantizations["Q4_K_M"], 4096, "q8_0")
    assert made.score == pytest.approx(math.prod(made))
    assert set(made._fields) == {"parameters", "generation", "use", "loss", "context", "cache"}
