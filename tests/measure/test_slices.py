"""Slices: what was put in comes out, noise stays within the interval, and the choice of slices is sound."""

import random
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner.measure.linear import minimum_norm_weights
from planner.measure.slices import (
    Slice,
    SlicePlan,
    compose,
    kinds_of_layers,
    outside_bytes,
    plan_slices,
    retyped,
    weights_bytes,
)
from planner.types.model import Layout, TensorSpec

LayoutOf = Callable[..., Layout]


def plan_of(tiny: LayoutOf, layers: int = 32, other: str = "F16", cache_bytes: int = 0) -> SlicePlan:
    """The slices of a tiny model with two kinds of layer."""
    whole = tiny(range(layers), other=other)
    plan = plan_slices(whole, cache_bytes=cache_bytes, budget_bytes=weights_bytes(whole))
    assert plan is not None
    return plan


def seconds(row: tuple[float, ...], costs: tuple[float, ...]) -> float:
    """Time of a slice (or of the whole) by the model: base + Σ count × cost."""
    return sum(count * cost for count, cost in zip(row, costs, strict=True))


costs = st.tuples(
    st.floats(min_value=1e3, max_value=1e9),
    st.floats(min_value=1e5, max_value=1e8),
    st.floats(min_value=1e5, max_value=1e8),
)


@given(costs, st.integers(min_value=12, max_value=80))
def test_composing_exact_times_gives_the_whole_exactly(
    tiny: LayoutOf, costs: tuple[float, float, float], layers: int
) -> None:
    """Without noise the composed time is the true one, whatever base and layers cost."""
    plan = plan_of(tiny, layers)
    samples = [[seconds(each.counts, costs)] * 3 for each in plan.slices]
    composed = compose(plan, samples)
    assert composed is not None
    assert composed.middle == pytest.approx(seconds(plan.whole, costs), rel=1e-6)
    assert composed.rounds == pytest.approx([composed.middle] * 3)


@pytest.mark.parametrize("repetitions", [3, 5, 7])
@pytest.mark.parametrize("noise", [0.01, 0.03])
def test_the_interval_covers_the_truth_when_times_are_noisy(tiny: LayoutOf, repetitions: int, noise: float) -> None:
    """In at least 75 % of 600 noisy runs the truth lies in the 80 % interval."""
    chance = random.Random(f"{repetitions} {noise}")  # noqa: S311 - noise, no secret
    plan = plan_of(tiny, 36)
    truth = (5e6, 1.0e6, 1.4e6)
    covered = tried = 0
    for _ in range(600):
        samples = [
            [seconds(each.counts, truth) * chance.gauss(1, noise) for _ in range(repetitions)] for each in plan.slices
        ]
        composed = compose(plan, samples)
        if composed is not None:
            tried += 1
            covered += composed.low <= seconds(plan.whole, truth) <= composed.high
    assert tried > 590
    assert covered / tried >= 0.75


def test_the_interval_is_not_so_wide_that_it_says_nothing(tiny: LayoutOf) -> None:
    """With 1 % noise and five repetitions the half width stays below 10 %."""
    chance = random.Random(3)  # noqa: S311 - noise, no secret
    plan = plan_of(tiny, 36)
    truth = (5e6, 1.0e6, 1.4e6)
    samples = [[seconds(each.counts, truth) * chance.gauss(1, 0.01) for _ in range(5)] for each in plan.slices]
    composed = compose(plan, samples)
    assert composed is not None
    assert (composed.high - composed.low) / 2 < 0.1 * composed.middle


@given(st.floats(min_value=1e-3, max_value=1e3))
def test_a_slower_machine_scales_the_composed_time(tiny: LayoutOf, factor: float) -> None:
    """Twice the time everywhere is twice the whole, with the same relative interval."""
    plan = plan_of(tiny)
    base = [[100.0 + 10 * len(each.layers) + step for step in range(3)] for each in plan.slices]
    one, other = compose(plan, base), compose(plan, [[value * factor for value in each] for each in base])
    assert one is not None
    assert other is not None
    assert other.middle == pytest.approx(one.middle * factor)
    assert other.high / other.middle == pytest.approx(one.high / one.middle)


def test_noise_that_eats_the_differences_gives_no_answer(tiny: LayoutOf) -> None:
    """Slices that seem to take longer the shorter they are determine nothing."""
    plan = plan_of(tiny)
    assert compose(plan, [[300.0, 310.0, 290.0], [100.0, 110.0, 90.0], [100.0, 90.0, 110.0]]) is None


