"""``planner drift`` from end to end: real answers, an older build whose numbers were edited, exit codes 0 and 11."""

import json
import os

import pytest

from planner import workflow
from planner.cli import run
from planner.workflow import EstimateRequest

pytestmark = pytest.mark.engine


@pytest.fixture
def engine_folder(tmp_path, monkeypatch):
    """A cache in which one model was asked about, on this CPU and on a card that is not here."""
    monkeypatch.setenv("PLANNER_CACHE_DIR", str(tmp_path))
    for machine in (None, "rtx-4090"):
        workflow.estimate(EstimateRequest(model="qwen3-0.6b", context_tokens=2048, machine=machine))
    return tmp_path / "engine"


def make_older(folder, factor, *, name="older", age_s=100):
    """What is kept, as another build's answers with other compute buffers."""
    (build,) = [path for path in folder.iterdir() if path.name not in ("older", "oldest")]
    (folder / name).mkdir()
    for path in build.glob("*.json"):
        told = json.loads(path.read_bytes())
        if isinstance(told, dict):
            for answer in told["buffers"].values():
                for buffer in answer["buffers"]:
                    buffer["compute_bytes"] = round(buffer["compute_bytes"] * factor)
        copy = folder / name / path.name
        copy.write_text(json.dumps(told))
        os.utime(copy, (copy.stat().st_mtime - age_s,) * 2)
    return build


def planner(*words):
    """The exit code of a command."""
    with pytest.raises(SystemExit) as left:
        run(list(words))
    return left.value.code


def test_without_another_build_there_is_nothing_to_compare(engine_folder):
    """The first build of a cache has drifted from nothing."""
    report = workflow.drift()
    assert (report.build_before, report.questions, report.changes) == (None, 0, ())
    assert [path.name for path in engine_folder.iterdir()] == [report.build]


def test_every_question_of_the_older_build_is_asked_again_and_compared(engine_folder):
    """Compute moved on the CPU and on the card; caches and weights did not. Builds older still are removed."""
    build = make_older(engine_folder, 0.9)
    make_older(engine_folder, 0.5, name="oldest", age_s=1000)
    asked = sum(
        len(json.loads(path.read_bytes())[kind])
        for path in (engine_folder / "older").glob("*.json")
        if path.name != "process.json"
        for kind in ("weights", "buffers")
    )
    for path in build.glob("*.json"):
        if path.name != "process.json":
            path.unlink()  # nothing of the new build is known yet
    report = workflow.drift()
    assert (report.build_before, report.questions, report.skipped) == ("older", asked, {})
    assert {(change.model, change.quantity) for change in report.changes} == {("qwen3-0.6b", "compute")}
    assert {"CPU", "CUDA0"} <= {change.buffer for change in report.changes}
    assert all(change.ratio == pytest.approx(1 / 0.9 - 1, rel=1e-3) for change in report.changes)
    assert report.removed_builds == ("oldest",)
    assert sorted(path.name for path in engine_folder.iterdir()) == sorted(["older", build.name])


@pytest.mark.parametrize(("factor", "code"), [(1.0, 0), (0.9, 11)])
def test_the_exit_code_says_whether_numbers_moved(engine_folder, capfdbinary, factor, code):
    """Scripts read 0 or 11; the document is one JSON object either way."""
    make_older(engine_folder, factor)
    assert planner("drift", "--json") == code
    document = json.loads(capfdbinary.readouterr().out)
    assert document["schema"] == "planner/drift/1"
    assert bool(document["changes"]) == bool(code)


def test_questions_that_cannot_be_asked_again_are_counted(engine_folder):
    """About a file, by an older planner, with phantoms under other rules: told, and nothing else is lost."""
    make_older(engine_folder, 1.0)
    (path,) = [path for path in (engine_folder / "older").glob("*.json") if path.name != "process.json"]
    told = json.loads(path.read_bytes())
    path.with_name("0123456789abcdef.json").write_text(json.dumps(told))
    card = next(key for key in told["buffers"] if "rules" in key)
    rules = json.loads(card)["rules"]
    told["buffers"][card.replace(rules, "older-rules")] = told["buffers"][card]
    told["buffers"]["Q4_K_M|context_tokens=4096"] = told["buffers"][card]
    told["buffers"]['{"of":"Q9_Z","settings":{}}'] = told["buffers"][card]
    path.write_text(json.dumps(told))
    report = workflow.drift()
    assert sorted(report.skipped.values())[:3] == [1, 1, 1]
    assert sum("file" in why for why in report.skipped) == 1
    assert report.changes == ()


def test_an_estimate_tells_drift_once(engine_folder):
    """In a sentence with both numbers, beside the verdict; the next run has the new build's own answers."""
    build = make_older(engine_folder, 0.9)
    for path in build.glob("*.json"):
        if path.name != "process.json":
            path.unlink()
    request = EstimateRequest(model="qwen3-0.6b", context_tokens=2048)
    told = [reason.text for reason in workflow.estimate(request).reasons if reason.code == "engine-changed"]
    assert len(told) == 1
    assert "compute of qwen3-0.6b Q4_K_M (CPU)" in told[0]
    assert "+11.1 %" in told[0]
    again = workflow.estimate(request).reasons
    assert not [reason for reason in again if reason.code == "engine-changed"]
