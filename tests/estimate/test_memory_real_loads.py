"""Memory, predicted against real loads by the program that records the evidence, on a small sample of its draw."""

import importlib.util
import json
import sys
from pathlib import Path

import pytest

from planner import catalogue
from planner.engine.child import EngineChild
from planner.engine.oracle import Oracle
from planner.types.plan import DeviceMemory

pytestmark = pytest.mark.engine
BENCH = Path(__file__).parents[2] / "bench" / "memory.py"
MIB = 1 << 20
RESULTS = BENCH.parent / "results" / "memory.json"


@pytest.fixture(scope="module")
def bench():
    """``bench/memory.py`` as a module."""
    spec = importlib.util.spec_from_file_location("bench_memory", BENCH)
    module = importlib.util.module_from_spec(spec)
    sys.modules["bench_memory"] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def running(bench, tmp_path_factory):
    """The program's bench on an engine of its own."""
    folder = tmp_path_factory.mktemp("real-loads")
    catalogued = catalogue.load()
    with EngineChild() as child, Oracle(child, folder=folder / "answers") as oracle:
        yield bench.Bench(catalogued, oracle, folder)


def _sample():
    """The smallest recorded configuration of each load mode, a hybrid and a refusal: it takes seconds."""
    rows = sorted(json.loads(RESULTS.read_text())["rows"], key=lambda row: row.get("resident_mib", 0.0))
    loaded = [row for row in rows if "resident_mib" in row]
    first = {row["settings"]["load_mode"]: row for row in reversed(loaded)}
    hybrid = next(row for row in loaded if row["model"].startswith("qwen3.5-0.8b"))
    return [*first.values(), hybrid, next(row for row in rows if row.get("refused"))]


@pytest.mark.parametrize("row", _sample(), ids=lambda row: f"{row['model']}-{row['settings']['load_mode']}")
def test_recorded_configurations_are_still_what_real_loads_show(bench, running, row):
    """Each buffer within 0.1 %, resident within 3 % and at most 1 % below, refused by both or by neither."""
    told = running.run(bench.Case.from_row(row))
    assert bench.held(told), told
    assert ("refused" in told) == ("refused" in row)


def test_the_recorded_evidence_is_what_is_claimed(bench):
    """At least 300 real loads over at least 15 architectures, all within bounds."""
    rows = json.loads(RESULTS.read_text())["rows"]
    catalogued = catalogue.load()
    loaded = [row for row in rows if "resident_mib" in row]
    assert len(loaded) >= 300
    assert len({catalogued.model(row["model"]).architecture for row in loaded}) >= 15
    assert [row for row in rows if not bench.held(row)] == []


@pytest.mark.parametrize(
    "changes",
    [
        {"context_tokens": 2048, "cache_type_v": "q8_0", "flash_attention": "off"},
        {"context_tokens": 2048, "parallel": 4, "outputs_max": 2},
    ],
)
def test_what_the_engine_refuses_planner_refuses(bench, running, changes):
    """A quantized V without flash attention, fewer outputs than sequences."""
    row = running.run(bench.Case(bench.Part("qwen3-0.6b", (0,)), "Q4_0", changes))
    assert row["refused"]
    assert row["engine_refused"]
    assert bench.held(row)


def test_equal_seeds_draw_equal_configurations(bench):
    """The recorded seed gives the recorded rows again."""
    catalogued = catalogue.load()
    first, again, other = (bench.Draw(catalogued, seed, max_flops=1e11) for seed in (3, 3, 4))
    drawn = [first.case(MIB, 300 * MIB) for _ in range(20)]
    assert drawn == [again.case(MIB, 300 * MIB) for _ in range(20)]
    assert drawn != [other.case(MIB, 300 * MIB) for _ in range(20)]
    assert len({catalogued.model(case.part.model).architecture for case in drawn}) == 20


def test_a_wrong_estimate_is_noticed(bench):
    """The comparison itself can fail: one buffer off by 1 %, one missing, one invented, too little or too much held."""
    estimate = DeviceMemory(
        device="CPU", weights_bytes=0, cache_bytes=0, compute_bytes=0, overhead_bytes=0, total_bytes=0,
        available_bytes=None, resident_bytes=1000 * MIB,
    )  # fmt: skip
    case = bench.Case(bench.Part("m"), "q", {})

    def compared(expected, held_mib=1000):
        held_bytes = {"pss": held_mib * MIB}
        real = {"buffers_mib": {"CPU context": 100.0, "CPU compute": 10.0}, "lines": {}, "after": held_bytes, "peak": 1}
        return bench.compare(case, estimate, expected, real)

    right = {"CPU context": 100.0, "CPU compute": 10.0}
    assert bench.held(compared(right))
    for wrong in ({**right, "CPU context": 101.0}, {"CPU context": 100.0}, {**right, "CPU model": 5.0}):
        assert compared(wrong)["worst_buffer_percent"] > 0.1
        assert not bench.held(compared(wrong))
    assert not bench.held(compared(right, held_mib=1015))
    assert not bench.held(compared(right, held_mib=965))
    assert not bench.held({"case": "", "refused": "no", "engine_refused": None})
    assert not bench.held({"case": "", "refused": None, "engine_refused": "no"})
