"""Laws of the search: what fits, what wins, and that neither order nor shortcuts change the answer."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from planner.choose import policy
from planner.choose.candidates import least_bytes
from planner.choose.evaluate import evaluate
from planner.choose.rank import rank
from planner.choose.verdict import is_host
from planner.types.plan import Goal

GIB = 1 << 30

uses = st.sampled_from(["chat", "code", "reasoning", "documents"])
ram = st.floats(2.0, 200.0)
gpus = st.lists(st.floats(4.0, 80.0), max_size=2).map(tuple)
goals = st.builds(
    Goal,
    use=uses,
    min_tokens_per_s=st.sampled_from([2.0, 8.0, 30.0]),
    commercial_license=st.booleans(),
    parallel=st.sampled_from([1, 4]),
    context_tokens=st.sampled_from([None, 4096, 16384, 131072]),
)
some_models = st.sets(st.integers(0, 158), min_size=1, max_size=10)


def picked(models, numbers):
    """The models of those numbers; numbers beyond the catalogue wrap around."""
    return [models[number % len(models)] for number in sorted({n % len(models) for n in numbers})]


def best_score(evaluation):
    """The utility of the winner, 0 when nothing meets the goal."""
    return evaluation.chosen.score if evaluation.chosen else 0.0


@settings(max_examples=60, deadline=None)
@given(goal=goals, ram_gib=ram, gpu_gib=gpus, numbers=some_models)
def test_nothing_is_ranked_that_does_not_fit_or_breaks_the_goal(
    goal, ram_gib, gpu_gib, numbers, models, quantizations, make_machine, physics, quality
):
    """Every ranked candidate and trade-off has room beside the reserve, is fast enough, licensed, and of the family."""
    machine = make_machine(ram_gib, gpu_gib=gpu_gib)
    evaluation = evaluate(goal, machine, picked(models, numbers), quantizations, physics(machine), quality)
    by_id = {model.id: model for model in models}
    for candidate in (*evaluation.ranked, *evaluation.trade_offs):
        model = by_id[candidate.model]
        assert candidate.verdict in {"fits", "tight"}
        assert all(row.headroom_bytes >= 0 for row in candidate.memory)
        assert all(row.reserve_bytes > 0 for row in candidate.memory)
        assert candidate.speed.generate.tokens_per_s >= goal.min_tokens_per_s
        assert not goal.commercial_license or model.license.commercial is True
        assert candidate.settings.parallel == goal.parallel
        context = candidate.settings.context_tokens // goal.parallel
        assert context <= max(model.context_native, model.context_extended or 0)
        assert goal.context_tokens in {None, context}


@settings(max_examples=150, deadline=None)
@given(use=uses, ram_gib=ram, gpu_gib=gpus, numbers=some_models, more_ram=st.floats(0, 64), more_gpu=st.floats(0, 48))
def test_more_memory_never_makes_the_best_worse(
    use, ram_gib, gpu_gib, numbers, more_ram, more_gpu, models, quantizations, make_machine, physics, quality
):
    """RAM or GPU memory added keeps or raises the score of what is chosen, and its index but for what speed may buy."""
    some = picked(models, numbers)
    small = make_machine(ram_gib, gpu_gib=gpu_gib)
    large = make_machine(ram_gib + more_ram, gpu_gib=tuple(size + more_gpu for size in gpu_gib))
    before = evaluate(Goal(use=use), small, some, quantizations, physics(small), quality)
    after = evaluate(Goal(use=use), large, some, quantizations, physics(large), quality)
    assert best_score(after) >= best_score(before) * (1 - 1e-9)
    if before.chosen is not None:
        assert after.chosen.index.value >= before.chosen.index.value - 2.1 * before.margin


@settings(max_examples=40, deadline=None)
@given(use=uses, ram_gib=ram, numbers=some_models, faster=st.floats(1.0, 4.0))
def test_a_faster_machine_never_makes_the_best_worse(
    use, ram_gib, numbers, faster, models, quantizations, make_machine, physics, quality
):
    """More memory bandwidth keeps or raises the utility of what is chosen."""
    some = picked(models, numbers)
    slow = make_machine(ram_gib, ram_bandwidth=40e9)
    fast = make_machine(ram_gib, ram_bandwidth=40e9 * faster)
    before = evaluate(Goal(use=use), slow, some, quantizations, physics(slow), quality)
    after = evaluate(Goal(use=use), fast, some, quantizations, physics(fast), quality)
    assert best_score(after) >= best_score(before) * (1 - 1e-9)


@settings(max_examples=40, deadline=None)
@given(goal=goals, ram_gib=ram, gpu_gib=gpus, numbers=some_models, data=st.data())
def test_the_order_of_models_and_quantizations_never_matters(
    goal, ram_gib, gpu_gib, numbers, data, models, quantizations, make_machine, physics, quality
):
    """Shuffled inputs give the identical evaluation, words and all."""
    machine = make_machine(ram_gib, gpu_gib=gpu_gib)
    some = picked(models, numbers)
    shuffled_models = data.draw(st.permutations(some))
    shuffled_quantizations = data.draw(st.permutations(quantizations))
    one = evaluate(goal, machine, some, quantizations, physics(machine), quality)
    two = evaluate(goal, machine, shuffled_models, shuffled_quantizations, physics(machine), quality)
    assert one == two
    assert rank(reversed(one.ranked)) == one.ranked


@settings(max_examples=25, deadline=None)
@given(use=uses, ram_gib=st.floats(3.0, 80.0), gpu_gib=st.lists(st.floats(6.0, 48.0), max_size=1).map(tuple))
def test_the_bounds_give_the_same_winner_as_asking_about_everything(
    use, ram_gib, gpu_gib, models, quantizations, make_machine, physics, quality
):
    """No model × quantization that was left out, asked for by name, beats the winner."""
    machine = make_machine(ram_gib, gpu_gib=gpu_gib)
    some = [model for model in models if model.parameters < 40_000_000_000][::3]
    goal = Goal(use=use)
    found = evaluate(goal, machine, some, quantizations, physics(machine), quality)
    best = 0.0
    for model in some:
        for quantization in quantizations:
            alone = Goal(use=use, model=model.id, quantization=quantization.name)
            best = max(best, best_score(evaluate(alone, machine, [model], [quantization], physics(machine), quality)))
    assert best_score(found) == pytest.approx(best, rel=0.01)


@settings(max_examples=40, deadline=None)
@given(goal=goals, ram_gib=ram, gpu_gib=gpus, numbers=some_models)
def test_every_model_ends_in_exactly_one_place_with_a_reason(
    goal, ram_gib, gpu_gib, numbers, models, quantizations, make_machine, physics, quality
):
    """Ranked and rejected together are the models that went in, none twice, and each loser has words."""
    machine = make_machine(ram_gib, gpu_gib=gpu_gib)
    some = picked(models, numbers)
    evaluation = evaluate(goal, machine, some, quantizations, physics(machine), quality)
    ranked = [candidate.model for candidate in evaluation.ranked]
    lost = [rejected.model for rejected in evaluation.rejected]
    assert sorted([*ranked, *lost]) == sorted(model.id for model in some)
    assert all(rejected.reason.text for rejected in evaluation.rejected)
    assert [outcome.model for outcome in evaluation.outcomes] == sorted(model.id for model in some)
    assert all(candidate.reasons for candidate in evaluation.ranked)


@settings(max_examples=30, deadline=None)
@given(use=uses, ram_gib=ram, context=st.sampled_from([4096, 8192, 16384]), numbers=some_models)
def test_a_longer_context_never_improves_the_best(
    use, ram_gib, context, numbers, models, quantizations, make_machine, physics, quality
):
    """Asking for twice the context costs memory and gains nothing."""
    machine = make_machine(ram_gib)
    some = picked(models, numbers)
    short, long = (
        evaluate(Goal(use=use, context_tokens=tokens), machine, some, quantizations, physics(machine), quality)
        for tokens in (context, 2 * context)
    )
    assert best_score(long) <= best_score(short) * (1 + 1e-9)


@pytest.mark.parametrize("use", ["chat", "code", "reasoning", "documents"])
@pytest.mark.parametrize(("ram_gib", "gpu_gib"), [(24, (24.0,)), (64, (32.0,)), (64, (24.0, 24.0)), (40, ())])
def test_a_good_32b_stands_above_any_2_bit_72b(
    use, ram_gib, gpu_gib, catalogue, quantizations, make_machine, physics, quality
):
    """With room for a 32B at 4 bits or more, a 72B at 2 bits is never chosen, however fast memory is."""
    machine = make_machine(ram_gib, gpu_gib=gpu_gib, ram_bandwidth=2000e9, gpu_bandwidth=4000e9, threads=256)
    some = [catalogue.models[name] for name in ("qwen2.5-72b", "qwen2.5-32b", "deepseek-r1-distill-llama-70b")]
    evaluation = evaluate(Goal(use=use), machine, some, quantizations, physics(machine), quality)
    bits = {quantization.name: quantization.bits_per_weight for quantization in quantizations}
    chosen = evaluation.chosen
    assert chosen.model == "qwen2.5-32b" or bits[chosen.quantization] > 3.2


@pytest.mark.parametrize(
    ("ram_gib", "gpu_gib", "threads", "most"), [(24, (), 2, 400), (64, (24.0,), 8, 1000), (28, (12.0,), 8, 1000)]
)
def test_the_search_asks_little(ram_gib, gpu_gib, threads, most, models, quantizations, make_machine, physics, quality):
    """A thousand questions at most of 60,000 combinations, none twice; a split over a GPU costs more of them."""
    machine = make_machine(ram_gib, gpu_gib=gpu_gib, threads=threads)
    estimator = physics(machine)
    evaluation = evaluate(Goal(use="chat"), machine, models, quantizations, estimator, quality)
    assert evaluation.questions == len(estimator.asked) == len(set(estimator.asked))
    assert len(estimator.asked) <= most


def test_a_better_quantization_is_not_bought_with_half_the_speed(
    catalogue, quantizations, make_machine, physics, quality
):
    """On a 24 GiB card Qwen3-32B stays whole on the GPU, though a heavier one would run partly on the CPU."""
    machine = make_machine(64, gpu_gib=(24.0,), gpu_bandwidth=1000e9)
    goal = Goal(use="reasoning", model="qwen3-32b")
    evaluation = evaluate(goal, machine, catalogue.models.values(), quantizations, physics(machine), quality)
    assert evaluation.chosen.settings.gpu_layers == -1
    assert any(option.settings.gpu_layers > 0 for option in evaluation.trade_offs)


def test_a_model_that_cannot_fit_costs_no_question(catalogue, quantizations, make_machine, physics, quality):
    """DeepSeek-R1 on 16 GiB is refused by arithmetic alone, with the bytes that it needs at least."""
    machine = make_machine(16)
    estimator = physics(machine)
    evaluation = evaluate(Goal(), machine, [catalogue.models["deepseek-r1"]], quantizations, estimator, quality)
    assert estimator.asked == []
    assert evaluation.chosen is None
    (lost,) = evaluation.rejected
    assert lost.reason.code == "too-big"
    assert lost.needed_bytes > 100 * GIB


def test_the_arithmetic_bound_is_never_above_what_the_engine_needs(models, quantizations):
    """The least bytes of a recipe stay below the published sizes: 4.79 GiB for Qwen3-8B Q4_K_M, 404 GB for R1."""
    by_model = {model.id: model for model in models}
    by_name = {quantization.name: quantization for quantization in quantizations}
    assert least_bytes(by_model["qwen3-8b"], by_name["Q4_K_M"]) < 4789.19 * (1 << 20)
    assert least_bytes(by_model["deepseek-r1"], by_name["Q4_K_M"]) < 404_000_000_000
    # R1 at 1.58 bits: 131 GB were published for IQ1_S as the lightest usable mix.
    assert least_bytes(by_model["deepseek-r1"], by_name["IQ1_S"]) < 134_000_000_000
    for quantization in quantizations:
        assert least_bytes(by_model["qwen3-8b"], quantization) <= 8.19e9 * quantization.bits_per_weight / 8


@pytest.mark.parametrize("use", ["chat", "code", "reasoning", "documents"])
@pytest.mark.parametrize(("ram_gib", "gpu_gib"), [(6, ()), (24, ()), (28, (12.0,)), (64, (24.0,))])
def test_stopping_as_early_as_the_bound_allows_gives_the_same_winner(
    use, ram_gib, gpu_gib, models, quantizations, make_machine, physics, quality, monkeypatch
):
    """With one model worth keeping the search ends at once where the bound says so, with the winner of the long one."""
    machine = make_machine(ram_gib, gpu_gib=gpu_gib)
    monkeypatch.setattr(policy, "KEEP", len(models))
    long = evaluate(Goal(use=use), machine, models, quantizations, physics(machine), quality)
    monkeypatch.setattr(policy, "KEEP", 1)
    short = evaluate(Goal(use=use), machine, models, quantizations, physics(machine), quality)
    assert short.questions < long.questions
    assert short.chosen.model == long.chosen.model
    assert short.chosen.quantization == long.chosen.quantization
    assert short.chosen.settings == long.chosen.settings


def test_a_mixture_too_large_for_the_gpu_sends_experts_to_the_cpu_and_keeps_attention(
    catalogue, quantizations, make_machine, physics, quality
):
    """Qwen3-30B-A3B on a 12 GiB card: all layers on the GPU, the experts of as few layers as possible on the CPU."""
    machine = make_machine(32, gpu_gib=(12.0,))
    goal = Goal(model="qwen3-30b-a3b", quantization="Q4_K_M")
    chosen = evaluate(goal, machine, catalogue.models.values(), quantizations, physics(machine), quality).chosen
    assert chosen.settings.gpu_layers == -1
    assert 0 < chosen.settings.cpu_moe_layers < 48
    room = next(row.headroom_bytes for row in chosen.memory if not is_host(row))
    expert_layer = 0.9 * chosen.file_bytes / 48
    assert 0 <= room < expert_layer
