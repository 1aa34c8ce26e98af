import json
import os
import re
import signal
import subprocess
import time
from pathlib import Path

import jsonschema
import pytest

from planner import errors
from planner.errors import ExitCode, PlannerError
from planner.render.documents import ErrorDocument
from planner.render.schema import schema_of

BAD_WORDS = (
    ("frobnicate",),
    ("plan", "--contxt", "8"),
    ("plan", "--context", "0"),
    ("plan", "--context", "2147483648"),
    ("plan", "--context", "eight"),
    ("plan", "--context", "1073741824", "--parallel", "2"),
    ("plan", "--parallel", "0"),
    ("plan", "--parallel", "257"),
    ("plan", "--min-speed", "nan"),
    ("plan", "--min-speed", "-1"),
    ("plan", "--max-answer-seconds", "0"),
    ("plan", "--language", "a1"),
    ("plan", "--for", "poetry"),
    ("plan", "--kv-type", "q3_0"),
    ("plan", "--load-mode", "fast"),
    ("plan", "--license", "free"),
    ("plan", "--reserve", "2"),
    ("plan", "--quick", "--no-measure"),
    ("plan", "superfluous"),
    ("plan", "--output"),
    ("estimate",),
    ("estimate", "qwen3-8b", "--threads", "0"),
    ("why-not",),
    ("detect", "--machine", "m", "--capture", "c.json"),
    ("schema", "poem"),
    ("models", "--language", "a1"),
    ("models", "--max-size", "8"),
    ("models", "--license", "free"),
    ("models", "--machine", "rtx-4090"),
    ("show",),
    ("inspect",),
    ("plan", "--local", "--model", "qwen3-8b"),
    ("measure",),
    ("measure", "qwen3-8b", "--tests", "pp0"),
    ("measure", "qwen3-8b", "--tests", "pp512;tg128"),
    ("measure", "qwen3-8b", "--depth", "-1"),
    ("measure", "qwen3-8b", "--depth", "0,,4096"),
    ("measure", "qwen3-8b", "--machine", "rtx-4090"),
)


@pytest.mark.parametrize("words", BAD_WORDS, ids=" ".join)
def test_bad_words_are_one_line_on_stderr_and_end_with_2(words, invoke):
    """Nothing is on stdout; people get the error and a hint."""
    code, out, err = invoke(*words)
    assert code == 2
    assert out == ""
    lines = err.splitlines()
    assert re.match(r"error: \S", lines[0])
    assert lines[1].startswith("hint: ")
    assert len(lines) == 2


@pytest.mark.parametrize("words", BAD_WORDS, ids=" ".join)
def test_bad_words_are_one_error_document_under_json(words, invoke):
    """Even when the words cannot be parsed."""
    # In front, so that a command that expects a value after its last word does not swallow it.
    code, out, err = invoke(words[0], "--json", *words[1:])
    assert code == 2
    assert err == ""
    document = json.loads(out)
    jsonschema.validate(document, schema_of(ErrorDocument))
    assert document["error"]["exit_code"] == 2
    assert document["error"]["message"]
    assert document["error"]["hint"]


def error_classes():
    """Every error that the project raises."""
    classes = [getattr(errors, name) for name in errors.__all__]
    return [kind for kind in classes if isinstance(kind, type) and issubclass(kind, PlannerError)]


@pytest.mark.parametrize("kind", error_classes(), ids=lambda kind: kind.__name__)
def test_every_error_ends_with_its_own_code_and_hint(kind, workflow, invoke, monkeypatch):
    """The class decides the exit code; the same error is a line for people and a document for programs."""
    more = {"how": "killed", "last_words": "ggml_abort:\nout of memory"} if kind is errors.EngineDiedError else {}

    def fail(*_, **__):
        raise kind("it broke", hint="mend it", **more)

    monkeypatch.setattr(workflow, "plan", fail)
    code, out, err = invoke("plan")
    assert code == kind.exit_code
    assert out == ""
    assert err.splitlines()[-1] == "hint: mend it"
    assert "error: it broke" in err
    code, out, _ = invoke("plan", "--json")
    assert code == kind.exit_code
    body = json.loads(out)["error"]
    assert (body["code"], body["exit_code"], body["hint"]) == (kind.code, int(kind.exit_code), "mend it")
    if more:
        assert "ggml_abort: out of memory" in body["message"]


