"""Our output in llama-bench's formats is llama-bench's output: what a real one printed is the measure."""

import csv
import io
import json
import sqlite3
from pathlib import Path

import pytest
from msgspec.structs import replace

from planner.measure.llama_bench import FIELDS, rows
from planner.measure.llama_bench_import import read_rows
from planner.render.llama_bench import FORMATS
from planner.types.measurement import Described
from planner.types.measurement import Test as Timed

RECORDED = Path(__file__).parents[1] / "measure" / "samples"
TESTS = (
    Timed(kind="prompt", tokens=512),
    Timed(kind="generate", tokens=128, depth=4096),
    Timed(kind="mixed", tokens=640, prompt_tokens=512, threads=1),
)


def recorded(name):
    """What llama-bench itself printed."""
    return (RECORDED / f"llama_bench.{name}").read_text(encoding="utf-8")


@pytest.fixture
def measured(plan):
    """A measurement of the three kinds of test on a file, its processor's name full of trouble."""
    sample = plan.measurements[0]
    result = sample.results[0]
    results = tuple(
        replace(result, test=test, tokens_timed=test.tokens, samples_ns=(2_000_000_000, 2_500_000_000, 2_000_000_000))
        for test in TESTS
    )
    described = Described(
        build_commit="0c1e57098",
        cpu_info='Bob\'s "fast" CPU, 2|4 GHz',
        backends="CPU",
        model_filename="a.gguf",
        model_type="qwen3 8B Q4_K - Medium",
        model_size_bytes=5_020_000_000,
        parameters=8_190_735_360,
    )
    return replace(sample, results=results, contents="file", described=described)


def test_the_fields_and_their_order_are_those_that_a_real_llama_bench_printed(measured):
    """The header of its CSV, the keys of its JSON, the columns of its SQL."""
    assert recorded("csv").splitlines()[0].split(",") == list(FIELDS)
    (theirs, *_) = json.loads(recorded("json"))
    (ours, *_) = (json.loads(line) for line in FORMATS["jsonl"](rows(measured)).splitlines())
    assert list(ours) == list(theirs)
    assert {key: type(value) for key, value in ours.items()} == {key: type(value) for key, value in theirs.items()}
    assert FORMATS["csv"](rows(measured)).splitlines()[0] == recorded("csv").splitlines()[0]


def test_their_sql_and_ours_make_one_table(measured):
    """sqlite3 runs both into the same table; quotation marks are no danger."""
    base = sqlite3.connect(":memory:")
    base.executescript(recorded("sql"))
    base.executescript(FORMATS["sql"](rows(measured)))
    found = base.execute("select cpu_info, n_prompt, n_gen, n_depth, avg_ts from llama_bench").fetchall()
    assert len(found) == 6 + 3
    assert [row[:4] for row in found[6:]] == [
        ('Bob\'s "fast" CPU, 2|4 GHz', 512, 0, 0),
        ('Bob\'s "fast" CPU, 2|4 GHz', 0, 128, 4096),
        ('Bob\'s "fast" CPU, 2|4 GHz', 512, 128, 0),
    ]
    assert found[6][4] == pytest.approx(512 * (2 * 0.5 + 0.4) / 3)


def test_the_table_has_llama_benchs_columns(measured):
    """Header and rule to the letter where the same columns are shown; one line for each test; the build below."""
    plain = replace(measured, settings=replace(measured.settings, load_mode="mmap", flash_attention="auto", parallel=1))
    lines = FORMATS["md"](rows(plain)).splitlines()
    assert lines[:2] == recorded("md").splitlines()[:2]
    assert [line.split("|")[-3].strip() for line in lines[2:5]] == ["pp512", "tg128 @ d4096", "pp512+tg128"]
    assert "|   4.68 GiB |     8.19 B |" in lines[2]
    assert lines[-1] == "build: 0c1e57098 (0)"
    assert len({len(line) for line in lines[:5]}) == 1


@pytest.mark.parametrize("name", sorted(FORMATS))
def test_what_we_write_is_read_as_what_it_was(measured, name):
    """There and back: tests and mean speeds, whatever the format."""
    kind, found = read_rows(FORMATS[name](rows(measured)), "ours")
    assert kind == name
    assert [row.test for row in found] == [replace(test, threads=None) for test in TESTS]
    for row, result in zip(found, measured.results, strict=True):
        mean = sum(result.test.tokens * 1e9 / each for each in result.samples_ns) / 3
        assert row.mean_tokens_per_s == pytest.approx(mean, abs=0.01)
        assert row.described.model_type == "qwen3 8B Q4_K - Medium"


@pytest.mark.parametrize("name", sorted(FORMATS))
def test_several_sequences_are_told_apart_from_one(measured, name):
    """One more column, another table in SQL; rates are over all sequences."""
    (first, *others) = measured.results
    several = replace(measured, results=(replace(first, test=replace(first.test, sequences=4)), *others))
    text = FORMATS[name](rows(several))
    _, found = read_rows(text, "ours")
    by_test = {row.test.label: row.mean_tokens_per_s for row in found}
    assert by_test["pp512 x4"] == pytest.approx(4 * 512 * (2 * 0.5 + 0.4) / 3, rel=1e-3)
    if name == "sql":
        base = sqlite3.connect(":memory:")
        base.executescript(recorded("sql") + text)
        assert base.execute("select n_seq from llama_bench_parallel").fetchall() == [(4,)]
    if name == "csv":
        assert [row["n_seq"] for row in csv.DictReader(io.StringIO(text))] == ["4", "1", "1"]


def test_what_was_no_file_is_not_called_by_a_files_name(measured):
    """A phantom, and what was composed, say so where a file's name stands."""
    phantom = rows(replace(measured, contents="phantom"))[0]["model_filename"]
    assert str(phantom).startswith("phantom of ")
    composed = replace(measured, results=(replace(measured.results[0], origin="predicted"),))
    assert "slices" in str(rows(composed)[0]["model_filename"])
    shortened = replace(measured, results=(replace(measured.results[0], tokens_timed=100),))
    assert rows(shortened)[0]["n_prompt"] == 100
