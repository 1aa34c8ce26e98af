"""The opinions, each checked against what it is argued from."""

import math
import statistics
from typing import get_args

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner.choose import policy
from planner.choose.appraisal import Appraiser
from planner.choose.candidates import better_recipe, ladder, recipes, screen
from planner.types.machine import CgroupLimit
from planner.types.plan import Goal, Rule
from planner.types.quality import Capability

MIB = 1 << 20
GIB = 1 << 30


def appraised(catalogue, quality, model, quantization="Q8_0", use="chat", *, tokens_per_s=None, **goal):
    """The appraisal of a named model at a quantization with the use's first context."""
    found = catalogue.models[model]
    appraiser = Appraiser(Goal(use=use, **goal), quality)
    context = policy.contexts(Goal(use=use), found)[0]
    return appraiser.appraise(found, catalogue.quantizations[quantization], context, "f16", tokens_per_s=tokens_per_s)


@pytest.mark.parametrize("use", ["chat", "code", "reasoning", "documents"])
def test_over_the_waits_that_are_accepted_the_credit_is_about_the_doubt_about_an_index(use, catalogue, quality):
    """From the longest wait to a twentieth of it the credit grows by 0.8 to 1.6 margins; no bound is ever exceeded."""
    margin = quality.overlap_margin(policy.group_of(use))
    appraiser = Appraiser(Goal(use=use), quality)
    model, quantization = catalogue.models["qwen3-8b"], catalogue.quantizations["Q4_K_M"]
    bound = appraiser.bound(model, quantization, 32768, "f16")
    scores = [
        appraiser.appraise(model, quantization, 32768, "f16", tokens_per_s=speed).score for speed in (0.01, 1, 30, 1e6)
    ]
    assert scores == sorted(scores)
    assert all(score <= bound for score in scores)
    best = max(policy.trusted(quality.capability(model, policy.group_of(use), thinking=mode)) for mode in (True, False))
    assert bound <= best + 2.1 * margin
    goal = Goal(use=use)
    longest = policy.longest_answer_seconds(goal)
    assert 0.8 <= policy.speed_credit(goal, longest / 20) - policy.speed_credit(goal, longest) <= 1.6
    assert policy.speed_credit(goal, 0.0) == 2.0
    assert policy.headroom_credit(1.0) == pytest.approx(0.1)


@pytest.mark.parametrize("use", ["code", "documents"])
def test_weights_left_in_ram_halve_the_credit_where_long_prompts_are_read(use):
    """A card that holds the attention alone reads a long prompt slowly; for a chat that does not matter."""
    goal = Goal(use=use)
    whole, split = (policy.speed_credit(goal, 30.0, weights_in_ram=share) for share in (0.0, 1.0))
    assert split == pytest.approx(whole / 2)
    assert policy.speed_credit(Goal(), 30.0, weights_in_ram=1.0) == policy.speed_credit(Goal(), 30.0)


def test_what_is_surer_counts_more_at_equal_expectation():
    """Two entries of index 60: the one with the narrow interval is credited with more, neither with more than 60."""
    sure = Capability(group="chat", thinking=False, index=60, low=57, high=63, origin="measured")
    guess = Capability(group="chat", thinking=False, index=60, low=45, high=75, origin="inferred")
    assert 60 > policy.trusted(sure) > policy.trusted(guess) > 45


def test_the_trusted_index_is_the_lower_quartile():
    """Of a normal distribution whose 80 % interval is given, a quarter lies below."""
    spread = statistics.NormalDist(50, 10)
    known = Capability(
        group="chat", thinking=False, index=50, low=spread.inv_cdf(0.1), high=spread.inv_cdf(0.9), origin="measured"
    )
    assert spread.cdf(policy.trusted(known)) == pytest.approx(0.25, abs=0.001)


@pytest.mark.parametrize("use", ["chat", "code", "reasoning", "documents"])
def test_a_floor_that_the_user_lowered_is_not_taken_back_by_the_wait(use):
    """At 1 token/s a plain answer takes minutes; who asks for 1 token/s gets it. An own limit is kept to the letter."""
    assert policy.longest_answer_seconds(Goal(use=use, min_tokens_per_s=1.0)) >= 400
    assert policy.longest_answer_seconds(Goal(use=use, min_tokens_per_s=1.0, max_answer_seconds=5.0)) == 5.0


@pytest.mark.parametrize("use", ["chat", "code", "reasoning", "documents"])
def test_thinking_costs_its_tokens(use, catalogue):
    """At one speed thinking takes longer by its tokens, and a published figure replaces the typical one."""
    goal, model = Goal(use=use), catalogue.models["qwen3-8b"]
    direct, thought = (policy.answer_seconds(goal, model, 10.0, thinking=mode) for mode in (False, True))
    assert direct == pytest.approx(policy.answer_seconds(goal, model, 20.0, thinking=False) * 2)
    assert thought > 2 * direct
    wordy = msgspec.structs.replace(model, thinking_tokens=30_000)
    assert policy.answer_seconds(goal, wordy, 10.0, thinking=True) > 2 * thought
    assert policy.answer_seconds(goal, wordy, 10.0, thinking=False) == direct


