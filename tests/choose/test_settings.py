"""Settings, placement and words of single plans: load mode, cache, split, unified memory, trade-offs."""

import msgspec
import pytest

from planner.choose import policy
from planner.choose.evaluate import evaluate
from planner.choose.rank import order_key
from planner.choose.verdict import is_host
from planner.types.plan import Goal

GIB = 1 << 30


def test_repacked_weights_are_not_mapped_and_others_are(catalogue, quantizations, make_machine, physics, quality):
    """Q4_K_M is repacked on a CPU, so it is read into memory; Q6_K is not, so it is mapped: the same bytes."""
    machine = make_machine(32, ram_bandwidth=200e9, threads=32)
    chosen = {}
    for name in ("Q4_K_M", "Q6_K"):
        goal = Goal(model="qwen3-8b", quantization=name)
        chosen[name] = evaluate(
            goal, machine, catalogue.models.values(), quantizations, physics(machine), quality
        ).chosen
    assert chosen["Q4_K_M"].settings.load_mode == "none"
    assert chosen["Q6_K"].settings.load_mode == "mmap"
    assert any("twice" in reason.text for reason in chosen["Q4_K_M"].reasons)


def test_a_load_mode_a_cache_type_and_a_quantization_that_the_user_fixed_are_kept(
    catalogue, quantizations, make_machine, physics, quality
):
    """Nothing that the goal names is changed, though another choice would be better."""
    machine = make_machine(64, ram_bandwidth=300e9, threads=64)
    goal = Goal(model="qwen3-8b", quantization="q4_k_m", load_mode="mmap", cache_type="q8_0", context_tokens=4096)
    chosen = evaluate(goal, machine, catalogue.models.values(), quantizations, physics(machine), quality).chosen
    assert (chosen.model, chosen.quantization) == ("qwen3-8b", "Q4_K_M")
    assert chosen.settings.load_mode == "mmap"
    assert (chosen.settings.cache_type_k, chosen.settings.cache_type_v) == ("q8_0", "q8_0")
    assert chosen.settings.context_tokens == 4096


def test_the_cache_is_quantized_only_where_f16_does_not_fit(catalogue, quantizations, make_machine, physics, quality):
    """With room the cache stays f16; when memory shrinks it goes to q8_0 before the context shrinks."""
    seen = []
    for gib in (16.0, 11.5, 10.0, 9.0, 8.0, 6.5):
        machine = make_machine(gib, ram_bandwidth=300e9, threads=64)
        goal = Goal(model="qwen3-8b", quantization="Q4_K_M", use="code")
        chosen = evaluate(goal, machine, catalogue.models.values(), quantizations, physics(machine), quality).chosen
        seen.append((chosen.settings.context_tokens, chosen.settings.cache_type_k))
    assert seen[0] == (32768, "f16")
    assert (32768, "q8_0") in seen
    assert seen == sorted(seen, key=lambda pair: (-pair[0], ["f16", "q8_0", "q4_0"].index(pair[1])))
    assert seen[-1][0] < 32768


def test_a_dense_model_too_large_for_the_gpu_keeps_as_many_layers_there_as_fit(
    catalogue, quantizations, make_machine, physics, quality
):
    """The split is maximal: one layer more on the GPU would not fit, and what was not split would not either."""
    machine = make_machine(64, gpu_gib=(12.0,), ram_bandwidth=200e9, threads=32)
    goal = Goal(model="qwen3-32b", quantization="Q4_K_M", min_tokens_per_s=1.0, cache_type="f16", context_tokens=8192)
    estimator = physics(machine)
    chosen = evaluate(goal, machine, catalogue.models.values(), quantizations, estimator, quality).chosen
    layers = chosen.settings.gpu_layers
    assert 0 < layers < 64
    model, quantization = catalogue.models["qwen3-32b"], catalogue.quantizations["Q4_K_M"]
    one_more = estimator(model, quantization, msgspec.structs.replace(chosen.settings, gpu_layers=layers + 1))
    gpu = next(row for row in one_more.memory if not is_host(row))
    reserve = policy.reserve_bytes(goal, machine, host=False, available_bytes=gpu.available_bytes)
    assert gpu.total_bytes > gpu.available_bytes - reserve
    assert any(f"{layers} layers are on the GPU" in reason.text for reason in chosen.reasons)


