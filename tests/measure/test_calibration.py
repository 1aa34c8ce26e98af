"""Calibration: what it times covers the catalogue, its signature is checked, and it keeps to its time."""

import time
from statistics import median

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from planner import catalogue
from planner.engine.child import EngineChild
from planner.engine.graphs import Graphs
from planner.engine.oracle import Oracle
from planner.gguf.ggml_types import tensor_bytes
from planner.measure.bench import Bench
from planner.measure.calibration import Calibration, _stays, _turn_s, calibrate_costs, signature_of, told
from planner.measure.calibration_design import COMMON_TYPES, WEIGHT_TYPES, probes
from planner.measure.calibration_rounds import Sitting
from planner.measure.slices import weights_bytes
from planner.types.model import Quantization
from planner.types.settings import Settings
from planner.workflow.calibrating import graph_of

MIB = 1 << 20
SETTINGS = Settings(context_tokens=1024, threads=2, threads_batch=2)
AS_IT_IS = Quantization(name="as-is", ftype=None, bits_per_weight=0.0, kld=None, kld_source=None)


@pytest.fixture(scope="module")
def known():
    """The shipped catalogue."""
    return catalogue.load()


@pytest.fixture(scope="module")
def designed(known):
    """The phantoms of a full calibration beside a last-level cache of 32 MiB."""
    return probes(known, cache_bytes=32 * MIB)


def signature(settings=SETTINGS, **changes):
    """A signature of this kind of machine."""
    told = {"machine_key": "abc", "cpu": "AMD EPYC", "isa": ("AVX2",), "engine_build": "1234", **changes}
    return signature_of(settings, **told)


@pytest.mark.engine
def test_every_type_that_a_quantization_gives_to_a_weight_is_timed(known, tmp_path):
    """Of four architectures in every quantization; what has one dimension is no weight, and routers stay F32."""
    with EngineChild() as child:
        oracle = Oracle(child, folder=tmp_path)
        types = {
            each.type
            for name in ("qwen3-0.6b", "deepseek-v2-lite", "qwen3.5-0.8b", "qwen2.5-0.5b")
            for quantization in known.quantizations.values()
            for each in oracle.typed_layout(
                name, lambda name=name: known.layout(known.model(name)), quantization
            ).tensors
            if len(each.dims) > 1
        }
    assert types - {"F32"} <= set(WEIGHT_TYPES)


def test_weights_for_few_columns_are_read_from_ram_and_not_from_the_cache(known):
    """Each phantom for decoding is at least twice a last-level cache of 32 MiB, and none takes a gigabyte.

    Codebooks are looked up so slowly that the cache makes no difference: theirs are as large as it is.
    """
    designed = probes(known, cache_bytes=32 * MIB)
    few = [each for each in designed if each.label.endswith("-few")]
    assert len(few) == len(WEIGHT_TYPES)
    looked_up = [each for each in few if each.label.startswith(("iq1", "iq2", "iq3"))]
    assert min(weights_bytes(each.layout) for each in few if each not in looked_up) >= 2 * 32 * MIB
    assert min(weights_bytes(each.layout) for each in looked_up) >= 32 * MIB
    assert max(weights_bytes(each.layout) for each in designed) < 512 * MIB


def test_the_experts_that_one_token_visits_are_more_than_the_cache_holds(known):
    """A quarter of them, so that what two tokens have in common has left the cache before the second."""
    cache = 32 * MIB
    for each in probes(known, cache_bytes=cache):
        if not each.label.endswith("-experts"):
            continue
        experts = [tensor for tensor in each.layout.tensors if "_exps." in tensor.name]
        used = each.layout.metadata["qwen3moe.expert_used_count"] / each.layout.metadata["qwen3moe.expert_count"]
        visited = used * sum(tensor_bytes(tensor.type, tensor.dims) for tensor in experts)
        assert visited > 1.2 * cache, each.label
        assert weights_bytes(each.layout) < 512 * MIB, each.label


def test_a_phantom_for_long_prompts_has_a_layer_that_all_of_the_prompt_passes_through(known):
    """The engine drops most of a prompt in the last layer, so one layer would say nothing."""
    designed = probes(known, cache_bytes=32 * MIB)
    for probe in designed:
        if any(test.kind == "prompt" and test.tokens >= 128 for test in probe.tests):
            assert len(probe.layout.layers) > 1


def test_the_quick_design_is_the_important_part_of_the_full_one(known):
    """Fewer phantoms, and none that the full one has not."""
    full = {each.label: each for each in probes(known, cache_bytes=32 * MIB)}
    quick = probes(known, cache_bytes=32 * MIB, quick=True)
    assert len(quick) < len(full) / 2
    assert all(full[each.label] == each for each in quick)
    assert {f"{kind.lower()}-few" for kind in COMMON_TYPES[:6]} <= {each.label for each in quick}


