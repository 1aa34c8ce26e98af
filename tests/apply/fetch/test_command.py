"""The commands as a script meets them: one document, an exit code, no secret, and nothing lost by a kill."""

import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import msgspec
import pytest

from planner.apply.arrivals import begun, noted
from planner.apply.clean import clean
from planner.apply.fetch import fetch
from planner.apply.receipts import find_receipt
from planner.hub.storing import held
from planner.measure.lock import measurement_lock
from planner.render.json import to_json

CANARY = "hf_canary0123456789abcdefghijklmnopqrst"


@pytest.fixture
def plan_file(plan, tmp_path) -> Path:
    """The plan as ``planner plan --output`` writes it."""
    path = tmp_path / "plan.json"
    path.write_bytes(to_json(plan))
    return path


def argv(*words: object) -> list[str]:
    """A command line of a real process."""
    return [sys.executable, "-m", "planner", *map(str, words)]


def run(*words: object, **how) -> subprocess.CompletedProcess[str]:
    """Run planner to its end."""
    return subprocess.run(argv(*words), capture_output=True, text=True, check=False, timeout=120, **how)


def test_json_is_one_document(plan_file, plan, blob):
    """The receipt, and what travelled."""
    done = run("fetch", plan_file, "--json")
    assert (done.returncode, done.stderr) == (0, "")
    document = json.loads(done.stdout)
    assert document["schema"] == "planner/fetched/1"
    assert document["receipt"]["files"][0]["sha256"] == blob.sha256
    assert find_receipt(plan) is not None


def test_people_are_told_where_the_file_lies(plan_file, blob):
    """On stdout the result, on stderr a line for what took its time."""
    done = run("fetch", plan_file)
    assert done.returncode == 0
    assert "here and verified" in done.stdout
    assert blob.sha256 in done.stdout
    assert "fetching Small-Q4_K_M.gguf" in done.stderr


def test_a_failure_is_one_document_too(plan_file, hub):
    """With the code and the page in the hint."""
    hub.gated.add("org/Small-GGUF")
    done = run("fetch", plan_file, "--json")
    assert done.returncode == 77
    error = json.loads(done.stdout)["error"]
    assert error["code"] == "gated"
    assert "/org/Small-GGUF" in error["hint"]


def test_a_plan_that_is_none_is_told(tmp_path):
    """66 for a missing file, 65 for another document."""
    (tmp_path / "x.json").write_text("{}")
    assert run("fetch", tmp_path / "x.json").returncode == 65
    assert run("fetch", tmp_path / "nowhere.json").returncode == 66


@pytest.mark.parametrize(
    "fault",
    [
        None,
        {"kind": "head", "status": 401, "times": 9},
        {"kind": "content", "flip_at": 5, "times": 9},
        {"kind": "resolve", "location": f"ftp://x/?token={CANARY}"},
        {"kind": "content", "status": 404, "headers": {"X-Error-Message": CANARY}, "body": CANARY.encode(), "times": 9},
    ],
    ids=str,
)
@pytest.mark.parametrize("scheme", ["hf", "ms"])
def test_the_token_is_nowhere(planned, hub, tmp_path, monkeypatch, fault, scheme, hasty, capfd, caplog):
    """Not on a stream, in a log, in a file, in an exception, or on another server's wire."""
    caplog.set_level(0)
    monkeypatch.setenv({"hf": "HF_TOKEN", "ms": "MODELSCOPE_API_TOKEN"}[scheme], CANARY)
    monkeypatch.setenv("MODELSCOPE_DOWNLOAD_MAX_RETRIES", "0")
    # Another name for the same address: a cookie knows no ports.
    hub.content = hub.content.replace("127.0.0.1", "localhost")
    plan = planned(f"{scheme}:org/Small-GGUF:Q4_K_M")
    if fault is not None:
        hub.fail(**fault)
    told = ""
    try:
        told = to_json(fetch(plan, patience=hasty)).decode()
    except Exception as error:  # noqa: BLE001 - whatever it is, its whole chain is searched
        cause: BaseException | None = error
        while cause is not None:
            told += f"{cause!r} {cause} {vars(cause)}"
            cause = cause.__cause__ or (None if cause.__suppress_context__ else cause.__context__)
    out, err = capfd.readouterr()
    # The HTTP client logs what a server says, and some of these servers say our token.
    logged = "" if CANARY in str(fault) else caplog.text
    everything = told + out + err + logged
    for path in tmp_path.rglob("*"):
        everything += str(path)
        if path.is_file():
            everything += path.read_bytes().decode("latin-1")
    assert CANARY not in everything
    assert all(CANARY not in str(seen.headers) + seen.path for seen in hub.of("content"))
    assert any(CANARY in str(seen.headers) for seen in hub.seen)