def test_a_split_that_fills_both_memories_almost_to_the_brim_is_found(
    catalogue, quantizations, make_machine, physics, quality
):
    """GPU and RAM together have one GiB more than the model needs: it is split and fits, not given up as too big."""
    machine = make_machine(11.0, gpu_gib=(12.0,), ram_bandwidth=200e9, threads=32)
    goal = Goal(model="qwen3-32b", quantization="Q4_K_M", min_tokens_per_s=1.0, cache_type="f16", context_tokens=8192)
    chosen = evaluate(goal, machine, catalogue.models.values(), quantizations, physics(machine), quality).chosen
    assert chosen is not None
    assert sum(row.headroom_bytes for row in chosen.memory) < 1.5 * GIB


def test_an_engine_that_cannot_offload_plans_for_the_cpu(catalogue, quantizations, make_machine, physics, quality):
    """A GPU that the engine was not built for is left alone."""
    machine = make_machine(32, gpu_gib=(24.0,), offload=False, ram_bandwidth=100e9)
    chosen = evaluate(Goal(), machine, catalogue.models.values(), quantizations, physics(machine), quality).chosen
    assert chosen.settings.gpu_layers == 0
    assert [row.device for row in chosen.memory] == ["CPU"]


def test_unified_memory_is_one_budget_without_a_split(catalogue, quantizations, make_machine, physics, quality):
    """On unified memory everything is on the GPU and nothing is split; the reserve is that of RAM."""
    machine = make_machine(52, gpu_gib=(48.0,), unified=True)
    evaluation = evaluate(Goal(), machine, catalogue.models.values(), quantizations, physics(machine), quality)
    assert all(candidate.settings.gpu_layers == -1 for candidate in evaluation.ranked)
    assert all(candidate.settings.cpu_moe_layers == 0 for candidate in evaluation.ranked)
    assert evaluation.chosen.memory[0].reserve_bytes > 3 * GIB


def test_a_gpu_of_unknown_memory_promises_nothing(catalogue, quantizations, make_machine, physics, quality):
    """Where a device does not say how much it has, no plan is made, and the reason says so."""
    machine = make_machine(16, gpu_gib=(8.0,))
    blind = msgspec.structs.replace(
        machine,
        gpus=(msgspec.structs.replace(machine.gpus[0], memory_total_bytes=None, memory_free_bytes=None),),
    )
    evaluation = evaluate(Goal(), blind, [catalogue.models["qwen3-0.6b"]], quantizations, physics(blind), quality)
    assert evaluation.chosen is None
    assert "unknown" in evaluation.rejected[0].reason.text


def test_an_unknown_speed_is_no_reason_to_refuse(catalogue, quantizations, make_machine, physics, quality):
    """Without any known bandwidth of a GPU the plan still stands on memory and says that speed is unknown."""
    machine = make_machine(32, gpu_gib=(24.0,), gpu_bandwidth=None)
    evaluation = evaluate(Goal(), machine, catalogue.models.values(), quantizations, physics(machine), quality)
    assert evaluation.chosen is not None
    whole = [candidate for candidate in evaluation.ranked if candidate.speed.generate is None]
    assert whole
    assert any("not known" in reason.text for candidate in whole for reason in candidate.reasons)


def test_a_refusal_of_the_engine_is_skipped_and_told(catalogue, quantizations, make_machine, physics, quality):
    """A recipe that the engine refuses is noted, and another quantization of the model is found."""
    machine = make_machine(32, ram_bandwidth=200e9, threads=32)
    estimator = physics(machine, refuse=lambda _, quantization, __: not quantization.name.startswith("Q4"))
    goal = Goal(model="qwen3-8b")
    evaluation = evaluate(goal, machine, catalogue.models.values(), quantizations, estimator, quality)
    assert evaluation.chosen.quantization.startswith("Q4")
    refused = {entry.quantization for entry in evaluation.considered if entry.reason.code == "engine-refused"}
    assert "Q8_0" in refused