def test_a_talkative_engine_still_gives_one_short_line(workflow, invoke, monkeypatch):
    """The end of what it said is kept, because the reason stands there."""

    def fail(*_, **__):
        raise errors.EngineDiedError("it died", how="abort", last_words="noise\n" * 500 + "GGML_ASSERT failed")

    monkeypatch.setattr(workflow, "plan", fail)
    code, _, err = invoke("plan")
    assert code == 13
    assert err.endswith("GGML_ASSERT failed\n")
    assert len(err) < 400


def test_an_unexpected_exception_is_our_bug_and_keeps_its_traceback(invoke, monkeypatch):
    """70, the traceback on stderr, still one document on stdout."""
    monkeypatch.setenv("STAND_IN", "bug")
    code, out, err = invoke("plan")
    assert code == 70
    assert out == ""
    assert "Traceback (most recent call last)" in err
    assert "error: this is a bug in planner: ZeroDivisionError: the stand-in divides by zero" in err
    code, out, err = invoke("plan", "--json")
    assert code == 70
    assert json.loads(out)["error"]["code"] == "bug"
    assert "Traceback" in err


def test_a_failed_output_file_leaves_one_error_document_and_no_plan(invoke, tmp_path):
    """The file is written before stdout: never a plan and an error in one stream."""
    blocked = tmp_path / "file"
    blocked.write_text("")
    code, out, _ = invoke("plan", "--json", "--output", str(blocked / "plan.json"))
    assert code in (ExitCode.IO, ExitCode.NOT_PERMITTED)
    assert set(json.loads(out)) == {"error"}


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs Linux's /dev/full")
@pytest.mark.parametrize("words", [["plan"], ["plan", "--json"], ["models"], ["--help"]], ids=" ".join)
def test_a_full_disk_behind_stdout_is_74_and_said_on_stderr(words, program):
    """The answer was lost, so the run failed; the interpreter adds no complaint of its own."""
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run([*program, *words], stdout=full, stderr=subprocess.PIPE, check=False, timeout=60)
    assert done.returncode == 74
    assert done.stderr.startswith(b"error: cannot write")
    assert b"Exception ignored" not in done.stderr
    assert b"Traceback" not in done.stderr


@pytest.mark.parametrize("words", [["plan", "--json"], ["--help"]], ids=" ".join)
def test_a_reader_that_left_gets_no_complaint(words, program):
    """``planner models | head`` is quiet."""
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run([*program, *words], stdout=writing, stderr=subprocess.PIPE, check=False, timeout=60)
    os.close(writing)
    assert done.returncode == 74
    assert done.stderr == b""


def test_a_closed_stdout_and_stderr_are_survived(program):
    """A daemon may close both."""
    command = " ".join([*program, "models"])
    done = subprocess.run(["/bin/sh", "-c", f"{command} >&- 2>&-"], check=False, timeout=60)
    assert done.returncode == 0


@pytest.mark.parametrize("json_words", [[], ["--json"]], ids=["text", "json"])
def test_ctrl_c_ends_with_130_and_writes_nothing_half(json_words, program, tmp_path):
    """The output file does not exist, stdout is empty or one error document."""
    file = tmp_path / "plan.json"
    child = subprocess.Popen(
        [*program, "plan", "--output", str(file), *json_words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "STAND_IN": "wait"},
    )
    assert child.stderr is not None
    assert child.stderr.readline() == b"waiting\n"
    child.send_signal(signal.SIGINT)
    started = time.monotonic()
    out, err = child.communicate(timeout=30)
    assert time.monotonic() - started < 10
    assert child.returncode == 130
    assert list(tmp_path.iterdir()) == []
    assert b"Traceback" not in err
    if json_words:
        assert json.loads(out)["error"]["code"] == "interrupted"
    else:
        assert out == b""
        assert err == b"error: interrupted\n"


def test_no_words_at_all_show_the_help_and_end_with_2(invoke):
    """Somebody who types ``planner`` learns what to type next."""
    code, _, err = invoke()
    assert code == 2
    assert "planner plan" in err
    assert "Traceback" not in err