def test_a_disk_that_fills_up_ends_in_74_and_is_gone_on_with(plan_file, plan, blob, cache):
    """The limit on file sizes stands for the full disk; what had arrived is kept, and is all right."""

    def limited() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))

    done = run("fetch", plan_file, "--json", preexec_fn=limited)
    assert done.returncode == 74, done.stderr
    assert json.loads(done.stdout)["error"]["code"] == "disk-full"
    assert find_receipt(plan) is None
    (partial,) = cache.rglob("*.incomplete")
    assert blob.body.startswith(partial.read_bytes())
    done = run("fetch", plan_file, "--json")
    assert json.loads(done.stdout)["resumed_bytes"] == partial_size(blob)
    assert find_receipt(plan) is not None


def partial_size(blob) -> int:
    """What fits under that limit."""
    return min(1 << 20, blob.size)


@pytest.mark.skipif(not Path("/sys").is_dir(), reason="there is no folder that nobody may write to")
def test_a_cache_that_may_not_be_written_ends_in_77(plan_file, monkeypatch):
    """With the variable that names another."""
    monkeypatch.setenv("HF_HOME", "/sys/planner")
    done = run("fetch", plan_file)
    assert done.returncode == 77
    assert "HF_HOME" in done.stderr


def test_a_cache_that_is_a_file_is_told(plan_file, tmp_path, monkeypatch):
    """Not a traceback."""
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "file"))
    done = run("fetch", plan_file)
    assert done.returncode in {74, 77}
    assert "Traceback" not in done.stderr


def test_hf_home_says_where_to(plan_file, plan, tmp_path, monkeypatch):
    """As in every program that uses the library."""
    monkeypatch.setenv("HF_HOME", str(tmp_path / "elsewhere"))
    assert run("fetch", plan_file).returncode == 0
    receipt = find_receipt(plan)
    assert receipt.weights[0].startswith(str(tmp_path / "elsewhere/hub/models--org--Small-GGUF/snapshots/"))