def test_a_hybrid_model_thinks_where_there_is_time_and_answers_at_once_where_there_is_none(catalogue, quality):
    """Qwen3-8B at 100 and at 9 tokens/s in a chat: the fast machine thinks, the slow one does not."""
    assert appraised(catalogue, quality, "qwen3-8b", tokens_per_s=100.0).thinking
    slow = appraised(catalogue, quality, "qwen3-8b", tokens_per_s=9.0)
    assert not slow.thinking
    assert slow.in_time


def test_a_model_that_always_thinks_is_too_late_for_a_chat_on_a_slow_machine(catalogue, quality):
    """QwQ at 9 tokens/s: minutes of thinking before three paragraphs; with the user's patience it is in time."""
    assert not appraised(catalogue, quality, "qwq-32b", tokens_per_s=9.0).in_time
    assert appraised(catalogue, quality, "qwq-32b", tokens_per_s=9.0, max_answer_seconds=3600.0).in_time
    assert appraised(catalogue, quality, "qwq-32b", tokens_per_s=60.0).in_time


@given(st.sampled_from(["chat", "code", "reasoning", "documents"]), st.floats(0.5, 500), st.floats(1.0, 10))
def test_a_faster_candidate_never_scores_lower(catalogue, quality, use, speed, times):
    """More speed keeps or raises the score of those in time, and what is in time stays in time."""
    for name in ("qwen3-8b", "qwq-32b", "qwen2.5-7b"):
        slow = appraised(catalogue, quality, name, use=use, tokens_per_s=speed)
        fast = appraised(catalogue, quality, name, use=use, tokens_per_s=speed * times)
        assert fast.in_time or not slow.in_time
        if slow.in_time:
            assert fast.score >= slow.score


@pytest.mark.parametrize("large", ["qwen2.5-72b", "deepseek-r1-distill-llama-70b"])
@pytest.mark.parametrize("bits2", ["Q2_K_S", "IQ2_S", "IQ2_XS", "IQ2_XXS", "IQ1_M"])
def test_a_2_bit_70b_scores_below_a_32b_at_4_bits(large, bits2, catalogue, quality):
    """Of the same generation and for the same use; the loss curves say so, no constant."""
    pairs = {"qwen2.5-72b": "qwen2.5-32b", "deepseek-r1-distill-llama-70b": "deepseek-r1-distill-qwen-32b"}
    heavy = appraised(catalogue, quality, large, bits2, use="reasoning")
    light = appraised(catalogue, quality, pairs[large], "Q4_K_M", use="reasoning")
    assert heavy.factors.points < light.factors.points


def test_a_language_beyond_english_and_chinese_weighs_the_multilingual_index(catalogue, quality):
    """Asked for Arabic, the index lies between that of the use and the multilingual one."""
    plain = appraised(catalogue, quality, "qwen3-8b", tokens_per_s=9.0)
    arabic = appraised(catalogue, quality, "qwen3-8b", tokens_per_s=9.0, languages=("ar",))
    other = quality.capability(catalogue.models["qwen3-8b"], "multilingual", thinking=False).index
    assert arabic.quality.capability == pytest.approx((plain.quality.capability + other) / 2)
    chinese = appraised(catalogue, quality, "qwen3-8b", tokens_per_s=9.0, languages=("zh",))
    assert chinese.quality == plain.quality


def test_a_language_that_the_makers_do_not_name_excludes_a_model(catalogue):
    """Named: in. Not named: out. Unknown: out, and the words tell it from a no."""
    model = catalogue.models["qwen3-8b"]
    speaks = msgspec.structs.replace(model, languages=("en", "ar"), languages_claimed=None)
    silent = msgspec.structs.replace(model, languages=None, languages_claimed=None)
    assert screen(Goal(languages=("ar",)), speaks) is None
    assert screen(Goal(languages=("ar", "sw")), speaks).rule == "language"
    assert "do not say" in screen(Goal(languages=("ar",)), silent).text


def test_every_rule_is_argued_in_a_sentence():
    """The closed list of rules and the sentences are the same list."""
    assert set(policy.RULES) == set(get_args(Rule))
    assert all(sentence and not sentence.endswith(".") for sentence in policy.RULES.values())


def test_an_unknown_speed_counts_as_what_was_asked_for(catalogue, quality):
    """Unknown is neither praised nor refused."""
    unknown = appraised(catalogue, quality, "qwen3-8b")
    asked = appraised(catalogue, quality, "qwen3-8b", tokens_per_s=8.0)
    assert unknown.in_time
    assert unknown.answer_seconds is None
    assert unknown.score >= asked.score


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


