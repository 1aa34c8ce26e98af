"""The rivals' table says what the rivals said: their outputs are read right, and its verdict can fail."""

import importlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner.catalogue import load
from planner.estimate.rows import device_row

ROOT = Path(__file__).parents[2]
MIB, GIB = 1 << 20, 1 << 30
MODULES = ("rivals_ask", "memory_draw", "memory", "rivals_planner", "rivals_llamafit", "rivals_table", "rivals")


@pytest.fixture(scope="module")
def bench() -> Iterator[dict[str, ModuleType]]:
    """``bench/rivals.py`` and the modules it stands on."""
    sys.path.insert(0, str(ROOT / "bench"))
    try:
        modules = {name: importlib.import_module(name) for name in MODULES}
    finally:
        sys.path.remove(str(ROOT / "bench"))
    yield modules
    for name in modules:
        del sys.modules[name]


def row(bench: dict[str, ModuleType], **factors: float) -> dict[str, Any]:
    """A row whose truth is round numbers and whose tools answer it times their factor."""
    truth = {"resident": 1000, "reserved": 1200, "weights": 700, "cache": 200, "compute": 100, "context": 300}
    answers = {
        tool: {"total": 1000 * factor, "weights": 700 * factor}
        if tool != "planner"
        else {"total": 1200, "resident": 1000 * factor}
        for tool, factor in factors.items()
    }
    each = bench["rivals_ask"].Configuration("m", "Q8_0", 4096, "mmap", "f16")
    return {"configuration": each.label, **each._asdict(), "truth": truth, "answers": answers}


def test_what_llama_fit_params_prints_is_read_in_mib(bench):
    """The host's line among devices' lines; without it there is no answer."""
    ask = bench["rivals_ask"]
    answer = ask.fit_print_answer("CUDA0 100 2 3 \nHost 1589 1152 312 \n")
    assert answer == ask.Answer(3053 * MIB, 1589 * MIB, 1152 * MIB, 312 * MIB, 1464 * MIB)
    with pytest.raises(ask.NoAnswerError, match="no line of the host"):
        ask.fit_print_answer("error")


@pytest.mark.parametrize("middle", ["", " · 1.23 GB active per token"])
def test_what_ggufit_prints_is_read_wherever_it_breaks_its_lines(bench, middle):
    """Its parts, of dense models and of mixtures, in GiB."""
    ask = bench["rivals_ask"]
    text = (
        f"✓ Right now  Q2 · fast\n  download 11.37 GB{middle} · cache 512 MB\n"
        "   · working memory\n 1.86 GB · total 13.61 GB of 22 GB"
    )
    answer = ask.ggufit_answer(text)
    assert (answer.total, answer.weights, answer.cache) == (13.61 * GIB, 11.37 * GIB, 512 * MIB)
    with pytest.raises(ask.NoAnswerError, match="no figures"):
        ask.ggufit_answer("✗ nothing fits")


def test_of_llmfits_plan_the_cpu_path_counts(bench):
    """Not the GPU path's RAM, and the cache of the type that was asked for."""
    told = {
        "disk_size_gb": 4.75,
        "run_paths": [
            {"path": "gpu", "minimum": {"ram_gb": 8.0}},
            {"path": "cpu_only", "minimum": {"ram_gb": 6.375}},
        ],
        "kv_alternatives": [{"kv_quant": "fp16", "kv_cache_gb": 1.125}, {"kv_quant": "q8_0", "kv_cache_gb": 0.5625}],
    }
    answer = bench["rivals_ask"].llmfit_answer(told, "q8_0")
    assert (answer.total, answer.weights, answer.cache) == (6.375 * GIB, 4.75 * GIB, 0.5625 * GIB)
    assert answer.compute is None


def llamafit_plan(context: int) -> dict[str, Any]:
    """A budget of LlamaFit's for ``context`` tokens."""
    parts = {
        "dense-weights": 5, "token-embedding": 2, "global-weights": 1, "kv-cache": 20, "compute-buffer": 30,
        "output-buffer": 40, "process-overhead": 50,
    }  # fmt: skip
    lines = [{"component": name, "bytes": size} for name, size in parts.items()]
    placement = {"mode": "cpu", "context": context, "micro_batch": 512, "kv_type": "f16"}
    return {"placement": {**placement, "budget": {"lines": lines, "ram_required": 148}}}


def test_llamafits_logits_are_compute_and_its_process_is_neither(bench):
    """All its components land in one part each; the total is its own."""
    answer = bench["rivals_llamafit"].llamafit_answer(llamafit_plan(8192), 8192)
    assert (answer.total, answer.weights, answer.cache, answer.compute, answer.context) == (148, 8, 20, 70, 90)


def test_a_plan_for_something_else_is_no_answer(bench):
    """LlamaFit sizes down silently where it thinks that it must."""
    with pytest.raises(bench["rivals_ask"].NoAnswerError, match="4096"):
        bench["rivals_llamafit"].llamafit_answer(llamafit_plan(4096), 8192)


