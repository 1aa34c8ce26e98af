"""An explanation adds up to the byte, whatever is explained, and says so where it does not know."""

from functools import partial

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner import catalogue, machine
from planner.engine.answers import Buffer, Buffers
from planner.engine.child import EngineChild
from planner.engine.devices import phantom_devices
from planner.engine.holdings import HeldCache, HeldTensor, Holdings, holdings
from planner.engine.oracle import Oracle
from planner.estimate.devices import memory_on_devices
from planner.estimate.explain import explain
from planner.estimate.groups import layer_kinds, part_of
from planner.estimate.memory import host_memory
from planner.estimate.rows import device_row
from planner.types.plan import Candidate, Speeds
from planner.types.settings import Settings

KNOWN = catalogue.load()
UNKNOWN = {"unaccounted", "unknown-cache"}

# The smallest model of each architecture: dense, mixtures, MLA, delta nets, windows, indexers, tied, with MTP blocks.
SUBJECTS = {model.architecture: model.id for model in sorted(KNOWN.models.values(), key=lambda each: -each.parameters)}
ON_CARDS = ("qwen2", "qwen35", "qwen3moe", "deepseek2", "deepseek4", "deepseek32", "kimi-linear", "glm4moe", "llama")
SETTINGS = (
    Settings(context_tokens=8192, parallel=2),
    Settings(context_tokens=4096, load_mode="none", cpu_moe_layers=2, gpu_layers=9),
)


def candidate(settings, memory):
    """A candidate whose only fact of interest is its memory."""
    return Candidate(
        model="m", quantization="q", settings=settings, file_bytes=0, memory=tuple(memory), speed=Speeds(),
        verdict="fits", score=0.0,
    )  # fmt: skip


@pytest.fixture(scope="module")
def child():
    """One child for the whole module."""
    with EngineChild() as running:
        yield running


@pytest.fixture(scope="module")
def explained(child, tmp_path_factory):
    """A real model's estimate taken apart: on the CPU alone, or with the GPUs of a shipped machine."""
    folder = tmp_path_factory.mktemp("answers")

    def told(name, settings, on=None, quantization="Q4_K_M"):
        model, recipe, found = KNOWN.model(name), KNOWN.quantization(quantization), machine.load(on or "rtx-4090")
        key, source = KNOWN.shape_key(model), partial(KNOWN.layout, model)
        with Oracle(child, folder=folder, devices=phantom_devices(found.gpus) if on else ()) as oracle:
            weights = oracle.weights(key, source, recipe, settings)
            (full,) = oracle.buffers(key, source, [settings], recipe)
            held = holdings(oracle, key, source, recipe, settings)
        if on is None:
            memory = (host_memory(settings, weights, full, full, process_bytes=1 << 25, available_bytes=None),)
        else:
            memory = memory_on_devices(found, settings, weights, full, process_bytes=1 << 25, origin="phantom")
        return explain(candidate(settings, memory), held, full)

    return told


def by_name(explanation, name):
    """The parts of that name, with their devices."""
    return {device.device: part for device in explanation.devices for part in device.parts if part.name == name}


def check(explanation, name):
    """Each part is known by name, each device adds up, and nothing is left over."""
    for device in explanation.devices:
        assert sum(part.size_bytes for part in device.parts) == device.total_bytes, name
        assert not [part for part in device.parts if part.name in UNKNOWN], name
        # A table of rotation factors is neither attention nor anything else; no other name is new.
        assert sum(part.size_bytes for part in device.parts if part.name == "other") <= 512, name
        # A part that is never told by tensors would add up, too.
        assert all(part.tensors and part.types for part in device.parts if is_weights(part)), name


@pytest.mark.engine
@pytest.mark.parametrize("name", SUBJECTS.values(), ids=SUBJECTS)
def test_every_architecture_is_explained_to_the_byte(explained, name):
    """On the CPU, the file mapped and partly repacked, two sequences."""
    check(explained(name, SETTINGS[0]), name)


@pytest.mark.engine
@pytest.mark.parametrize("architecture", ON_CARDS)
def test_two_cards_and_the_host_are_explained_to_the_byte(explained, architecture):
    """Nine layers on two cards, some experts on the host, nothing mapped."""
    check(explained(SUBJECTS[architecture], SETTINGS[1], "2x-rtx-3090"), architecture)


def test_the_catalogue_is_broad():
    """The evidence above is only as good as its breadth."""
    assert len(SUBJECTS) > 25


def is_weights(part):
    """A part that is made of tensors."""
    return part.section == "weights" and part.name not in ("padding", "shared-pages")


@pytest.mark.engine
def test_one_budget_counts_shared_pages_once_and_still_adds_up(explained):
    """On a Mac the mapped file is there once: what both sides look at stands as a negative part."""
    explanation = explained("qwen3-0.6b", SETTINGS[0], "m3-max-64gb")
    (device,) = explanation.devices
    assert sum(part.size_bytes for part in device.parts) == device.total_bytes
    assert by_name(explanation, "shared-pages")[device.device].size_bytes < 0
    assert not [part for part in device.parts if part.name in UNKNOWN]


