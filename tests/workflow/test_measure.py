"""``planner measure`` for real: a tiny model, the real engine, the store, and what is refused before it starts."""

import json

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
