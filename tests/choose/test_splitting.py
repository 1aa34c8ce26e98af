"""The split that arithmetic proposes: it fits, nothing smaller does, and the causes of real out-of-memory reports."""

from itertools import accumulate, combinations_with_replacement

import msgspec
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from planner.choose.evaluate import evaluate
from planner.choose.splitting import Outline
from planner.choose.verdict import is_host, judge
from planner.types.estimate import Estimate, LayerSize
from planner.types.plan import DeviceMemory, Goal
from planner.types.settings import Settings

GIB = 1 << 30
MIB = 1 << 20
WHOLE = Settings(context_tokens=4096)


def row(device, weights, cache, compute, available):
    """A memory row of four parts."""
    return DeviceMemory(
        device=device,
        weights_bytes=weights,
        cache_bytes=cache,
        compute_bytes=compute,
        overhead_bytes=0,
        total_bytes=weights + cache + compute,
        available_bytes=available,
    )


class Cards:
    """A model on cards of equal size, all layers on the first: what an answer about it looks like."""

    def __init__(self, make_machine, sizes, rooms, *, head=0, compute=0):
        self.machine = make_machine(500, gpu_gib=tuple(room / GIB for room in rooms))
        self.sizes, self.rooms, self.head, self.compute = sizes, rooms, head, compute
        weights = sum(sum(size) for size in sizes) + head
        names = tuple(f"CUDA{index}" for index in range(len(rooms)))
        first = row(names[0], weights, 0, compute, rooms[0])
        rest = [row(name, 0, 0, 0, room) for name, room in zip(names[1:], rooms[1:], strict=True)]
        self.estimate = Estimate(
            file_bytes=weights, memory=(first, *rest), layers=tuple(sizes), head_bytes=head, devices=names
        )
        self.settings = msgspec.structs.replace(WHOLE, tensor_split=(1.0, *[0.0] * (len(rooms) - 1)))

    def propose(self):
        """The proposal."""
        judged = judge(Goal(reserve_bytes=0), self.machine, self.estimate)
        return Outline.of(self.estimate, self.machine.gpus).propose(self.settings, judged)

    def items(self, gpu_layers, experts):
        """Bytes in order of what goes to the cards."""
        sizes = [dense + (0 if i < experts else routed) for i, (dense, routed) in enumerate(self.sizes)]
        offloaded = len(sizes) + 1 if gpu_layers < 0 else gpu_layers
        return [*sizes, self.head][len(sizes) + 1 - offloaded :]

    def fits_somehow(self, gpu_layers, experts):
        """By trying every border: whether some split holds."""
        sums = [0, *accumulate(self.items(gpu_layers, experts))]
        last = len(sums) - 1
        for borders in combinations_with_replacement(range(last + 1), len(self.rooms) - 1):
            cuts = [0, *borders, last]
            used = zip(cuts, cuts[1:], self.rooms, strict=False)
            if all(a == b or sums[b] - sums[a] + self.compute <= room for a, b, room in used):
                return True
        return False


_sizes = st.lists(st.tuples(st.integers(1, 50), st.integers(0, 400)), min_size=2, max_size=9)
_rooms = st.lists(st.integers(50, 1200), min_size=1, max_size=3)


@given(sizes=_sizes, rooms=_rooms, head=st.integers(0, 100), compute=st.integers(0, 40))
def test_a_proposal_fits_and_nothing_that_moves_less_does(sizes, rooms, head, compute, make_machine):
    """Against every border there is: the counts hold on each card, and one layer or expert less never would."""
    assume(all(room > compute for room in rooms))
    cards = Cards(
        make_machine,
        [LayerSize(dense * MIB, experts * MIB) for dense, experts in sizes],
        [room * MIB for room in rooms],
        head=head * MIB,
        compute=compute * MIB,
    )
    split = cards.propose()
    layers = len(sizes)
    mixture = any(experts for _, experts in sizes)
    if split is None:
        assert not cards.fits_somehow(1, layers if mixture else 0)
        return
    items = cards.items(split.gpu_layers, split.cpu_moe_layers)
    counts = [int(count) for count in split.tensor_split] or [len(items)]
    assert sum(counts) == len(items)
    ends = list(accumulate(counts))
    for end, count, room in zip(ends, counts, cards.rooms, strict=True):
        assert count == 0 or sum(items[end - count : end]) + cards.compute <= room
    if split.gpu_layers == -1 and split.cpu_moe_layers:
        assert not cards.fits_somehow(-1, split.cpu_moe_layers - 1)
    if split.gpu_layers >= 0:
        one_more = split.gpu_layers + 1 if split.gpu_layers < layers else -1
        assert not cards.fits_somehow(one_more, split.cpu_moe_layers)


def test_two_cards_share_so_that_both_have_room(make_machine):
    """The proposal does not fill the first card to the brim and leave the second empty."""
    cards = Cards(make_machine, [LayerSize(GIB, 0)] * 12, [10 * GIB, 10 * GIB])
    assert cards.propose().tensor_split in {(6.0, 7.0), (7.0, 6.0)}


@pytest.mark.parametrize("gpu_gib", [(24.0, 24.0), (24.0, 12.0), (12.0, 24.0), (8.0, 8.0, 8.0)])
def test_experts_on_the_cpu_do_not_empty_one_card_and_overflow_another(
    gpu_gib, catalogue, quantizations, make_machine, physics, quality
):
    """llama.cpp issue 15136: experts of the first layers leave the first card alone; the split follows them."""
    machine = make_machine(200, gpu_gib=gpu_gib)
    goal = Goal(model="qwen3-235b-a22b", quantization="Q4_K_M", min_tokens_per_s=0.1, max_answer_seconds=1e6)
    chosen = evaluate(goal, machine, catalogue.models.values(), quantizations, physics(machine), quality).chosen
    assert chosen.settings.gpu_layers == -1
    assert sum(chosen.settings.tensor_split) == 95
    rooms = [each.headroom_bytes for each in chosen.memory if not is_host(each)]
    expert_layer = 0.9 * chosen.file_bytes / 94
    assert all(0 <= room < 2 * expert_layer for room in rooms)


def test_a_model_that_fits_by_another_split_stays_on_the_cards(
    catalogue, quantizations, make_machine, physics, quality
):
    """Free memory of 20 and 12 GiB splits a model so that one card overflows; whole layers moved over make it fit."""
    held = make_machine(64, gpu_gib=(13.0, 9.6))
    goal = Goal(model="qwen3-32b", quantization="Q4_K_M", context_tokens=4096, cache_type="f16", reserve_bytes=0)
    chosen = evaluate(goal, held, catalogue.models.values(), quantizations, physics(held), quality).chosen
    assert chosen.settings.gpu_layers == -1
    assert all(each.headroom_bytes >= 0 for each in chosen.memory)