@pytest.mark.engine
def test_a_tied_head_beside_a_card_is_told_as_a_copy(explained):
    """One matrix in the file, two in memory, of equal size; on the CPU alone it is one part with both names."""
    beside = explained("qwen3-0.6b", SETTINGS[0], "rtx-4090")
    copy, table = by_name(beside, "head-copy"), by_name(beside, "embedding")
    assert set(copy) == {"CUDA0"}
    assert set(table) == {"CPU"}
    assert copy["CUDA0"].size_bytes == table["CPU"].size_bytes > 0
    alone = explained("qwen3-0.6b", SETTINGS[0])
    assert set(by_name(alone, "tied-embedding")) == {"CPU"}
    assert not by_name(alone, "head-copy")


@pytest.mark.engine
def test_a_block_that_drafts_is_told_as_not_loaded_and_loaded_when_asked_for(explained):
    """GLM-4.5-Air's block of 46 stays in the file until drafting needs it."""
    left = explained("glm-4.5-air", SETTINGS[0])
    assert [(part.name, part.layers) for part in left.not_loaded] == [("mtp", (46,))]
    assert not by_name(left, "mtp")
    drafting = msgspec.structs.replace(SETTINGS[0], speculation="draft-mtp", load_mode="none")
    loaded = explained("glm-4.5-air", drafting)
    assert loaded.not_loaded == ()
    loaded_bytes = sum(part.size_bytes for part in loaded.devices[0].parts if part.name == "mtp")
    assert loaded_bytes == sum(part.size_bytes for part in left.not_loaded)


@pytest.mark.engine
def test_a_table_that_is_read_row_by_row_is_told_as_not_loaded(explained):
    """Qwen3.8-Flash-Next looks up 33 GiB in the file; asked to hold them, it does."""
    lazy, whole = (
        explained("qwen3.8-flash-next", msgspec.structs.replace(SETTINGS[0], lazy_mode=mode)) for mode in ("on", "off")
    )
    (table,) = lazy.not_loaded
    assert (table.name, table.tensors) == ("lookup", 1)
    assert whole.not_loaded == ()
    assert whole.devices[0].total_bytes - lazy.devices[0].total_bytes >= table.size_bytes


@pytest.mark.engine
@pytest.mark.parametrize(
    ("name", "weights", "caches"),
    [
        ("qwen3.5-4b", {"attention", "recurrent-attention"}, {"attention-cache", "recurrent-cache"}),
        ("deepseek-v3.2", {"latent-attention", "indexer"}, {"attention-cache", "indexer-cache"}),
        (
            "deepseek-v4-flash",
            {"window-attention", "indexer", "connections"},
            {"window-cache", "compressed-cache", "indexer-cache", "compressor-cache"},
        ),
        ("kimi-linear-48b-a3b", {"latent-attention", "recurrent-attention"}, {"attention-cache", "recurrent-cache"}),
        ("qwen3-30b-a3b", {"attention"}, {"attention-cache"}),
    ],
)
def test_layers_and_caches_are_told_by_kind(explained, name, weights, caches):
    """Which kinds a model has is the engine's word: its cache objects and its tensors."""
    explanation = explained(name, SETTINGS[0])
    parts = {part.name for part in explanation.devices[0].parts}
    attention = {
        "attention", "window-attention", "latent-attention", "recurrent-attention", "indexer", "connections",
    }  # fmt: skip
    assert parts & attention == weights
    assert {part for part in parts if part.endswith("-cache")} == caches


@pytest.mark.engine
def test_a_cache_is_cells_times_layers_times_bytes(explained):
    """Qwen3-8B: 36 layers, 2 streams of 4096 cells, 2 × 1024 values of 2 bytes; on two cards the layers share out."""
    (part,) = by_name(explained("qwen3-8b", SETTINGS[0]), "attention-cache").values()
    assert (part.cells, part.streams, len(part.layers), part.cell_bytes) == (4096, 2, 36, 4096)
    assert part.size_bytes == 4096 * 2 * 36 * 4096
    split = by_name(explained("qwen3-8b", SETTINGS[0], "2x-rtx-3090"), "attention-cache")
    assert sorted(layer for part in split.values() for layer in part.layers) == list(range(36))
    for part in split.values():
        assert part.size_bytes == part.cells * part.streams * len(part.layers) * part.cell_bytes


NAMES = st.sampled_from(
    [
        "token_embd.weight", "output.weight", "output_norm.weight", "blk.0.attn_q.weight", "blk.1.ffn_gate_exps.weight",
        "blk.1.ssm_out.weight", "blk.2.nextn.eh_proj.weight", "blk.3.never_seen.weight", "rope_freqs.weight",
    ]
)  # fmt: skip
BUFFERS = st.sampled_from(["CPU", "CPU_REPACK", "CUDA0", "CUDA_Host", "CUDA1", ""])
SIZES = st.integers(0, 1 << 36)