def test_a_kill_costs_nothing_that_had_arrived(plan_file, plan, hub, blob, cache):
    """SIGKILL in the middle; the next run asks for the rest and for nothing else."""
    hub.fail("content", drip_after=2 << 20)
    process = subprocess.Popen(argv("fetch", plan_file), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    end = time.monotonic() + 30
    while time.monotonic() < end and not any(p.stat().st_size >= 2 << 20 for p in cache.rglob("*.incomplete")):
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert find_receipt(plan) is None
    (partial,) = cache.rglob("*.incomplete")
    before = partial.stat().st_size
    assert before >= 2 << 20
    hub.seen.clear()
    done = run("fetch", plan_file, "--json")
    assert json.loads(done.stdout)["resumed_bytes"] == before
    assert [seen.headers["range"] for seen in hub.of("content")] == [f"bytes={before}-{blob.size - 1}"]
    assert find_receipt(plan) is not None
    assert not list(cache.rglob("*.incomplete"))
    assert noted() == ()


def test_ctrl_c_keeps_what_arrived_and_ends_in_130(plan_file, plan, hub, cache):
    """No traceback, no thread that lingers, no receipt."""
    hub.fail("content", drip_after=1 << 20)
    process = subprocess.Popen(argv("fetch", plan_file), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    end = time.monotonic() + 30
    while time.monotonic() < end and not any(p.stat().st_size >= 1 << 20 for p in cache.rglob("*.incomplete")):
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, told = process.communicate(timeout=10)
    assert process.returncode == 130
    assert "Traceback" not in told
    assert find_receipt(plan) is None
    assert list(cache.rglob("*.incomplete"))


def leave(hub, plan, hasty, cache) -> Path:
    """A download that did not end."""
    hub.fail("content", cut_at=1 << 20)
    with pytest.raises(Exception, match="cut"):
        fetch(plan, patience=msgspec.structs.replace(hasty, retries=0))
    (partial,) = cache.rglob("*.incomplete")
    return partial


def test_clean_only_tells_unless_somebody_says_yes(hub, plan, hasty, cache):
    """A script that forgets the word loses nothing."""
    partial = leave(hub, plan, hasty, cache)
    done = run("clean", "--json", stdin=subprocess.DEVNULL)
    assert done.returncode == 0
    report = json.loads(done.stdout)
    assert not report["removed"]
    assert str(partial) in done.stdout
    assert partial.exists()


def test_clean_leaves_no_trace_of_what_did_not_end(hub, plan, hasty, cache, tmp_path):
    """Neither the front of the file nor its folders, lock and note."""
    leave(hub, plan, hasty, cache)
    done = run("clean", "--yes")
    assert done.returncode == 0
    assert "incomplete download" in done.stdout
    left = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert left in ([], [tmp_path / "measure.lock"])  # the machine's own lock, which is never removed
    assert not list(cache.iterdir())


def test_clean_keeps_what_was_verified(plan, hasty):
    """Weights go only when they are named."""
    done = fetch(plan, patience=hasty)
    clean(remove=True)
    assert find_receipt(plan) == done.receipt
    report = clean(remove=True, weights=True)
    assert report.removed
    assert not Path(done.receipt.weights[0]).exists()
    assert find_receipt(plan) is None
    assert clean(remove=False, weights=True).leftovers == ()


def test_clean_never_takes_a_file_that_lies_elsewhere(planned, tmp_path, blob):
    """A receipt may speak of somebody's own file: with --weights the note goes, the file stays."""
    path = tmp_path / "mine.gguf"
    path.write_bytes(blob.body)
    fetch(planned(str(path)))
    report = clean(remove=True, weights=True)
    assert path.exists()
    assert str(path) in report.kept[0]


def test_clean_leaves_a_fetch_that_is_running(hub, plan, hasty, cache):
    """Its lock is held."""
    partial = leave(hub, plan, hasty, cache)
    (lock,) = cache.rglob("*.lock")
    with held(lock):
        report = clean(remove=True)
    assert partial.exists()
    assert str(partial) in report.kept[0]
    clean(remove=True)
    assert not partial.exists()


def test_clean_removes_phantoms_unless_somebody_works_with_them(tmp_path):
    """A measurement writes one after the other into that folder."""
    phantom = tmp_path / "cache/phantoms/phantom-1/model.gguf"
    phantom.parent.mkdir(parents=True)
    phantom.write_bytes(b"x")
    with measurement_lock():
        assert "measurement is running" in clean(remove=True).kept[0]
    assert phantom.exists()
    port = tmp_path / "cache/serve/port-8080.lock"
    with held(port):
        assert "server is running" in clean(remove=True).kept[0]
    assert phantom.exists()
    assert clean(remove=True).kept == ()
    assert not phantom.exists()


def test_clean_takes_old_temporary_folders_of_ours_alone(tmp_path, monkeypatch):
    """An hour without a change; a younger one may be somebody's at work."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    for name in ("planner-headers-old", "planner-headers-new", "others-old"):
        (tmp_path / "tmp" / name).mkdir(parents=True)
    for name in ("planner-headers-old", "others-old"):
        os.utime(tmp_path / "tmp" / name, (1, 1))
    clean(remove=True)
    assert sorted(path.name for path in (tmp_path / "tmp").iterdir()) == ["others-old", "planner-headers-new"]


def test_clean_finds_a_download_after_the_cache_has_moved(hub, plan, hasty, cache, monkeypatch, tmp_path):
    """It was noted where it began."""
    partial = leave(hub, plan, hasty, cache)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "another"))
    clean(remove=True)
    assert not partial.exists()


def test_clean_never_takes_a_strangers_incomplete_file(cache, plan, hub, hasty):
    """Other programs download into the same folder."""
    theirs = cache / "models--org--Small-GGUF/blobs" / f"{'a' * 64}.1234abcd.incomplete"
    theirs.parent.mkdir(parents=True)
    theirs.write_bytes(b"x")
    clean(remove=True)
    assert theirs.exists()
    assert hub
    assert fetch(plan, patience=hasty)
    assert theirs.exists()


def test_a_note_is_refused_early_where_nothing_can_be_kept(plan, hasty, hub, monkeypatch, tmp_path):
    """Before the download, not after it."""
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("PLANNER_DATA_DIR", str(tmp_path / "file"))
    with pytest.raises(Exception, match="cannot write") as caught:
        fetch(plan, patience=hasty)
    assert "PLANNER_DATA_DIR" in caught.value.hint
    assert not hub.of("content")
    with pytest.raises(Exception, match="cannot write"):
        begun(tmp_path / "x")
