"""The split between GPU and CPU is the best there is, found with few questions, whatever the shape of memory use."""

import math

from hypothesis import given
from hypothesis import strategies as st

from planner.choose.placement import Placed, placements
from planner.choose.verdict import judge
from planner.types.estimate import Estimate, Refusal
from planner.types.plan import DeviceMemory, Goal
from planner.types.settings import Settings

GIB = 1 << 30
ROOM = 10 * GIB


def row(device, total, available):
    """A memory row that is all weights."""
    return DeviceMemory(
        device=device,
        weights_bytes=total,
        cache_bytes=0,
        compute_bytes=0,
        overhead_bytes=0,
        total_bytes=total,
        available_bytes=available,
    )


class Layers:
    """A model with layers of given sizes; counts questions. The last ``gpu_layers`` are on the GPU."""

    def __init__(self, make_machine, sizes, experts=0.0):
        self.machine = make_machine(500, gpu_gib=(12.0,))
        self.sizes, self.experts, self.asked = sizes, experts, 0

    def on_gpu(self, gpu_layers, cpu_moe_layers):
        """Bytes that the GPU holds."""
        count = len(self.sizes) if gpu_layers < 0 else gpu_layers
        total = 0.0
        for index, size in enumerate(self.sizes):
            if index >= len(self.sizes) - count:
                total += size * ((1 - self.experts) if index < cpu_moe_layers else 1)
        return int(total)

    def __call__(self, settings):
        """The answer to one question."""
        self.asked += 1
        gpu = self.on_gpu(settings.gpu_layers, settings.cpu_moe_layers)
        rows = (row("CPU", sum(self.sizes) - gpu, 500 * GIB), row("CUDA0", gpu, ROOM))
        estimate = Estimate(file_bytes=sum(self.sizes), memory=rows)
        return Placed(settings, estimate, judge(Goal(reserve_bytes=0), self.machine, estimate))


layer_sizes = st.lists(st.integers(GIB // 100, GIB), min_size=20, max_size=90)
WHOLE = Settings(context_tokens=4096, gpu_layers=-1)


@given(sizes=layer_sizes)
def test_a_dense_model_keeps_the_most_layers_that_fit(sizes, make_machine):
    """One layer more never fits, however uneven the layers are."""
    model = Layers(make_machine, sizes)
    *_, last = placements(WHOLE, model, layers=len(sizes), mixture=False, split="none")
    assert last.gpu_fits
    if last.settings.gpu_layers >= 0:
        assert model.on_gpu(-1, 0) > ROOM
        assert last.settings.load_mode == "none"
        if last.settings.gpu_layers < len(sizes):
            assert model.on_gpu(last.settings.gpu_layers + 1, 0) > ROOM
    else:
        assert model.asked == 1


@given(sizes=layer_sizes, experts=st.floats(0.5, 0.97))
def test_a_mixture_moves_the_fewest_experts_that_suffice(sizes, experts, make_machine):
    """Experts of one layer fewer on the CPU never fit; layers leave only when all experts have left."""
    model = Layers(make_machine, sizes, experts)
    *_, last = placements(WHOLE, model, layers=len(sizes), mixture=True, split="none")
    moved = last.settings.cpu_moe_layers
    assert last.gpu_fits
    if last.settings.gpu_layers == -1 and moved:
        assert model.on_gpu(-1, moved - 1) > ROOM
    if last.settings.gpu_layers >= 0:
        assert model.on_gpu(-1, len(sizes)) > ROOM
        assert model.on_gpu(last.settings.gpu_layers + 1, len(sizes)) > ROOM


@given(size=st.integers(GIB // 8, GIB // 2), layers=st.integers(30, 90))
def test_even_layers_need_few_questions(size, layers, make_machine):
    """With equal layers four questions beside the first find the split."""
    model = Layers(make_machine, [size] * layers)
    list(placements(WHOLE, model, layers=layers, mixture=False, split="none"))
    assert model.asked <= 5


@given(sizes=layer_sizes)
def test_uneven_layers_never_need_more_than_a_bounded_search(sizes, make_machine):
    """At most four questions for each halving."""
    model = Layers(make_machine, sizes)
    list(placements(WHOLE, model, layers=len(sizes), mixture=False, split="none"))
    assert model.asked <= 1 + 4 * math.ceil(math.log2(len(sizes) + 2))


def test_without_a_layer_count_it_is_all_or_nothing(make_machine):
    """A model whose layer count is unknown goes to the CPU when the GPU cannot hold it."""
    model = Layers(make_machine, [GIB] * 20)
    found = list(placements(WHOLE, model, layers=None, mixture=False, split="none"))
    assert [placed.settings.gpu_layers for placed in found] == [-1, 0]


def test_a_refusal_or_a_wish_for_the_whole_ends_the_search(make_machine):
    """An engine that refuses is not asked again; without a split mode only the whole is tried."""
    model = Layers(make_machine, [GIB] * 20)
    assert len(list(placements(WHOLE, model, layers=20, mixture=False, split=None))) == 1
    refused = Placed(WHOLE, Refusal(text="no"), None)
    assert list(placements(WHOLE, lambda _: refused, layers=20, mixture=False, split="none")) == [refused]


def test_what_exceeds_all_memory_together_is_not_split(make_machine):
    """Moving layers cannot help when GPU and RAM together are too small."""
    model = Layers(make_machine, [GIB] * 20)

    def tiny(settings):
        model.asked += 1
        rows = (row("CPU", GIB, 2 * GIB), row("CUDA0", 20 * GIB, ROOM))
        estimate = Estimate(file_bytes=20 * GIB, memory=rows)
        return Placed(settings, estimate, judge(Goal(reserve_bytes=0), model.machine, estimate))

    assert len(list(placements(WHOLE, tiny, layers=20, mixture=False, split="none"))) == 1
    assert model.asked == 1
