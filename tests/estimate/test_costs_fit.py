"""The solver: exact without noise, never negative, silent where the samples are, and honest about distance."""

import math
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from planner.estimate.costs_fit import Sample, fit
from planner.estimate.costs_learning import MODEL_DOUBT, learn_costs
from planner.estimate.costs_priors import Prior, counterpart, prior, relatives
from planner.estimate.costs_table import Timing

KINDS = ("call", "node", "mm/q8_0/plain@1", "mm/q6_K/plain@1", "mm/q4_K/repacked@1", "attn/single/f16", "kv/f16")
TRUE = {
    "call": 2e5,
    "node": 4e3,
    "mm/q8_0/plain@1": 0.07,
    "mm/q6_K/plain@1": 0.11,
    "mm/q4_K/repacked@1": 0.09,
    "attn/single/f16": 0.04,
    "kv/f16": 0.03,
}
SCALES = {
    "call": 1.0,
    "node": 300,
    "mm/q8_0/plain@1": 2e8,
    "mm/q6_K/plain@1": 2e8,
    "mm/q4_K/repacked@1": 2e8,
    "attn/single/f16": 1e8,
    "kv/f16": 5e7,
}


def work(rng: random.Random, kinds=KINDS) -> dict[str, float]:
    """Amounts as different models have them: each kind in it or not."""
    return {name: SCALES[name] * rng.uniform(0.2, 2) for name in kinds if name == "call" or rng.random() < 0.7}


def timings(count: int, *, seed: int = 1, noise: float = 0.0, kinds=KINDS) -> list[Timing]:
    """Timings that the true costs would give, with relative noise."""
    rng = random.Random(seed)  # noqa: S311 - no secret
    found = []
    for number in range(count):
        amounts = work(rng, kinds)
        took = sum(TRUE[name] * amount for name, amount in amounts.items()) * math.exp(rng.gauss(0, noise))
        found.append(Timing(label=str(number), amounts=amounts, took_ns=took, doubt=max(noise, 1e-4)))
    return found


@given(st.integers(0, 10_000))
@settings(max_examples=20, deadline=None)
def test_costs_are_found_again_from_samples_without_noise(seed):
    """As many independent samples as costs, and more, give every cost back."""
    samples = [Sample(each.amounts, each.took_ns, 1e-6) for each in timings(30, seed=seed)]
    found = fit(samples, {name: prior(name) for name in KINDS})
    assert dict(zip(found.names, found.costs, strict=True)) == pytest.approx(TRUE, rel=1e-3)
    assert max(map(abs, found.residuals)) < 1e-6


def test_a_sum_that_is_known_is_predicted_although_its_parts_are_not():
    """Two kinds that always come together cannot be told apart, and need not be."""
    samples = [Sample({"node": 10.0 * n, "call": n}, n * 100_000.0, 1e-4) for n in (1.0, 2.0, 3.0)]
    found = fit(samples, {name: prior(name) for name in ("node", "call")})
    costs = dict(zip(found.names, found.costs, strict=True))
    assert 50 * costs["node"] + 5 * costs["call"] == pytest.approx(500_000, rel=1e-3)


@given(st.lists(st.floats(1, 1000), min_size=3, max_size=8), st.integers(0, 99))
def test_no_cost_is_negative_whatever_the_samples_say(times, seed):
    """Even samples that contradict one another leave every cost at zero or more."""
    rng = random.Random(seed)  # noqa: S311 - no secret
    samples = [Sample({name: rng.uniform(0, 9) + 0.1 for name in "abc"}, took, 0.05) for took in times]
    found = fit(samples, dict.fromkeys("abc", Prior(1.0, 1.0)))
    assert min(found.costs) >= 0


def test_one_wild_sample_among_many_moves_little():
    """A run that something disturbed for ten times its length does not decide."""
    sound = timings(40, noise=0.01)
    wild = [*sound[:-1], Timing(label="wild", amounts=sound[-1].amounts, took_ns=10 * sound[-1].took_ns, doubt=0.01)]
    amounts = work(random.Random(5))  # noqa: S311 - no secret
    expected, disturbed = (learn_costs(each).took(amounts) for each in (sound, wild))
    assert disturbed.middle_ns == pytest.approx(expected.middle_ns, rel=0.03)