def test_a_kind_of_layer_that_no_slice_contains_gives_no_answer() -> None:
    """Unknown is None, not an extrapolation."""
    slices = (Slice((0,), (1.0, 1.0, 0.0)), Slice((0, 1), (1.0, 2.0, 0.0)))
    plan = SlicePlan(slices, (1.0, 4.0, 4.0), 8, merged=False)
    assert compose(plan, [[1.0, 1.0, 1.0], [2.0, 2.0, 2.0]]) is None


def test_kinds_that_always_come_together_need_no_slice_each() -> None:
    """Two slices suffice when the whole keeps their proportion, although no single cost can be solved for."""
    weights = minimum_norm_weights([(1.0, 1.0, 1.0), (1.0, 4.0, 4.0)], (1.0, 18.0, 18.0), scales=[1.0, 1.0])
    assert weights == pytest.approx((-14 / 3, 17 / 3))


@given(
    st.lists(
        st.tuples(st.just(1.0), st.integers(0, 9).map(float), st.integers(0, 9).map(float)), min_size=3, max_size=5
    ),
    st.lists(st.floats(min_value=-3, max_value=3), min_size=5, max_size=5),
)
def test_weights_reproduce_every_row_that_can_be_reached(
    rows: list[tuple[float, float, float]], mixture: list[float]
) -> None:
    """Any combination of rows is found again, singular or not."""
    whole = [sum(w * row[i] for w, row in zip(mixture, rows, strict=False)) for i in range(3)]
    weights = minimum_norm_weights(rows, whole, scales=[1.0] * len(rows))
    assert weights is not None
    for column in range(3):
        reached = sum(w * row[column] for w, row in zip(weights, rows, strict=True))
        assert reached == pytest.approx(whole[column], abs=1e-4)


def test_types_make_kinds_although_shapes_are_equal(tiny: LayoutOf) -> None:
    """Even and odd layers differ only in type, and are two kinds."""
    kinds = kinds_of_layers(tiny(range(6)))
    assert len(set(kinds)) == 2
    assert kinds[0] == kinds[2] != kinds[1]


def test_every_slice_counts_the_head_once_and_is_an_ascending_choice_of_layers(tiny: LayoutOf) -> None:
    """The first entry of each row is 1; layers ascend, as the catalogue demands."""
    plan = plan_of(tiny)
    for each in plan.slices:
        assert each.counts[0] == 1.0
        assert list(each.layers) == sorted(each.layers)
        assert len(each.layers) == sum(each.counts[1:])
    assert sum(plan.whole[1:]) == plan.layers_total == 32


@given(st.integers(min_value=0, max_value=3_000_000))
def test_no_slice_fits_into_the_last_level_cache(tiny: LayoutOf, cache_bytes: int) -> None:
    """Every slice is at least four times the cache, or there is no plan."""
    whole = tiny(range(40))
    plan = plan_slices(whole, cache_bytes=cache_bytes, budget_bytes=4 * weights_bytes(whole))
    if plan is None:
        return
    for each in plan.slices:
        assert weights_bytes(retyped(tiny(each.layers), whole)) >= 4 * cache_bytes


@given(st.integers(min_value=1, max_value=200_000_000))
def test_slices_stay_within_their_budget(tiny: LayoutOf, budget_bytes: int) -> None:
    """All slices together take no more than was allowed."""
    whole = tiny(range(60))
    plan = plan_slices(whole, cache_bytes=0, budget_bytes=budget_bytes)
    if plan is not None:
        assert sum(weights_bytes(retyped(tiny(each.layers), whole)) for each in plan.slices) <= budget_bytes


def test_a_slice_keeps_the_types_of_the_layers_that_it_took(tiny: LayoutOf) -> None:
    """Block 1 of a slice of layers 0 and 3 has layer 3's types, not layer 1's of another recipe."""
    whole = tiny(range(8), kind="Q8_0", other="F16")
    part = retyped(tiny((0, 3), kind="F32", other="F32"), whole)
    types = {tensor.name: tensor.type for tensor in part.tensors}
    assert types["blk.0.ffn_down.weight"] == "Q8_0"
    assert types["blk.1.ffn_down.weight"] == "F16"
    assert types["blk.1.ffn_norm.weight"] == "F32"


def test_a_model_that_is_hardly_longer_than_its_slices_is_not_sliced(tiny: LayoutOf) -> None:
    """Three layers: time them."""
    assert plan_slices(tiny(range(3)), cache_bytes=0, budget_bytes=1 << 40) is None


