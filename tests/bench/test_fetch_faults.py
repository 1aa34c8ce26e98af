"""The record of the faults says what the documentation says, and a judge that finds nothing wrong could find it."""

import json
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def record():
    """What the last run wrote down."""
    return json.loads((ROOT / "bench/results/fetch_faults.json").read_text())


def test_the_record_holds_what_was_promised(record):
    """100 faults and 50 kills, none of them wrong, and one transfer for all that ask at once."""
    assert record["held"]
    assert record["faults"] == len(record["scripted"]) >= 100
    assert record["kills"] == len(record["killed"]) >= 50
    assert not [row for row in (*record["scripted"], *record["killed"]) if row["wrong"]]
    assert record["at_once"]["sent_bytes"] == record["at_once"]["file_bytes"]
    assert f"under {record['faults']} scripted faults" in (ROOT / "bench/README.md").read_text()


def test_the_cases_are_many_kinds(record):
    """A fault that never bites proves nothing: most runs ended in an error, many kills left bytes to go on with."""
    assert len({row["name"] + row["hub"] for row in record["scripted"]}) == record["faults"]
    assert len(record["ends"]) > 12
    assert record["ends"]["0"] < record["faults"] / 2
    assert sum(bool(row["held_bytes"]) for row in record["killed"]) >= 20
    assert {row["hub"] for row in record["killed"]} == {"hf", "ms"}


def test_the_judge_finds_what_is_wrong(tmp_path, monkeypatch):
    """A receipt for other bytes, a file that stays behind: each is told."""
    for name in ("HOME", "PLANNER_CACHE_DIR", "PLANNER_DATA_DIR", "HF_HOME", "MODELSCOPE_CACHE", "HF_ENDPOINT"):
        monkeypatch.setenv(name, "")
    for name in ("MODELSCOPE_ENDPOINT", "NO_PROXY", "PLANNER_LOCK_FILE", "MODELSCOPE_DOWNLOAD_MAX_RETRIES"):
        monkeypatch.setenv(name, "")
    monkeypatch.syspath_prepend(str(ROOT / "bench"))
    sys.modules.pop("fetch_faults_world", None)
    import fetch_faults_world as bench

    from planner.apply.fetch import fetch

    with bench.world(bench.load_server(), tmp_path, 1, "hf") as here:
        done = fetch(here.plan, patience=bench.HASTY)
        assert (here.not_whole(), here.wrongly_ready(), here.left()) == ("", "", [])
        assert here.held_bytes() == here.blob.size
        (here.folder / "stray").write_text("x")
        assert here.left() == ["stray"]
        here.blob.body = here.blob.body[:-1] + b"?"
        assert here.wrongly_ready() == "a receipt for wrong bytes"
        Path(done.receipt_path).unlink()
        assert here.not_whole() == "no receipt after a good run"
