"""Memory, predicted against real loads by the program that records the evidence, on small configurations."""

import importlib.util
import sys
from pathlib import Path

import pytest

from planner import catalogue
from planner.engine.child import EngineChild
from planner.engine.oracle import Oracle

pytestmark = pytest.mark.engine
BENCH = Path(__file__).parents[2] / "bench" / "memory.py"


@pytest.fixture(scope="module")
def bench():
    """``bench/memory.py`` as a module."""
    spec = importlib.util.spec_from_file_location("bench_memory", BENCH)
    module = importlib.util.module_from_spec(spec)
    sys.modules["bench_memory"] = module
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("model", "quantization", "changes"),
    [
        ("qwen2.5-0.5b", "Q4_0", {"context_tokens": 4096}),
        ("qwen2.5-0.5b", "Q4_K_M", {"context_tokens": 4096, "load_mode": "none", "parallel": 2}),
        ("qwen3-0.6b", "Q4_K_M", {"context_tokens": 8192, "ubatch": 256}),
        ("qwen3-0.6b", "Q8_0", {"context_tokens": 2048, "cache_type_k": "q8_0", "cache_type_v": "q8_0"}),
        ("qwen3-0.6b", "Q5_K_M", {"context_tokens": 2048, "flash_attention": "off", "repack": False}),
    ],
)
def test_every_buffer_and_the_resident_memory_are_what_a_real_load_shows(bench, tmp_path, model, quantization, changes):
    """Each buffer within 0.1 %, none missing; resident memory within 3 %, at most 1 % below the truth."""
    with EngineChild() as child, Oracle(child, folder=tmp_path / "answers") as oracle:
        case = bench.Case(model, quantization, changes)
        row = bench.run_case(case, catalogue.load(), oracle, tmp_path)
    assert row["buffers"] >= 4
    assert row["worst_buffer_percent"] <= 0.1
    assert -1.0 <= row["resident_percent"] <= 3.0


def test_a_wrong_estimate_is_noticed(bench):
    """The comparison itself can fail: one buffer off by 1 %, one missing, one invented."""
    from planner.types.plan import DeviceMemory

    estimate = DeviceMemory(
        device="CPU", weights_bytes=0, cache_bytes=0, compute_bytes=0, overhead_bytes=0, total_bytes=0,
        available_bytes=None, resident_bytes=100,
    )  # fmt: skip
    case = bench.Case("m", "q", {})
    real = {"buffers_mib": {"CPU KV": 100.0, "CPU compute": 10.0}, "after": 100, "peak": 100}
    for wrong in (
        {"CPU KV": 101.0, "CPU compute": 10.0},
        {"CPU KV": 100.0},
        {"CPU KV": 100.0, "CPU compute": 10.0, "CPU model": 5.0},
    ):
        assert bench.compare(case, estimate, wrong, real)["worst_buffer_percent"] > 0.1
    right = bench.compare(case, estimate, {"CPU KV": 100.0, "CPU compute": 10.0}, real)
    assert right["worst_buffer_percent"] == 0
    assert right["resident_percent"] == 0
