"""The judge of predicted speeds: a record that is right passes, and each claim can fail."""

import json
from pathlib import Path

import pytest

PROGRAM = "speed_report"
RECORD = Path(__file__).parents[2] / "bench" / "results" / "speed_earlier.json"
QUIET = {"generate_ns": [4e6], "prompt_ns": [1.2e6]}


def slower(reference, factor):
    """What the reference takes when all of it takes so many times as long."""
    return {name: [ns * factor for ns in each] for name, each in reference.items()}


def record(*, off=None, factor=1.0, held=0.8):
    """Ten models that take what was predicted but for ``off`` by test; ``factor``: the reference beside them."""
    tests = ("tg", "pp512", "tg@8192", "x2", "x4", "x8")
    models = {}
    for place in range(10):
        took = {test: 1e8 * (1 + (off or {}).get(test, 0.0)) * factor for test in tests}
        # An interval that is off beside a middle that is right: coverage is judged apart from errors.
        ends = [5e7, 2e8] if place < 10 * held else [3e8, 4e8]
        models[f"model-{place}"] = {
            "architecture": "qwen3",
            "seen": False,
            "file_bytes": 1e9,
            "parameters": 1e9,
            "parameters_active": 1e9,
            "took_ns": took,
            "passes": [
                {
                    "samples_ns": {test: [ns] for test, ns in took.items()},
                    "reference": slower(QUIET, factor),
                    "predicted_ns": {"55": {test: [1e8, *ends] for test in tests}},
                    "pace": {"55": 1.0},
                }
            ],
        }
    return {"models": models, "calibrated_at": [{"55": QUIET}], "copy_bytes_per_s": 1e10}


def test_a_record_whose_predictions_are_right_passes(bench):
    """And its report can be made."""
    assert bench.failures(record()) == []
    assert "60" in bench.report(record())


@pytest.mark.parametrize("test", ["tg", "pp512", "tg@8192", "x2"])
def test_one_test_that_is_off_fails_its_claim(bench, test):
    """Batches are judged together: all of them are off."""
    tests = ["x2", "x4", "x8"] if test == "x2" else [test]
    failed = bench.failures(record(off=dict.fromkeys(tests, 0.3)))
    assert any(line.endswith("as ratios to the reference") for line in failed)
    assert not all(line.endswith("as ratios to the reference") for line in failed)
    assert all(line.startswith("batch" if test == "x2" else test) for line in failed)


@pytest.mark.parametrize("held", [0.5, 1.0])
def test_intervals_that_hold_too_little_or_too_much_fail(bench, held):
    """A width that is always enough says nothing."""
    failed = f"the 80 % interval covers {held:.0%}"
    assert bench.failures(record(held=held)) == [failed, f"{failed}, as ratios to the reference"]


def test_a_slower_hour_is_no_error_by_ratios_and_fails_the_plans_that_did_not_know_it(bench):
    """Models follow the reference with the powers of ``pace``: here, both of them and the models by their sum."""
    hour = 1.3
    done = record(factor=hour)
    for model in done["models"].values():
        for name in model["took_ns"]:
            model["took_ns"][name] = 1e8 * hour**0.85
            model["passes"][0]["samples_ns"][name] = [1e8 * hour**0.85]
    failed = bench.failures(done)
    assert failed
    assert not any(line.endswith("as ratios to the reference") for line in failed)
    told = bench.rows(done, "55", "tg", basis="told")
    assert all(row[2] == pytest.approx(hour**0.85 - 1) for row in told)


def test_models_that_are_slower_alone_are_an_error(bench):
    """A reference that is as fast as ever excuses nothing."""
    assert bench.failures(record(off=dict.fromkeys(bench.LIMITS, 0.3)))


def test_the_record_misses_what_it_is_said_to_miss_and_nothing_else(bench):
    """The README says so too: 12.5 % where 12 are asked, as plans of that hour told."""
    done = json.loads(RECORD.read_text())
    assert bench.failures(done) == ["tg: the 90th percentile is above 12%"]
    assert len(done["models"]) >= 20