def test_an_entry_of_ours_holds_what_llamafits_own_catalogue_holds(bench):
    """The facts of Qwen3-0.6B in Q8_0, as its package 0.1.1 ships them for the published file."""
    catalogue = load()
    layout = catalogue.layout(catalogue.model("qwen3-0.6b"))
    typed = msgspec.structs.replace(
        layout,
        tensors=tuple(msgspec.structs.replace(t, type="F32" if len(t.dims) == 1 else "Q8_0") for t in layout.tensors),
    )
    shipped = {
        "attention_layers": 28, "bytes_dense_block_weights": 468185088, "bytes_expert_weights": 0,
        "bytes_global_weights": 4096, "bytes_lazy_tables": 0, "bytes_output_head": 0, "bytes_shared_expert_weights": 0,
        "bytes_token_embd": 165306368, "bytes_total": 633495552, "context_length": 40960, "has_shared_experts": False,
        "head_dim": 128, "kv_bytes_per_token_f16": 114688, "n_embd": 1024, "n_expert": None, "n_expert_used": None,
        "n_head": 16, "n_head_kv": 8, "n_layer": 28, "n_vocab": 151936, "value_head_dim": 128,
    }  # fmt: skip
    ours = bench["rivals_llamafit"].facts(typed)
    assert {name: ours[name] for name in shipped} == shipped


def test_the_planners_output_buffer_is_compute(bench):
    """As it is in the truth."""
    row = device_row(
        "CPU", private=4, cache=3, compute=2, output=1, process=5, untouched=1, available_bytes=None, origin="engine"
    )
    assert bench["rivals_planner"].planner_answer(row) == bench["rivals_ask"].Answer(15, 4, 3, 3, 6, 14)


def test_the_truth_counts_every_buffer_line_of_the_engine(bench):
    """Mapped and repacked weights, attention and recurrent cache; an unknown kind of buffer is an error."""
    buffers = {
        "CPU_Mapped model": 4,
        "CPU_REPACK model": 3,
        "CPU context": 3,
        "CPU compute": 5,
        "CPU output": 1,
    }
    told = {
        "buffers_mib": buffers,
        "before": {"pss": 10 * MIB}, "after": {"pss": 20 * MIB}, "peak": 21 * MIB,
    }  # fmt: skip
    truth = bench["rivals"].truth_from(told)
    assert [truth[name] // MIB for name in ("weights", "cache", "compute", "context")] == [7, 3, 6, 9]
    assert (truth["resident"] // MIB, truth["reserved"] // MIB) == (21, 26)
    with pytest.raises(KeyError):
        bench["rivals"].truth_from({**told, "buffers_mib": {"CPU new": 1}})


def test_a_complaint_is_the_line_that_names_the_error(bench):
    """The loader's remark on a C library is not what went wrong."""
    complaint = bench["rivals_ask"].complaint
    assert (
        complaint("x: weak version `GLIBC_2.39' not found\nError: Unsupported quantization")
        == "Error: Unsupported quantization"
    )
    assert complaint("no model named 'x'\nHint: another") == "no model named 'x'"


@given(factor=st.floats(0.1, 10))
def test_a_tool_that_is_off_by_a_factor_is_shown_off_by_that_factor(bench, factor):
    """In every part that it tells; what it does not tell is a dash, never a zero."""
    table = bench["rivals_table"]
    summary = table.summarize([row(bench, planner=1.0, tool=factor)] * 3, ["planner", "tool"])
    expected = round(100 * (factor - 1), 2)
    for part in ("resident", "resident_mmap", "weights"):
        found = summary["tool"][part]
        assert found["n"] == 3
        assert found["lowest_percent"] == found["highest_percent"] == pytest.approx(expected, abs=0.011)
    assert summary["tool"]["cache"] is None
    assert summary["tool"]["resident_none"] is None


@pytest.mark.parametrize(
    ("factors", "fault"),
    [
        ({"planner": 1.01, "tool": 1.3}, None),
        ({"planner": 1.04, "tool": 1.3}, "planner: m Q8_0 4096"),
        ({"planner": 0.98, "tool": 1.3}, "planner: m Q8_0 4096"),
        ({"planner": 1.01, "tool": 1.005}, "tool: resident"),
        ({"planner": 1.01, "tool": 0.995}, "tool: resident"),
    ],
)
def test_the_claim_can_be_refuted(bench, factors, fault):
    """By the planner's own bounds, and by any tool that is nearer."""
    table = bench["rivals_table"]
    rows = [row(bench, **factors)]
    faults = table.broken(rows, table.summarize(rows, list(factors)))
    assert [each[: len(fault)] for each in faults] == [fault] if fault else faults == []


def test_the_recorded_table_comes_out_of_its_rows_again(bench):
    """Configurations of the list, each with a truth, and each tool answered or said why not."""
    recorded = json.loads((ROOT / "bench/results/rivals.json").read_text())
    labels = [each.label for each in bench["rivals"].configurations()]
    rows = [each["configuration"] for each in recorded["rows"]]
    assert [label for label in labels if label in rows] == rows
    assert len(set(labels)) == len(labels) >= 30
    tools = list(recorded["tools"])
    assert all(list(each["answers"]) == tools for each in recorded["rows"])
    assert all(
        "none" in answer or answer["total"] > 0 for each in recorded["rows"] for answer in each["answers"].values()
    )
    summary = bench["rivals_table"].summarize(recorded["rows"], tools)
    assert summary == recorded["summary"]
    assert bench["rivals_table"].broken(recorded["rows"], summary) == recorded["refuted"]