def test_nothing_that_meets_the_goal_is_a_value_with_reasons(catalogue, quantizations, make_machine, physics, quality):
    """A floor that no machine reaches gives no choice and a reason for each model; nothing is raised."""
    machine = make_machine(16)
    goal = Goal(min_tokens_per_s=100_000.0)
    evaluation = evaluate(goal, machine, catalogue.models.values(), quantizations, physics(machine), quality)
    assert evaluation.chosen is None
    assert evaluation.trade_offs == ()
    assert (evaluation.ranked, evaluation.pareto) == ((), ())
    assert {lost.reason.code for lost in evaluation.rejected} <= {"too-slow", "too-big", "family"}
    assert len(evaluation.rejected) == len(catalogue.models)


def test_trade_offs_are_other_settings_of_the_winner_and_say_what_they_trade(
    catalogue, quantizations, make_machine, physics, quality
):
    """Each is of the winner's model, differs from it, and names in words what it gives and takes."""
    machine = make_machine(64, gpu_gib=(24.0,))
    evaluation = evaluate(Goal(), machine, catalogue.models.values(), quantizations, physics(machine), quality)
    assert evaluation.trade_offs
    for option in evaluation.trade_offs:
        assert option.model == evaluation.chosen.model
        assert (option.quantization, option.settings) != (evaluation.chosen.quantization, evaluation.chosen.settings)
        assert option.reasons[0].code == "trade-off"
        assert any(word in option.reasons[0].text for word in ("index", "faster", "slower", "context"))


def test_a_long_enough_memory_offers_a_longer_context(catalogue, quantizations, make_machine, physics, quality):
    """The winner's longest context that fits is a trade-off, and never one that the user did not leave open."""
    machine = make_machine(64, ram_bandwidth=300e9, threads=64)
    models = [catalogue.models["qwen3-4b-instruct-2507"]]
    open_goal = evaluate(Goal(), machine, models, quantizations, physics(machine), quality)
    longest = max(option.settings.context_tokens for option in open_goal.trade_offs)
    assert longest > open_goal.chosen.settings.context_tokens
    fixed = evaluate(Goal(context_tokens=8192), machine, models, quantizations, physics(machine), quality)
    assert all(option.settings.context_tokens == 8192 for option in fixed.trade_offs)


def test_the_order_is_total(catalogue, quantizations, make_machine, physics, quality):
    """No two candidates of an evaluation share a sort key."""
    machine = make_machine(64, gpu_gib=(24.0,))
    evaluation = evaluate(Goal(), machine, catalogue.models.values(), quantizations, physics(machine), quality)
    everything = (*evaluation.ranked, *evaluation.trade_offs)
    assert len({order_key(candidate) for candidate in everything}) == len(everything)


def test_a_mapped_file_without_a_repacked_copy_is_taken_where_both_do_not_fit(
    catalogue, quantizations, make_machine, physics, quality
):
    """Whoever asks for mmap on a CPU gets the weights once when twice is too much, and twice when there is room."""
    goal = Goal(model="qwen3-8b", quantization="Q4_K_M", load_mode="mmap", context_tokens=4096, cache_type="f16")

    def chosen(gib):
        machine = make_machine(gib, ram_bandwidth=300e9, threads=64)
        return evaluate(goal, machine, catalogue.models.values(), quantizations, physics(machine), quality).chosen

    assert chosen(16.0).settings.repack
    tight = chosen(7.5)
    assert not tight.settings.repack
    assert tight.settings.load_mode == "mmap"