def test_a_context_beyond_the_native_one_counts_less(catalogue):
    """YaRN is needed and not applied: a model trained for the length is preferred up to one size step."""
    goal = Goal(context_tokens=100_000)
    assert policy.context_factor(goal, catalogue.models["qwen3-8b"].context_native, 100_000) < 1.0
    assert policy.context_factor(goal, catalogue.models["qwen3-4b-instruct-2507"].context_native, 100_000) == 1.0


@given(use=st.sampled_from(["chat", "code", "reasoning", "documents"]))
def test_the_ladder_falls_in_worth_and_ends_where_memory_is_least(use, catalogue):
    """Each rung is worth no more than the one before; the last needs least: context, cache and micro-batch."""
    goal, model = Goal(use=use), catalogue.models["qwen3-4b-instruct-2507"]
    steps = ladder(goal, model)
    worth = [
        policy.context_factor(goal, model.context_native, step.context) * policy.cache_factor(step.cache)
        for step in steps
    ]
    assert worth == sorted(worth, reverse=True)
    assert steps[0] == (policy.contexts(goal, model)[0], "f16", 512)
    assert steps[-1] == (min(policy.contexts(goal, model)), "q4_0", 128)


def test_default_families_are_qwen_and_deepseek_and_names_match_by_their_start(catalogue):
    """QwQ is Qwen, the distilled Llamas are DeepSeek's, another family only when asked for."""
    assert screen(Goal(), catalogue.models["qwq-32b"]) is None
    assert screen(Goal(families=("Qwen",)), catalogue.models["qwq-32b"]) is None
    assert screen(Goal(families=("qwen3",)), catalogue.models["qwen3-coder-30b-a3b"]) is None
    assert screen(Goal(families=("deepseek",)), catalogue.models["qwen3-8b"]).code == "family"
    stranger = msgspec.structs.replace(catalogue.models["qwen3-8b"], family="Llama-3")
    assert screen(Goal(), stranger).code == "family"
    assert screen(Goal(families=("llama",)), stranger) is None
    assert screen(Goal(families=("all",)), stranger) is None
    assert screen(Goal(model=stranger.id), stranger) is None


def test_a_licence_that_was_not_read_is_not_commercial(catalogue):
    """Unknown is not a yes; the words tell a no from an unknown."""
    goal = Goal(commercial_license=True)
    free, closed = catalogue.models["qwen3-8b"], catalogue.models["qwen2.5-3b"]
    unread = msgspec.structs.replace(free, license=msgspec.structs.replace(free.license, commercial=None))
    assert screen(goal, free) is None
    assert "does not allow" in screen(goal, closed).text
    assert "not confirmed" in screen(goal, unread).text


def test_pointless_recipes_are_left_out_unless_named(catalogue, quality):
    """F16 beside Q8_0 is pointless; what is faster than what beats it is not."""
    everything = list(catalogue.quantizations.values())
    model = catalogue.models["qwen3-8b"]
    kept = kept_by(quality, model)
    tried = {q.name for q in recipes(Goal(), model, everything, kept)}
    assert {"BF16", "F16", "MXFP4_MOE"} & tried == set()
    assert {"Q8_0", "Q6_K", "Q5_K_M", "Q4_K_M", "IQ2_M"} <= tried
    assert better_recipe(catalogue.quantizations["F16"], everything, kept).name == "Q8_0"
    assert [q.name for q in recipes(Goal(quantization="f16"), model, everything, kept)] == ["F16"]


def test_no_recipe_is_pointless_because_of_one_that_is_worse(catalogue, quality):
    """What replaces a recipe keeps at least as much and has no more bits, within 1 %."""
    everything = list(catalogue.quantizations.values())
    kept = kept_by(quality, catalogue.models["qwen3-8b"])
    for quantization in everything:
        better = better_recipe(quantization, everything, kept)
        if better is not None:
            assert kept(better) >= kept(quantization)
            assert better.bits_per_weight <= 1.01 * quantization.bits_per_weight


def kept_by(quality, model):
    """What each quantization leaves of a model's index."""
    appraiser = Appraiser(Goal(), quality)
    return lambda quantization: appraiser.kept(model, quantization)


def test_the_reserve_is_stated_bounded_and_smaller_in_a_container(make_machine):
    """6 % of RAM between 512 MiB and 4 GiB; in a container 2 % from 64 MiB; the user's word beats both."""
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

    assert reserve(laptop) == 512 * MIB
    assert reserve(server) == 4 * GIB
    assert reserve(container) == 24 * MIB + 4 * GIB * 3 // 400
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


def test_the_score_is_the_product_of_its_factors_and_the_credits(catalogue, quality):
    """Nothing decides that is not named."""
    made = appraised(catalogue, quality, "qwen3-8b", "Q4_K_M", tokens_per_s=20.0)
    assert made.score == pytest.approx(math.prod(made.factors) + made.credit)
    assert set(made.factors._fields) == {"capability", "retention", "context", "cache"}
    assert made.quality.value == pytest.approx(made.quality.capability * made.quality.retention)
    assert made.quality.low <= made.quality.value <= made.quality.high
