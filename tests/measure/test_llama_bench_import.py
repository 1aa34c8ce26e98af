"""What llama-bench wrote is read whole, and a wrong cell is named by row and column; samples are of a real one."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner.errors import BadInputError
from planner.measure.imports import ImportStore, same_model
from planner.measure.llama_bench_import import read_rows
from planner.types.imported import Imported
from planner.types.measurement import Described

SAMPLES = Path(__file__).parent / "samples"
FORMATS = ("json", "jsonl", "csv", "md", "sql")
LABELS = ["pp32", "tg8", "pp16+tg4", "pp32 @ d64", "tg8 @ d64", "pp16+tg4 @ d64"]


def sample(name: str) -> str:
    """What llama-bench (commit 0c1e57098) wrote on a machine of two cores."""
    return (SAMPLES / f"llama_bench.{name}").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_of_llama_bench_is_recognised_and_read(name: str) -> None:
    """Tests, speeds, model and threads; samples where the format has them."""
    kind, rows = read_rows(sample(name), name)
    assert kind == name
    assert [row.test.label for row in rows] == LABELS
    assert all(10 < row.mean_tokens_per_s < 200 for row in rows)
    assert all(row.deviation_tokens_per_s is not None for row in rows)
    assert {row.described.model_type for row in rows} == {"qwen2 1B (guessed) Q4_0"}
    assert {row.fields["n_threads"] for row in rows} == {"2"}
    assert {len(row.samples_ns) for row in rows} == ({2} if name in {"json", "jsonl"} else {0})
    if name != "md":
        assert {row.described.parameters for row in rows} == {494032768}


def test_nothing_of_a_row_is_lost() -> None:
    """Every column is kept as it was written, those that nobody knows too."""
    told = json.loads(sample("json"))
    told[0]["gpu_blas"] = "a column of another build"
    _, rows = read_rows(json.dumps(told), "x")
    assert rows[0].fields["gpu_blas"] == "a column of another build"
    assert set(rows[0].fields) == set(told[0])
    assert rows[0].samples_ns == tuple(told[0]["samples_ns"])


def test_older_builds_and_tables_in_a_text_are_read() -> None:
    """A table of 2024 in the middle of a post, its build below it, another table after it."""
    text = """Here are my numbers:

| model                          |       size |     params | backend    | ngl |          test |              t/s |
| ------------------------------ | ---------: | ---------: | ---------- | --: | ------------: | ---------------: |
| llama 7B Q4_0                  |   3.56 GiB |     6.74 B | Metal      |  99 |         pp512 |    759.70 ± 0.26 |
| llama 7B Q4_0                  |   3.56 GiB |     6.74 B | Metal      |  99 |         tg128 |     65.85 ± 0.32 |

build: 8e672efe (1550)

| model | size | params | backend | threads | fa | test | t/s |
|---|---|---|---|---|---|---|---|
| qwen3 8B Q4_K - Medium | 4.68 GiB | 8.19 B | CPU | 8 | 1 | tg128 @ d4096 | 11.20 |
"""
    kind, rows = read_rows(text, "post")
    assert kind == "md"
    assert [row.test.label for row in rows] == ["pp512", "tg128", "tg128 @ d4096"]
    assert [row.described.build_number for row in rows] == [1550, 1550, None]
    assert rows[2].fields["flash_attn"] == "1"
    assert rows[2].deviation_tokens_per_s is None


@pytest.mark.parametrize(
    ("name", "old", "new", "words"),
    [
        ("json", '"avg_ts": 81.648592', '"avg_ts": "fast"', "row 1, column avg_ts"),
        ("json", '"n_gen": 8,', '"n_gen": -8,', "row 2, column n_prompt"),
        ("json", '"n_prompt": 32,', '"n_prompt": 3.5,', "row 1, column n_prompt"),
        ("json", '"n_prompt": 32,', "", "row 1, column n_prompt"),
        ("json", "395938469", "-5", "row 1, column samples_ns"),
        ("csv", '"109.349302"', '"nan"', "row 1, column avg_ts"),
        ("csv", ',"22.313361"', "", "row 1, column stddev_ts: 41 values for 42 columns"),
        ("csv", '"494032768"', '"many"', "row 1, column model_n_params"),
        ("sql", "'78.021143'", "'-1'", "row 1, column avg_ts"),
        ("sql", ", '0.486310')", "", "row 1"),
        ("md", "tg8 |", "tg0 |", "row 2, column test"),
        ("md", "79.99 ± 7.47", "quick", "row 1, column t/s"),
        ("jsonl", '"avg_ts"', '"mean"', "row 1, column avg_ts"),
    ],
)
def test_a_wrong_cell_is_named_by_row_and_column(name: str, old: str, new: str, words: str) -> None:
    """And the file is not read in part."""
    text = sample(name)
    assert old in text
    with pytest.raises(BadInputError) as told:
        read_rows(text.replace(old, new, 1), f"theirs.{name}")
    assert words in told.value.message
    assert told.value.message.startswith(f"theirs.{name}")
    assert told.value.hint


@pytest.mark.parametrize("text", ["", "hello", "[]", "{}", "[1]", "| a |\n|---|\n| b |\n", "avg_ts,n_gen\n"])
def test_what_is_no_output_of_llama_bench_is_refused(text: str) -> None:
    """With a hint at what would be read."""
    with pytest.raises(BadInputError) as told:
        read_rows(text, "x")
    assert told.value.message.startswith("x")


@given(name=st.sampled_from(FORMATS), data=st.data())
def test_a_damaged_file_is_read_or_refused_and_nothing_else(name: str, data: st.DataObject) -> None:
    """Cut anywhere and changed anywhere: rows or a BadInputError."""
    text = sample(name)
    cut = data.draw(st.integers(min_value=0, max_value=len(text)))
    at = data.draw(st.integers(min_value=0, max_value=len(text)))
    broken = (text[:at] + data.draw(st.text(max_size=4)) + text[at:])[:cut]
    try:
        _, rows = read_rows(broken, "x")
    except BadInputError:
        return
    assert rows


def test_imports_are_kept_once_and_a_damaged_one_is_named(tmp_path: Path) -> None:
    """The same rows twice are one import; a broken file costs itself."""
    warned: list[str] = []
    store = ImportStore(folder=tmp_path, warn=warned.append)
    for source, name in (("a.csv", "csv"), ("b.csv", "csv"), ("c.md", "md")):
        kind, rows = read_rows(sample(name), name)
        store.keep(Imported(source=source, format=kind, imported_at=f"2026-01-01T00:00:0{name == 'md':d}", rows=rows))
    assert [each.source for each in store.all()] == ["b.csv", "c.md"]
    next(iter(tmp_path.glob("*.json"))).write_text("{")
    assert len(store.all()) == 1
    assert len(warned) == 1


def test_rows_are_of_a_model_when_its_bytes_and_parameters_agree() -> None:
    """To the byte where they are told, to the table's digits else; a name is no proof."""
    mine = Described(model_size_bytes=278139392, parameters=494032768)
    for name in FORMATS:
        assert all(same_model(row, mine) for row in read_rows(sample(name), name)[1])
        for other in (
            Described(model_size_bytes=378139392, parameters=494032768),
            Described(model_size_bytes=278139392, parameters=594032768),
            Described(model_type="qwen2 1B (guessed) Q4_0"),
        ):
            assert not any(same_model(row, other) for row in read_rows(sample(name), name)[1])
