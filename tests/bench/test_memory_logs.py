"""Published load logs against the planner's answers, by the functions of bench/memory_logs.py, on a sample."""

import importlib
import sys
from pathlib import Path

import msgspec
import pytest

_BENCH = Path(__file__).parents[2] / "bench"
_MODULES = (
    "memory_logs_records",
    "memory_logs_models",
    "memory_logs_questions",
    "memory_logs_answers",
    "memory_logs_score",
    "memory_logs",
)
# One to three of each kind: engine of 2024, 2025 and 2026; one card, two, four, eight; CUDA, ROCm, Vulkan, Metal, CPU;
# experts on the CPU, part of the layers, overrides, quantized caches, no attention kernel, windows, recurrent state.
_SAMPLE = (
    "L0004", "L0008", "L0041", "L0043", "L0045", "L0051", "L0053", "L0059", "L0067", "L0071", "L0092", "L0102", "L0111",
    "L0145", "L0174", "L0215", "L0227", "L0245", "L0251", "L0261", "L0296", "L0354", "L0365", "L0379", "L0385", "L0405",
    "L0406",
)  # fmt: skip

pytestmark = pytest.mark.engine


@pytest.fixture(scope="module")
def bench():
    """The program's modules by name."""
    pytest.importorskip("llama_cpp", reason="needs the engine")
    sys.path.insert(0, str(_BENCH))
    try:
        modules = {name: importlib.import_module(name) for name in _MODULES}
    finally:
        sys.path.remove(str(_BENCH))
    yield modules
    for name in modules:
        del sys.modules[name]


@pytest.fixture(scope="module")
def rows(bench, tmp_path_factory):
    """The sample's records, judged."""
    from planner.engine.child import EngineChild

    logs = [log for log in bench["memory_logs_records"].read_logs() if log.id in _SAMPLE]
    with pytest.MonkeyPatch.context() as patch, EngineChild() as child:
        patch.setenv("PLANNER_CACHE_DIR", str(tmp_path_factory.mktemp("cache")))
        return list(bench["memory_logs"].compare(logs, child))


def test_weights_and_cache_agree_on_every_device_and_compute_in_all(bench, rows):
    """All within 1 % but three old ones, three of four within 10 %: the sample has more old builds than the logs."""
    old = {"L0296", "L0354", "L0385"}  # their causes: another CPU, a build of 2025, a file of 2024
    summary = bench["memory_logs_score"].summarize([row for row in rows if row.id not in old], [])
    assert summary.asked == len(rows) - len(old)
    assert summary.weights_and_cache_share == 1.0
    assert summary.compute_share >= 0.75


def test_every_miss_of_the_sample_has_one_cause(bench, rows):
    """And what agrees has none."""
    score = bench["memory_logs_score"]
    assert score.faults(rows, score.read_causes()) == []


def test_no_device_holds_more_than_the_safe_bound(rows):
    """But for two loads of 2025 that held other weights or another cache; their causes stand in the list of misses."""
    assert {row.id for row in rows if row.above_bound} == {"L0296", "L0354"}


def test_no_compute_buffer_is_above_the_safe_bound(rows):
    """The host of a build that made the logits on the CPU among them (L0041)."""
    above = [row.id for row in rows if row.compute_above_bound]
    assert above == []


def test_a_wrong_answer_is_seen(bench, rows):
    """Half the cache, or twice the compute buffers, and the verdicts turn."""
    score, answers = bench["memory_logs_score"], bench["memory_logs_answers"]
    log = next(log for log in bench["memory_logs_records"].read_logs() if log.id == "L0102")
    asked = bench["memory_logs_questions"].question(log, bench["memory_logs_records"].read_told().of(log))
    row = next(row for row in rows if row.id == "L0102")
    assert row.cache
    assert not row.above_bound
    factors = {"weights": 1.0, "cache": 0.5, "compute": 0.5}
    wrong = [answers.Pair(part, device, told, found * factors[part]) for part, device, told, found in row.pairs]
    answer = answers.Answer(weights={}, cache={}, compute={}, host_head_tokens=0)
    judged = score.judge(msgspec.structs.replace(row, pairs=[]), wrong, asked, answer)
    assert (judged.weights, judged.cache, judged.compute) == (True, False, False)
    assert judged.above_bound
    assert [fault for fault in score.faults([judged], score.read_causes()) if "cache missed, 0 causes" in fault]


def test_all_records_are_of_mainline_builds_and_name_their_source(bench):
    """Forks have other graphs; a fact without a source is none (6 excerpts came without an address)."""
    logs = bench["memory_logs_records"].read_logs()
    assert len(logs) == 135
    assert sum(log.url is None for log in logs) <= 6


def test_mixes_give_the_counts_that_the_logs_print(rows):
    """A file whose types were worked out is not a file whose types were assumed."""
    types = {row.id: row.types for row in rows}
    assert types["L0102"] == "mix"
    assert types["L0227"] == "mix, in total"
    assert types["L0059"] == "assumed"
    assert types["L0045"] == "recipe"
