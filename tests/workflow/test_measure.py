"""``planner measure`` for real: a tiny model, the real engine, the store, and what is refused before it starts."""

import json
import shutil

import jsonschema
import pytest

from planner.render.schema import schema_of
from planner.types.measurement import Measurement

pytestmark = pytest.mark.engine

QUICK = ("--quick", "--threads", "2", "--tests", "pp32,tg8", "--depth", "0,64", "--context", "256")


def test_a_file_is_measured_as_asked_and_not_twice(planner, nowhere, tiny):  # noqa: ARG001 - an empty store
    """Every test at every depth, the settings as asked; exit code 0 or, on a busy machine, 12 with the reason."""
    code, out, err = planner("measure", tiny, *QUICK, "--kv-type", "q8_0", "--json")
    assert err == ""
    told = json.loads(out)
    jsonschema.validate(told, schema_of(Measurement))
    tests = [(row["test"]["kind"], row["test"]["tokens"], row["test"]["depth"]) for row in told["results"]]
    assert tests == [("prompt", 32, 0), ("generate", 8, 0), ("prompt", 32, 64), ("generate", 8, 64)]
    assert all(row["origin"] == "measured" and min(row["samples_ns"]) > 0 for row in told["results"])
    assert (told["settings"]["threads"], told["settings"]["cache_type_k"]) == (2, "q8_0")
    assert (told["layers_timed"], told["layers_total"]) == (2, 2)
    assert (told["model"], told["quantization"]) == ("Tiny", "BF16")
    assert code == (12 if told["conditions"]["disturbed"] else 0)
    again, out, _ = planner("measure", tiny, *QUICK, "--kv-type", "q8_0", "--json")
    if code == 0:
        assert again == 0
        assert json.loads(out) == told


def test_a_model_of_the_catalogue_is_measured_by_name(planner, nowhere):  # noqa: ARG001 - an empty store
    """The table names every test with its spread and what it rests on, and says whether to believe it."""
    code, out, err = planner("measure", "qwen2.5-0.5b:Q4_0", *QUICK)
    assert "qwen2.5-0.5b Q4_0" in out
    for name in ("pp32 ", "tg8 ", "pp32 @ d64", "tg8 @ d64", "measured: the whole model ran", "2 threads"):
        assert name in out
    assert ("do not use these numbers" in out) == (code == 12)
    assert code in {0, 12}
    assert err.startswith("measure: ")


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (("qwen3-0.6b", "--context", "256", "--tests", "tg8", "--depth", "4k"), "impossible-context"),
        (("qwen3-0.6b", "--depth", "1m"), "impossible-context"),
        (("qwen3-0.6b:Q4_K_M", "--quant", "Q8_0"), "usage"),
        (("qwen9-8b",), "unknown-model"),
        (("./nothing.gguf",), "missing-input"),
    ],
    ids=str,
)
def test_what_cannot_be_measured_is_told_before_an_engine_starts(planner, nowhere, words, error):  # noqa: ARG001
    """A slip in the words costs nothing, and needs no engine."""
    code, out, _ = planner("measure", *words, "--json", "--engine-python", "/does/not/exist")
    assert json.loads(out)["error"]["code"] == error
    assert json.loads(out)["error"]["hint"]
    assert code in {2, 66}


FEW = ("--quick", "--threads", "2", "--tests", "tg4", "--context", "256")
LLAMA_BENCH = """| model | size | params | backend | threads | test | t/s |
|---|---|---|---|---|---|---|
| somebody's | {size} | {params} | CPU | 64 | tg4 | 99.50 |
| another | 9.99 GiB | 1.00 B | CPU | 64 | tg4 | 12.00 |
"""