def test_a_prefix_of_other_layers_is_in_every_slice(tiny: LayoutOf) -> None:
    """One dense layer before many others (as in DeepSeek) is part of the base of each slice."""
    whole = tiny(range(30), other="Q8_0")
    tensors = tuple(
        tensor for tensor in whole.tensors if not (tensor.name.startswith("blk.0.") and "q_norm" in tensor.name)
    )
    odd = Layout(architecture="x", metadata=whole.metadata, tensors=tensors, layers=whole.layers)
    plan = plan_slices(odd, cache_bytes=0, budget_bytes=1 << 40)
    assert plan is not None
    assert all(each.layers[0] == 0 and each.counts[2] == 1.0 for each in plan.slices)


def test_a_hybrid_is_cut_at_whole_periods(tiny: LayoutOf) -> None:
    """Every fourth layer differs in structure: slices hold multiples of four, each with one such layer."""
    whole = tiny(range(32), other="Q8_0")
    tensors = tuple(
        tensor
        for tensor in whole.tensors
        if not (tensor.name.startswith("blk.") and int(tensor.name.split(".")[1]) % 4 == 3 and "k_norm" in tensor.name)
    )
    hybrid = Layout(architecture="x", metadata=whole.metadata, tensors=tensors, layers=whole.layers)
    plan = plan_slices(hybrid, cache_bytes=0, budget_bytes=1 << 40)
    assert plan is not None
    for each in plan.slices:
        assert [layer % 4 for layer in each.layers] == [0, 1, 2, 3] * (len(each.layers) // 4)


def test_layers_that_fill_no_period_are_in_every_slice(tiny: LayoutOf) -> None:
    """A last layer of another structure (Kimi-K3 attends in its last two) does not forbid slices; it joins each."""
    whole = tiny(range(34), other="Q8_0")
    odd = (3, 7, 11, 15, 19, 23, 27, 31, 33)
    tensors = tuple(
        tensor
        for tensor in whole.tensors
        if not (tensor.name.startswith("blk.") and int(tensor.name.split(".")[1]) in odd and "k_norm" in tensor.name)
    )
    hybrid = Layout(architecture="x", metadata=whole.metadata, tensors=tensors, layers=whole.layers)
    plan = plan_slices(hybrid, cache_bytes=0, budget_bytes=1 << 40)
    assert plan is not None
    for each in plan.slices:
        assert each.layers[-2:] == (32, 33)
        assert [layer % 4 for layer in each.layers[:-2]] == [0, 1, 2, 3] * (len(each.layers) // 4)
    assert sum(plan.whole[1:]) == 8 + 2


def test_layers_that_only_the_metadata_tells_apart_are_kinds(tiny: LayoutOf) -> None:
    """One layer in four indexes (GLM-5.2): equal tensors, another cost. A list of another length says nothing."""
    whole = tiny(range(24), other="Q8_0")
    lists = {"x.indexer": tuple(at % 4 == 2 for at in range(24)), "x.sections": (11, 11, 10, 0)}
    layout = Layout(architecture="x", metadata={**whole.metadata, **lists}, tensors=whole.tensors, layers=whole.layers)
    kinds = kinds_of_layers(layout)
    assert len(set(kinds)) == 2
    assert kinds[2] == kinds[6] != kinds[3]
    plan = plan_slices(layout, cache_bytes=0, budget_bytes=1 << 40)
    assert plan is not None
    for each in plan.slices:
        assert sum(layer % 4 == 2 for layer in each.layers) == len(each.layers) / 4
    assert kinds_of_layers(whole)[0] == kinds_of_layers(whole)[2]


def test_a_table_that_slices_hold_in_part_leaves_them_their_budget(tiny: LayoutOf) -> None:
    """What a slice holds besides its layers may be told; the whole's own amount is the default."""
    whole = tiny(range(40))
    budget = weights_bytes(whole) // 3
    bulky = TensorSpec(name="table.weight", dims=(256, 1 << 20), type="Q8_0")
    layout = Layout(architecture="x", metadata=whole.metadata, tensors=(*whole.tensors, bulky), layers=whole.layers)
    assert plan_slices(layout, cache_bytes=0, budget_bytes=budget) is None
    once = outside_bytes(whole)
    assert plan_slices(layout, cache_bytes=0, budget_bytes=budget, once_bytes=once) == plan_slices(
        whole, cache_bytes=0, budget_bytes=budget
    )
