"""Talking to the engine's child: answers, events, size, environment, and the words for what went wrong."""

import os
import stat
import subprocess
import sys
import threading
import time
import venv
from pathlib import Path

import psutil
import pytest

from planner.engine.child import EngineChild
from planner.engine.process import child_environment
from planner.errors import EngineMissingError, ExitCode, PlannerError, UsageError

MIB = 2**20
DYING_WORKER = Path(__file__).parent / "dying_worker"


def test_one_start_answers_many_questions():
    """The worker starts with the first question, not before, and stays the same process."""
    with EngineChild() as child:
        assert (child.alive, child.pid) == (False, None)
        assert child.ask("ping", {"n": 1})["args"] == {"n": 1}
        first = child.pid
        assert [child.ask("ping", {"n": n})["args"] for n in range(20)] == [{"n": n} for n in range(20)]
        assert child.pid == first
        assert child.alive
    assert not child.alive
    assert not psutil.pid_exists(first)


def test_close_may_be_called_twice_and_a_closed_child_starts_again():
    """Closing is an end of the process, not of the object."""
    child = EngineChild()
    child.close()
    child.ask("ping")
    child.close()
    child.close()
    assert child.ask("ping")
    child.close()
    assert not child.alive


def test_a_clean_close_takes_no_time(dying):
    """The worker leaves by itself at the end of its stdin; nobody waits for the grace period."""
    dying.ask("ping")
    started = time.monotonic()
    dying.close()
    assert time.monotonic() - started < 0.25


def test_requests_and_replies_larger_than_any_pipe_arrive_whole(dying):
    """12 MiB there and 4 MiB back, while a pipe holds 64 KiB."""
    text = "é" * (2 * MIB)
    assert dying.ask("ping", {"text": text})["args"] == {"text": text}


def test_a_path_that_is_no_utf8_reaches_the_worker(dying, tmp_path):
    """Such a name travels as Python holds it; in a reply its odd byte is shown as a question mark."""
    name = os.fsdecode(b"model-\xff.gguf")
    assert dying.ask("ping", {"path": name})["args"] == {"path": "model-?.gguf"}
    (tmp_path / name).write_bytes(b"")
    assert dying.ask("file_exists", {"path": str(tmp_path / name)}) == {"exists": True}


def test_a_flood_on_stdout_and_stderr_blocks_nobody(dying):
    """50 MiB on each; the answer comes all the same, and the parent keeps next to nothing of it."""
    dying.ask("ping")
    before = psutil.Process().memory_info().rss
    assert dying.ask("flood", {"mib": 50}) == {"written_mib": 50}
    assert psutil.Process().memory_info().rss - before < 20 * MIB


def test_native_output_on_stdout_is_no_reply(dying):
    """The engine prints backtraces there; only the dedicated pipe answers."""
    assert dying.ask("print_to_stdout") == {"from": "reply"}


def test_events_come_in_order_before_the_result(dying):
    """And nobody has to listen."""
    events = []
    assert dying.ask("emit_and_answer", {"events": 50}, on_event=events.append) == {"done": True}
    assert events == [{"step": step} for step in range(50)]
    assert dying.ask("emit_and_answer", {"events": 50}) == {"done": True}


def test_an_error_in_the_listener_ends_the_worker_and_passes_through(dying):
    """The rest of the answer would be in the pipe, so the conversation starts anew."""

    def refuse(event: dict[str, object]) -> None:
        raise RuntimeError(f"no {event}")

    with pytest.raises(RuntimeError, match="no"):
        dying.ask("emit_and_answer", {"events": 2}, on_event=refuse)
    assert not dying.alive
    assert dying.ask("emit_and_answer", {"events": 2}) == {"done": True}


def test_a_slow_start_does_not_eat_the_deadline_of_the_question():
    """A cold disk is no hang of the engine."""
    with EngineChild(worker=DYING_WORKER, env={"SLOW_START_S": "0.8"}) as child:
        assert child.ask("ping", deadline_s=0.5)


def test_a_child_started_by_a_thread_outlives_the_thread():
    """The kernel would kill it with its thread, so only the main thread is followed."""
    with EngineChild() as child:
        thread = threading.Thread(target=child.ask, args=("ping",))
        thread.start()
        thread.join()
        first = child.pid
        time.sleep(0.1)
        assert child.ask("ping")
        assert child.pid == first


def test_the_worker_arranges_its_own_life_and_death(dying, tmp_path, monkeypatch):
    """Own session and group, no core, first in line for the OOM killer, stdin empty, nothing leaks to children."""
    monkeypatch.chdir(tmp_path)
    status = dying.ask("status")
    assert status["pid"] == status["group"] == status["session"] == dying.pid
    assert max(status["core_limits"]) <= 1
    assert status["same_stdout_and_stderr"]
    assert status["stdin"] == ""
    assert status["interrupt_ignored"]
    assert status["path_0"] == str(DYING_WORKER)
    assert not status["working_directory_on_path"]
    assert status["oom_score_adj"] in {"1000", None}
    assert status["inheritable_descriptors"] == []