def test_a_file_is_timed_itself_and_anew_when_it_changes(planner, nowhere, tiny, tmp_path):  # noqa: ARG001
    """The contents are the file's own: garbage in the data is a new question, and a phantom is another one."""
    path = tmp_path / "own.gguf"
    shutil.copy(tiny, path)
    code, out, _ = planner("measure", str(path), *FEW, "--json")
    first = json.loads(out)
    assert first["contents"] == "file"
    assert first["described"]["model_filename"] == str(path)
    assert first["described"]["model_size_bytes"] > 0
    data = bytearray(path.read_bytes())
    data[-64:] = bytes(64)
    path.write_bytes(data)
    _, out, _ = planner("measure", str(path), *FEW, "--json")
    if code == 0:
        assert json.loads(out)["results"][0]["samples_ns"] != first["results"][0]["samples_ns"]


def test_sequences_threads_and_a_prompt_with_its_answer_are_timed_as_asked(planner, nowhere, tiny):  # noqa: ARG001
    """Full length, all combinations, rates over all sequences; CSV has them too."""
    words = ("--tests", "pg16,4,tg4", "--depth", "0,16", "--parallel", "1,2", "--threads", "1,2")
    _, out, _ = planner("measure", tiny, "--quick", "--context", "64", *words, "--json")
    told = json.loads(out)
    assert len(told["results"]) == 16
    assert told["settings"]["parallel"] == 2
    for row in told["results"]:
        test = row["test"]
        assert row["tokens_timed"] == test["tokens"]
        fastest = test["tokens"] * test["sequences"] * 1e9 / min(row["samples_ns"])
        assert row["tokens_per_s"]["high"] == pytest.approx(fastest)


def test_imported_rows_stand_beside_the_same_model_and_teach_nothing(planner, nowhere, tiny, tmp_path):  # noqa: ARG001
    """Shown with the measurement and in the list; the measurement itself is untouched."""
    _, out, _ = planner("measure", tiny, *FEW, "--md")
    size, params = (cell.strip() for cell in out.splitlines()[2].split("|")[2:4])
    theirs = tmp_path / "theirs.md"
    theirs.write_text(LLAMA_BENCH.format(size=size, params=params), encoding="utf-8")
    code, out, _ = planner("measure", "--import", str(theirs))
    assert code == 0
    assert "2 rows" in out
    _, out, _ = planner("measure", tiny, *FEW)
    beside = out.partition("Elsewhere")[2].partition("Settings")[0]
    assert "99.5" in beside
    assert "another" not in beside
    _, out, _ = planner("measure", "--list", "--json")
    kept = json.loads(out)
    assert [len(each["rows"]) for each in kept["imported"]] == [2]
    assert {each["origin"] for each in kept["imported"]} == {"published"}


def test_a_file_that_cannot_be_imported_is_named_with_row_and_column(planner, nowhere, tmp_path):  # noqa: ARG001
    """And nothing of it is kept."""
    theirs = tmp_path / "theirs.md"
    theirs.write_text(LLAMA_BENCH.format(size="1 MiB", params="1 M").replace("12.00", "quick"), encoding="utf-8")
    code, out, _ = planner("measure", "--import", str(theirs), "--json")
    assert code == 65
    assert "row 2, column t/s" in json.loads(out)["error"]["message"]
    code, out, _ = planner("measure", "--list", "--json")
    assert json.loads(out)["imported"] == []
    assert planner("measure", "--import", str(tmp_path / "nothing"), "--json")[0] == 66


def test_a_measurement_is_compared_with_an_earlier_one(planner, nowhere, tiny, tmp_path):  # noqa: ARG001
    """In words for each test; three repetitions claim nothing."""
    _, out, _ = planner("measure", tiny, *FEW, "--json")
    before = tmp_path / "before.json"
    before.write_text(out, encoding="utf-8")
    _, out, _ = planner("measure", tiny, *FEW, "--against", str(before), "--json")
    assert any("than in before.json" in note for note in json.loads(out)["notes"])
    before.write_text("{}", encoding="utf-8")
    code, out, _ = planner("measure", tiny, *FEW, "--against", str(before), "--json")
    assert code == 65
    assert "no measurement" in json.loads(out)["error"]["message"]