@st.composite
def tensors(draw):
    """A tensor somewhere, with some padding."""
    size, buffer = draw(SIZES), draw(BUFFERS)
    held = size + draw(st.integers(0, 512)) if buffer else 0
    return HeldTensor(
        name=draw(NAMES), type="q4_K", size_bytes=size, held_bytes=held, buffer=buffer, offset=draw(SIZES)
    )  # fmt: skip


@st.composite
def caches(draw):
    """A cache of any kind on any devices."""
    return HeldCache(
        kind=draw(st.sampled_from(["attention", "window", "recurrent", "indexer"])),
        buffers=draw(st.dictionaries(st.sampled_from(["CPU", "CUDA0"]), SIZES)),
        cells=draw(st.none() | st.integers(0, 1 << 20)),
        streams=draw(st.none() | st.integers(0, 16)),
        layers=draw(st.none() | st.lists(st.integers(0, 3), unique=True).map(tuple)),
    )


@st.composite
def rows(draw, device):
    """A row of the estimate, with every part that it can have."""
    names = (
        "mapped", "private", "repacked", "cache", "compute", "output", "work", "process", "companion", "server",
        "margin",
    )  # fmt: skip
    return device_row(device, **{name: draw(SIZES) for name in names}, available_bytes=None, origin="engine")


@given(st.data())
def test_an_explanation_adds_up_whatever_the_engine_says(data):
    """Even where tensors and estimate contradict each other: the difference stands there by name."""
    devices = data.draw(st.sampled_from([["CPU"], ["CUDA0", "CPU"], ["CUDA0", "CUDA1", "CPU"], ["MTL0"]]))
    held = Holdings(
        tensors=tuple(data.draw(st.lists(tensors(), max_size=12))),
        caches=data.draw(st.none() | st.lists(caches(), max_size=4).map(tuple)),
    )
    buffers = [
        Buffer(name=name, host=name != "CUDA0", model_bytes=0, context_bytes=0, compute_bytes=data.draw(SIZES))
        for name in data.draw(st.lists(st.sampled_from(["CPU", "CUDA0", "CUDA_Host"]), unique=True))
    ]
    memory = [data.draw(rows(device)) for device in devices]
    told = explain(candidate(SETTINGS[0], memory), held, Buffers(buffers=tuple(buffers)))
    assert [(each.device, each.total_bytes) for each in told.devices] == [(m.device, m.total_bytes) for m in memory]
    for device in told.devices:
        assert sum(part.size_bytes for part in device.parts) == device.total_bytes
        assert 0 not in [part.size_bytes for part in device.parts]


@given(st.lists(tensors(), max_size=12), st.randoms(use_true_random=False))
def test_the_order_of_tensors_never_matters(found, random):
    """A build that lists its tensors in another order explains the same."""

    def told(listed):
        held = Holdings(tensors=tuple(listed), caches=())
        row = device_row("CPU", private=1 << 40, available_bytes=None, origin="engine")
        return explain(candidate(SETTINGS[0], [row]), held, Buffers())

    shuffled = list(found)
    random.shuffle(shuffled)
    totals = [
        {(part.name, part.form): (part.size_bytes, part.tensors) for part in explanation.devices[0].parts}
        for explanation in (told(found), told(shuffled))
    ]
    assert totals[0] == totals[1]


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("blk.3.ffn_down_exps.weight", "routed-experts"),
        ("blk.3.ffn_gate_chexps.weight", "routed-experts"),
        ("blk.3.ffn_gate_inp_shexp.weight", "shared-experts"),
        ("blk.3.ffn_gate_inp.weight", "routers"),
        ("blk.3.exp_probs_b.bias", "routers"),
        ("blk.3.ffn_up.weight", "feed-forward"),
        ("blk.3.ffn_norm.weight", "norms"),
        ("blk.3.attn_q_norm.weight", "norms"),
        ("blk.3.indexer.k_norm.bias", "norms"),
        ("blk.3.indexer.attn_q_b.weight", "indexer"),
        ("blk.3.attn_output.weight", "attention"),
        ("blk.4.attn_gate.weight", "recurrent-attention"),
        ("blk.5.attn_output.weight", "latent-attention"),
        ("blk.6.attn_output.weight", "mtp"),
        ("blk.7.attn_output.weight", "window-attention"),
        ("per_layer_token_embd.weight", "lookup"),
        ("output.weight", "head"),
        ("output_norm.weight", "norms"),
        ("blk.3.something_new.weight", "other"),
    ],
)  # fmt: skip
def test_a_tensor_belongs_to_a_part_by_its_name_and_its_layer(name, part):
    """Layer 4 is a delta net, 5 has latent attention, 6 drafts, 7 looks through a window."""
    marks = [
        "blk.3.attn_q.weight",
        "blk.4.ssm_a",
        "blk.5.attn_kv_a_mqa.weight",
        "blk.6.nextn.eh_proj.weight",
        "blk.7.x",
    ]
    window = HeldCache(kind="window", buffers={"CPU": 1}, layers=(7,))
    assert part_of(name, layer_kinds(marks, [window])) == part