def test_the_environment_is_an_allow_list_without_secrets(dying, monkeypatch):
    """What llama.cpp, CUDA and OpenMP read passes; tokens, keys and PYTHON variables do not."""
    for name in ("CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS", "GGML_SOMETHING", "LLAMA_CPP_LIB_PATH_UNUSED"):
        monkeypatch.setenv(name, "1")
    for name in ("LLAMA_API_KEY", "HF_TOKEN", "AWS_SECRET_ACCESS_KEY", "PYTHONPATH", "LD_PRELOAD_X", "SSH_AUTH_SOCK"):
        monkeypatch.setenv(name, "secret")
    seen = dying.ask("environment")
    assert {"CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS", "GGML_SOMETHING", "LLAMA_CPP_LIB_PATH_UNUSED", "PATH"} <= set(
        seen
    )
    assert "secret" not in seen.values()
    assert seen["GGML_NO_BACKTRACE"] == "1"


def test_extra_environment_wins():
    """The caller sets what a question needs, OpenMP's waiting for instance."""
    assert child_environment({"OMP_WAIT_POLICY": "passive", "EDITOR": "vi"}, {"OMP_WAIT_POLICY": "active"}) == {
        "GGML_NO_BACKTRACE": "1",
        "OMP_WAIT_POLICY": "active",
    }


def test_failures_in_words_leave_the_worker_alive(dying):
    """A bug, a value that is no JSON and an unknown operation are told, not died of."""
    dying.ask("ping")
    first = dying.pid
    with pytest.raises(PlannerError, match=r"KeyError: 'absent' \(at deaths.py:\d+ raise_python_error") as bug:
        dying.ask("raise_python_error")
    assert bug.value.exit_code == ExitCode.BUG
    assert "\n" not in bug.value.message
    with pytest.raises(PlannerError, match="not JSON"):
        dying.ask("bad_number")
    with pytest.raises(UsageError, match="no operation 'tea'"):
        dying.ask("tea")
    assert dying.ask("ping")
    assert dying.pid == first


def test_a_refusal_and_a_failed_allocation_are_errors_of_the_engine(dying):
    """Each with its own code, both with the words of the worker."""
    with pytest.raises(PlannerError, match="broken header") as refused:
        dying.ask("refuse", {"kind": "Refused", "message": "broken header"})
    assert (refused.value.code, refused.value.exit_code) == ("engine-refused", ExitCode.UNAVAILABLE)
    with pytest.raises(PlannerError, match="1 TiB") as memory:
        dying.ask("refuse", {"kind": "NotEnoughMemory", "message": "1 TiB"})
    assert memory.value.code == "engine-out-of-memory"
    assert memory.value.hint


def missing(python: str, op: str = "ping", **options: object) -> EngineMissingError:
    """The error of asking a Python that has no engine."""
    with EngineChild(python, **options) as child, pytest.raises(EngineMissingError) as caught:
        child.ask(op)
    assert caught.value.exit_code == ExitCode.UNAVAILABLE
    assert "llama-planner[engine]" in caught.value.hint
    assert "--engine-python" in caught.value.hint
    assert "\n" not in caught.value.message
    return caught.value


def test_an_interpreter_that_is_not_there_is_named(tmp_path):
    """Missing, a folder, not executable, not a program."""
    assert "No such file" in missing(str(tmp_path / "python")).message
    missing(str(tmp_path))
    script = tmp_path / "script"
    script.write_bytes(b"\x00not a program")
    missing(str(script))
    script.chmod(stat.S_IRWXU)
    assert "Exec format" in missing(str(script)).message


@pytest.mark.parametrize("program", ["true", "false"])
def test_a_program_that_is_no_python_is_no_engine(program):
    """It ends without the greeting."""
    assert "cannot run the engine" in missing(program).message


def test_a_worker_that_ends_at_its_start_is_quoted():
    """An interpreter too old to run the worker says so in its last line."""
    error = missing(sys.executable, worker=DYING_WORKER, env={"DIE_AT_START": "needs Python 3.9 or newer"})
    assert "needs Python 3.9 or newer" in error.message


@pytest.fixture(scope="module")
def bare_python(tmp_path_factory):
    """A virtual environment with nothing in it: its interpreter and its site-packages."""
    folder = tmp_path_factory.mktemp("bare")
    venv.create(folder, with_pip=False, symlinks=True)
    python = folder / "bin" / "python"
    answer = subprocess.run(
        [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"], check=True, capture_output=True
    )
    return str(python), Path(answer.stdout.decode().strip())


def test_a_python_without_llama_cpp_is_told_with_the_remedy(bare_python):
    """The worker itself runs there; the first question that needs the engine says what is missing."""
    python, _ = bare_python
    with EngineChild(python) as child:
        assert child.ask("ping")
    assert "has no llama_cpp" in missing(python, "load_model", worker=DYING_WORKER).message


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("raise RuntimeError('libcudart.so.12: cannot open shared object file')", "libcudart.so.12"),
        ("import a_dependency_that_is_absent", "a_dependency_that_is_absent"),
    ],
)
def test_a_llama_cpp_that_does_not_load_is_missing_with_its_own_words(bare_python, code, words):
    """A CUDA build without its libraries is installed and of no use."""
    python, site_packages = bare_python
    package = site_packages / "llama_cpp"
    package.mkdir(exist_ok=True)
    try:
        # A new name each time: the loader would take a cached file of the same second for fresh.
        (package / "__init__.py").write_text(f"{code}  # {words}\n")
        error = missing(python, "load_model", worker=DYING_WORKER)
    finally:
        for file in sorted(package.rglob("*"), reverse=True):
            file.rmdir() if file.is_dir() else file.unlink()
        package.rmdir()
    assert words in error.message
    assert "does not load" in error.message