def test_only_the_type_of_weights_is_changed(known):
    """Norms, and rows that are no whole number of blocks, stay what the layout has; sizes are those of real blocks."""
    for probe in probes(known, cache_bytes=32 * MIB):
        assert all(tensor_bytes(each.type, each.dims) > 0 for each in probe.layout.tensors)
        assert all(each.type == "F32" for each in probe.layout.tensors if len(each.dims) == 1)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"engine_build": "5678"}, "engine build"),
        ({"isa": ("AVX2", "AVX512")}, "instruction sets"),
        ({"machine_key": "def"}, "machine key"),
        ({"cpu": "Intel Xeon"}, "cpu"),
        ({"settings": msgspec.structs.replace(SETTINGS, threads=1)}, "threads"),
        ({"settings": msgspec.structs.replace(SETTINGS, repack=False)}, "repack"),
        ({"settings": msgspec.structs.replace(SETTINGS, flash_attention="off")}, "flash attention"),
    ],
)
def test_a_calibration_of_other_conditions_is_refused_and_says_why(change, named):
    """Whatever costs depend on is in the signature."""
    assert signature().differs(signature()) is None
    assert named in signature().differs(signature(**change))


@settings(deadline=None)
@given(room_bytes=st.integers(0, 8 << 30))
def test_what_counts_most_stays_open_as_far_as_there_is_room(designed, room_bytes):
    """The rest passes by; nothing is lost, and nothing less important takes the room of what fits."""
    staying, passing = _stays(designed, room_bytes)
    assert sorted([*staying, *passing], key=designed.index) == list(designed)
    assert sum(weights_bytes(each.layout) for each in staying) <= room_bytes
    left = room_bytes - sum(weights_bytes(each.layout) for each in staying)
    assert all(weights_bytes(each.layout) > left or each.rank > 2 for each in passing)


@given(st.floats(0, 60), st.integers(0, 12), st.lists(st.floats(0.5, 9), max_size=12))
def test_what_stays_has_a_third_of_the_time_at_least_and_leaves_the_others_theirs(left_s, groups, passed_s):
    """Its turns before each group that passes by, and after the last, are equally long."""
    turn_s = _turn_s(left_s, groups, passed_s)
    assert turn_s * (groups + 1) >= left_s / 3 - 1e-9
    assert turn_s * (groups + 1) <= left_s + 1e-9


@pytest.mark.engine
def test_what_stays_is_timed_before_and_after_what_passes_by(known, tmp_path):
    """So its runs lie apart, and the reference is looked at beside them."""
    designed = {each.label: each for each in probes(known, cache_bytes=1 * MIB)}
    with EngineChild() as asked, Bench(lambda env: EngineChild(env=env), folder=tmp_path) as bench:
        graphs = Graphs(Oracle(asked, folder=tmp_path / "engine"), folder=tmp_path / "graphs")

        def graphs_of(probe, settings):
            return graphs.ask(
                probe.label, lambda: probe.layout, AS_IT_IS, [graph_of(test, settings) for test in probe.tests]
            )

        sitting = Sitting(bench, SETTINGS, graphs_of, designed["q8_0-few"].layout)
        sitting.keep_open([designed["thin"]])
        sitting.pass_by([designed["q4_k-few"], designed["iq1_s-few"]], time.monotonic() + 60)
        passed_s = time.monotonic()
        sitting.go_on(passed_s + 1.0)
        sitting.end()
        assert not any(bench.is_open(label) for label in designed)
    for run in sitting.runs:
        assert len(run.took_ns) == len(run.ended_s)
        assert run.ended_s == sorted(run.ended_s)
        if run.probe.label == "thin":
            assert run.ended_s[0] < passed_s < run.ended_s[-1]
        else:
            assert len(run.took_ns) == (1 if run.probe.label == "iq1_s-few" else 2)
    assert sitting.glances
    assert not sitting.notes


@pytest.mark.engine
def test_a_calibration_of_a_few_phantoms_keeps_to_its_time_and_explains_what_it_timed(known, tmp_path):
    """Two phantoms in three seconds: each sample is explained, nothing is left behind, and it survives JSON."""
    chosen = [each for each in probes(known, cache_bytes=1 * MIB) if each.label in {"thin", "q8_0-few"}]
    with EngineChild() as asked, Bench(lambda env: EngineChild(env=env), folder=tmp_path) as bench:
        graphs = Graphs(Oracle(asked, folder=tmp_path / "engine"), folder=tmp_path / "graphs")

        def graphs_of(probe, settings):
            questions = [graph_of(test, settings) for test in probe.tests]
            return graphs.ask(probe.label, lambda: probe.layout, AS_IT_IS, questions)

        begin = time.monotonic()
        found = calibrate_costs(bench, chosen, SETTINGS, graphs_of, signature=signature(), budget_s=3.0)
        took_s = time.monotonic() - begin
        none = calibrate_costs(bench, chosen, SETTINGS, graphs_of, signature=signature(), budget_s=0.0)
    assert took_s < 12.0
    assert not list(tmp_path.glob("phantom-*"))
    assert len(found.table.timings) == sum(len(each.tests) for each in chosen)
    # A busy machine makes some samples wild; the others are explained by what was solved for.
    ratios = [took.middle_ns / each.took_ns for each in found.table.timings if (took := found.table.took(each.amounts))]
    assert len(ratios) > len(found.table.timings) / 2
    assert 0.6 < median(ratios) < 1.5
    assert msgspec.json.decode(msgspec.json.encode(found), type=Calibration) == found
    assert {cost.kind for cost in told(found).costs} == set(found.table.names)
    assert len(none.notes) == len(chosen)