def test_the_interval_widens_with_the_distance_from_what_was_timed():
    """Work of kinds that were timed, a tenth of another type, a third of it: ever less is known."""
    kinds = [name for name in KINDS if "q6_K" not in name]
    table = learn_costs(timings(40, noise=0.01, kinds=kinds))
    widths = []
    for share in (0.0, 0.1, 0.3):
        took = table.took({"call": 1, "mm/q8_0/plain@1": 1e9 * (1 - share), "mm/q6_K/plain@1": 1e9 * share + 1})
        widths.append(math.inf if took is None else took.high_ns / took.middle_ns)
    assert widths[0] < widths[1] < widths[2]
    assert widths[0] < 1.03 * math.exp(1.2816 * MODEL_DOUBT), "little more than what any sum is off by"


def test_what_is_known_too_little_about_is_not_predicted():
    """Work of a kind that nobody ever timed alone gives no number."""
    table = learn_costs(timings(40, noise=0.01))
    assert table.took({"op/NEVER_SEEN": 1e12}) is None
    assert table.took({}) is None


def test_four_intervals_of_five_hold_the_truth():
    """On new work under the noise that the samples have, for costs that are what they are."""
    hits = 0
    for seed in range(60):
        table = learn_costs(timings(30, seed=seed, noise=0.03), model_doubt=0.03)
        truth = timings(1, seed=1000 + seed, noise=0.03)[0]
        took = table.took(truth.amounts)
        hits += took.low_ns <= truth.took_ns <= took.high_ns
    assert 0.68 <= hits / 60 <= 0.97


def test_a_type_that_was_not_timed_lies_where_its_relatives_do():
    """On a machine three times as slow with all plain types another plain type is slow as well."""
    types = ("q8_0", "q6_K", "q5_K", "q3_K")
    amounts = [{f"mm/{kind}/plain@1": 1e9} for kind in types]
    slow = [
        Timing(label=str(each), amounts=each, took_ns=3 * prior(next(iter(each))).cost_ns * 1e9, doubt=0.01)
        for each in amounts
    ]
    name = "mm/q5_0/plain@1"
    assert any("plain@1" in group for group in relatives(name))
    took = learn_costs(slow).took({name: 1e9, **{key: 1e10 for each in amounts for key in each}})
    known = learn_costs(slow).took({key: 1e10 for each in amounts for key in each})
    assert took.middle_ns - known.middle_ns == pytest.approx(3 * prior(name).cost_ns * 1e9, rel=0.05)


def test_experts_of_a_type_that_nobody_timed_take_as_many_times_what_the_same_weights_take_for_all_tokens():
    """Experts in Q6_K take half as much again as other weights in it, so those in Q5_K do."""
    took_ns = {"mm/q6_K/plain@1": 1e9, "mm/q5_K/plain@1": 2e9, "id/q6_K/plain@1": 1.5e9}
    known = learn_costs(
        Timing(label=name, amounts={name: 1e10}, took_ns=each, doubt=0.01) for name, each in took_ns.items()
    )
    told = known.took({"id/q5_K/plain@1": 1e10})
    assert told.middle_ns == pytest.approx(3e9, rel=0.05)
    assert counterpart("id/q5_K/plain@128") == "mm/q5_K/plain@256"
    assert counterpart("mm/q5_K/plain@1") is None


def test_another_timing_of_a_full_model_refines_the_costs():
    """A model that turned out slower than predicted is predicted nearer to what it took."""
    kept = timings(10, noise=0.02)
    amounts = work(random.Random(77))  # noqa: S311 - no secret
    before = learn_costs(kept).took(amounts).middle_ns
    after = learn_costs([*kept, Timing(label="full", amounts=amounts, took_ns=1.2 * before, doubt=0.01)])
    assert before * 1.03 < after.took(amounts).middle_ns < before * 1.2
