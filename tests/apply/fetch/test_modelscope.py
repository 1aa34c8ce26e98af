"""The other hub, through its own library: the same promises."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from planner.apply.fetch import fetch
from planner.apply.receipts import find_receipt
from planner.errors import ExitCode, PlannerError
from planner.hub import fetch_modelscope
from planner.hub.fetch_modelscope import partial_of
from planner.render.json import to_json

pytest.importorskip("modelscope_hub")


@pytest.fixture
def plan(planned):
    """A plan for the same file on ModelScope."""
    return planned("ms:org/Small-GGUF:Q4_K_M")


@pytest.fixture(autouse=True)
def no_retries(monkeypatch):
    """The library's own pauses take seconds each."""
    import modelscope_hub._download as download

    monkeypatch.setattr(download, "DOWNLOAD_RETRY_TIMES", 0)
    monkeypatch.setattr(download, "DOWNLOAD_INTEGRITY_RETRY_BACKOFF", 0.01)


def refusal(plan) -> PlannerError:
    """The error that a fetch ends with; the plan is not ready."""
    with pytest.raises(PlannerError) as caught:
        fetch(plan)
    assert find_receipt(plan) is None
    return caught.value


def test_the_file_lies_in_modelscopes_own_cache(plan, blob, home, speaker, hub):
    """Under its commit, with a receipt, and without a word on the streams."""
    done = fetch(plan)
    where = home / ".cache/modelscope/models/org--Small-GGUF/snapshots" / speaker.COMMIT / "Small-Q4_K_M.gguf"
    assert done.receipt.weights == (str(where),)
    assert where.read_bytes() == blob.body
    assert (done.receipt.hub, done.receipt.commit, done.received_bytes) == ("ms", speaker.COMMIT, blob.size)
    assert find_receipt(plan) == done.receipt
    hub.seen.clear()
    assert fetch(plan).received_bytes == 0
    assert not hub.seen


def test_the_library_says_nothing_of_its_own(plan, tmp_path):
    """No bar, no log line, no address with a signature: a fresh process prints one document."""
    (tmp_path / "plan.json").write_bytes(to_json(plan))
    argv = [sys.executable, "-m", "planner", "fetch", str(tmp_path / "plan.json"), "--json"]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)["receipt"]["hub"] == "ms"


def test_the_library_keeps_no_identity(plan, home):
    """It would write one below the home folder and send it with each request, for ever."""
    fetch(plan)
    assert not (home / ".modelscope").exists()


def test_a_cut_is_gone_on_with(plan, blob, hub):
    """The next run asks for the rest."""
    hub.fail("content", cut_at=2 << 20)
    assert refusal(plan).exit_code is ExitCode.UNAVAILABLE
    artifact = plan.chosen.artifact
    held = partial_of(artifact.repo, artifact.commit, artifact.parts[0]).stat().st_size
    assert 0 < held < blob.size
    hub.seen.clear()
    done = fetch(plan)
    (range_,) = [seen.headers["range"] for seen in hub.of("content")]
    assert range_ == f"bytes={held}-"
    assert (done.resumed_bytes, done.received_bytes) == (held, blob.size - held)
    assert Path(done.receipt.weights[0]).read_bytes() == blob.body


def test_a_wrong_byte_is_found(plan, hub):
    """And nothing of it stays."""
    hub.fail("content", flip_at=1 << 20, times=9)
    assert refusal(plan).code == "wrong-content"
    artifact = plan.chosen.artifact
    assert not partial_of(artifact.repo, artifact.commit, artifact.parts[0]).exists()


@pytest.mark.parametrize(
    ("status", "exit_code"),
    [
        (401, ExitCode.NOT_PERMITTED),
        (403, ExitCode.NOT_PERMITTED),
        (404, ExitCode.MISSING_INPUT),
        (429, ExitCode.BUSY),
        (500, ExitCode.UNAVAILABLE),
    ],
)
def test_what_the_hub_refuses_has_its_exit_code(plan, hub, status, exit_code):
    """In our words: the library's own hold addresses."""
    hub.fail("resolve", status=status, times=9)
    error = refusal(plan)
    assert error.exit_code is exit_code
    assert "http" not in error.message


def test_without_the_library_the_remedy_is_named(plan, monkeypatch):
    """It is an optional part."""
    monkeypatch.setitem(sys.modules, "modelscope_hub", None)
    error = refusal(plan)
    assert error.code == "modelscope-missing"
    assert "llama-planner[modelscope]" in error.hint


def test_a_stored_login_is_never_unpickled(plan, home, hub):
    """The library keeps it as a pickle, which is code to run: the token comes from the environment or not at all."""
    cookies = home / ".modelscope/credentials/cookies"
    cookies.parent.mkdir(parents=True)
    cookies.write_bytes(b"cos\nsystem\n(S'touch " + str(home / "ran").encode() + b"'\ntR.")
    fetch(plan)
    assert not (home / "ran").exists()
    assert all("m_session_id" not in seen.headers.get("cookie", "") for seen in hub.seen)
    assert fetch_modelscope.ENDING == ".incomplete"