def test_the_micro_batch_shrinks_before_cache_or_context_and_only_where_it_must(
    catalogue, quantizations, make_machine, physics, quality
):
    """As memory shrinks by small steps the first thing to give is the micro-batch."""
    goal = Goal(model="qwen3-8b", quantization="Q4_K_M", use="chat")
    seen = []
    for step in range(60):
        machine = make_machine(8.0 - step / 40, ram_bandwidth=300e9, threads=64)
        chosen = evaluate(
            goal, machine, [catalogue.models["qwen3-8b"]], quantizations, physics(machine), quality
        ).chosen
        settings = chosen.settings
        seen.append((settings.context_tokens, settings.cache_type_k, settings.ubatch))
    assert seen[0] == (8192, "f16", 512)
    changed = next(each for each in seen if each != seen[0])
    assert changed == (8192, "f16", 256)


def test_a_roomy_gpu_reads_long_prompts_in_larger_micro_batches(
    catalogue, quantizations, make_machine, physics, quality
):
    """Where documents are read and the card has room; a chat keeps the default, and so does the score."""
    machine = make_machine(64, gpu_gib=(24.0,))
    model = [catalogue.models["qwen3-8b"]]

    def chosen(use, context):
        goal = Goal(model="qwen3-8b", quantization="Q4_K_M", use=use, context_tokens=context)
        return evaluate(goal, machine, model, quantizations, physics(machine), quality).chosen

    assert chosen("documents", 16384).settings.ubatch == 2048
    assert chosen("chat", 16384).settings.ubatch == 512
    assert any("2048 tokens at a time" in reason.text for reason in chosen("documents", 16384).reasons)


@pytest.mark.parametrize("gpu_gib", [(), (12.0,), (12.0, 8.0)])
@pytest.mark.parametrize("reserve_gib", [0.0, 1.0, 3.0])
def test_a_stated_reserve_is_kept_on_every_device(
    gpu_gib, reserve_gib, models, quantizations, make_machine, physics, quality
):
    """What --reserve says is left free on each device of the plan, none of it and much of it alike."""
    machine = make_machine(16, gpu_gib=gpu_gib)
    reserve = int(reserve_gib * GIB)
    goal = Goal(reserve_bytes=reserve)
    evaluation = evaluate(goal, machine, models, quantizations, physics(machine), quality)
    assert evaluation.chosen is not None
    for candidate in (*evaluation.ranked, *evaluation.trade_offs, *evaluation.pareto):
        for row in candidate.memory:
            assert row.reserve_bytes == reserve
            assert row.total_bytes + reserve <= row.available_bytes


def test_a_reserve_beyond_all_memory_leaves_nothing(models, quantizations, make_machine, physics, quality):
    """A reserve larger than the machine is obeyed: nothing fits, and the reasons name it."""
    machine = make_machine(16, gpu_gib=(12.0,))
    goal = Goal(reserve_bytes=64 * GIB)
    evaluation = evaluate(goal, machine, models, quantizations, physics(machine), quality)
    assert evaluation.chosen is None
    assert any(rejected.reason.code == "too-big" for rejected in evaluation.rejected)


def test_memory_that_another_process_holds_on_a_card_is_not_planned_with(
    catalogue, quantizations, make_machine, physics, quality
):
    """Free counts, not total: a card with 20 of 24 GiB taken is a card of 4 GiB."""
    machine = make_machine(64, gpu_gib=(24.0,))
    taken = (msgspec.structs.replace(machine.gpus[0], memory_free_bytes=4 * GIB),)
    busy = msgspec.structs.replace(machine, gpus=taken)
    goal = Goal(model="qwen3-14b", quantization="Q4_K_M", min_tokens_per_s=1.0)
    models = [catalogue.models["qwen3-14b"]]
    free = evaluate(goal, machine, models, quantizations, physics(machine), quality).chosen
    held = evaluate(goal, busy, models, quantizations, physics(busy), quality).chosen
    assert free.settings.gpu_layers == -1
    assert 0 <= held.settings.gpu_layers < 40
    assert all(row.available_bytes <= 4 * GIB for row in held.memory if not is_host(row))
