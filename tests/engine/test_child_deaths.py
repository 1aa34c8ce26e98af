"""Each way the engine's child can die, done for real: named right, in time, nothing left, and life goes on."""

import contextlib
import os
import signal
import struct
import time
from pathlib import Path

import psutil
import pytest

from planner.engine.child import EngineChild
from planner.errors import EngineDiedError, ExitCode

KIB = 1024

DEATHS = [
    ("abort", {"words": "x.c:7: GGML_ASSERT(n > 0) failed"}, "abort", "x.c:7: GGML_ASSERT(n > 0) failed"),
    ("illegal_instruction", {}, "illegal-instruction", "SIGILL"),
    ("segmentation_fault", {}, "segmentation-fault", "SIGSEGV"),
    ("bus_error", {}, "bus-error", "SIGBUS"),
    ("divide_by_zero", {}, "arithmetic", "SIGFPE"),
    ("kill_self", {"signal": signal.SIGKILL}, "killed", "SIGKILL"),
    ("kill_self", {"signal": signal.SIGTERM}, "terminated", "SIGTERM"),
    ("kill_self", {"signal": signal.SIGUSR1}, "signal", "User defined signal 1"),
    ("exit_with", {"status": 3}, "exit", "cannot open shared object"),
    ("exit_with", {"status": 134}, "abort", "SIGABRT"),
    ("exit_quietly", {}, "closed-pipe", "stopped answering"),
    ("close_pipe", {}, "closed-pipe", "stopped answering"),
    ("die_slowly", {}, "abort", "SIGABRT"),
    ("half_a_line", {"then": "exit"}, "closed-pipe", "half a reply of 21 bytes"),
    ("garbage", {}, "garbage", "llama_model_loader"),
    ("wrong_id", {}, "garbage", "question 4711"),
    ("too_long", {"mib": 65}, "garbage", "64 MiB"),
    ("grandchild", {"then": "abort"}, "abort", "SIGABRT"),
    ("grandchild", {"then": "exit"}, "closed-pipe", "stopped answering"),
    ("flood", {"mib": 2, "then": "abort"}, "abort", "ggml.c:12: GGML_ASSERT(after the flood) failed"),
]


def die(child: EngineChild, op: str, args: dict[str, object], *, deadline_s: float = 20.0):
    """The error of a deadly question and how long it took to know."""
    started = time.monotonic()
    with pytest.raises(EngineDiedError) as caught:
        child.ask(op, args, deadline_s=deadline_s)
    return caught.value, time.monotonic() - started


@pytest.mark.parametrize(
    ("op", "args", "how", "words"), DEATHS, ids=[f"{d[0]}-{d[2]}-{n}" for n, d in enumerate(DEATHS)]
)
def test_each_death_is_named_within_two_seconds_and_leaves_nothing(dying, nothing_left, op, args, how, words):
    """The diagnosis, its one line with a hint, no leftover process, and the next question is answered."""
    dying.ask("ping")
    group = dying.pid
    error, elapsed_s = die(dying, op, args)
    assert (error.how, error.exit_code) == (how, ExitCode.ENGINE_DIED)
    assert words in error.message
    assert op in error.message
    assert "\n" not in error.message
    assert error.hint
    assert "\n" not in error.hint
    assert elapsed_s < 2.0
    nothing_left(group)
    assert not dying.alive
    assert dying.ask("ping", {"after": op})["args"] == {"after": op}
    assert dying.pid != group


@pytest.mark.parametrize(
    ("op", "args"),
    [
        ("hang", {}),
        ("hang", {"deaf": True}),
        ("half_a_line", {"then": "hang"}),
        ("emit_for_ever", {}),
        ("stop_politely", {}),
        ("grandchild", {"then": "hang"}),
    ],
)
def test_a_question_without_an_answer_ends_two_seconds_after_its_deadline(dying, nothing_left, op, args):
    """Deaf to SIGTERM, stopped, forked or babbling: the whole group is gone."""
    dying.ask("ping")
    group = dying.pid
    error, elapsed_s = die(dying, op, args, deadline_s=0.3)
    assert error.how == "hang"
    assert "0.3 s" in error.message
    assert 0.3 <= elapsed_s < 2.3
    nothing_left(group)
    assert dying.ask("ping")


def test_a_death_between_questions_is_no_error(dying, nothing_left):
    """The next question starts a new worker."""
    dying.ask("ping")
    group = dying.pid
    os.kill(group, signal.SIGSEGV)
    while dying.alive:
        time.sleep(0.005)
    assert dying.ask("ping")
    assert dying.pid != group
    nothing_left(group)


def test_a_stray_reply_is_never_taken_for_the_answer_to_the_next_question(dying):
    """A worker that answered twice is caught at the next question."""
    assert dying.ask("answer_twice") == {"first": True}
    error, _ = die(dying, "ping", {})
    assert error.how == "garbage"
    assert "reply to question 1" in error.message


def test_many_deaths_leak_no_descriptor(dying):
    """Pipes, the process descriptor and the selector of a dead worker are all closed."""
    dying.ask("ping")
    before = open_descriptors()
    for _ in range(5):
        die(dying, "abort", {})
    dying.ask("ping")
    assert open_descriptors() == before


def open_descriptors() -> int:
    """How many descriptors this process holds."""
    return psutil.Process().num_fds()


def test_last_words_keep_the_end_of_a_flood(dying):
    """256 KiB are kept, and they are the last ones."""
    error, _ = die(dying, "flood", {"mib": 2, "then": "abort"})
    assert 200 * KIB < len(error.last_words) <= 256 * KIB
    assert "GGML_ASSERT(after the flood)" in error.last_words[-2 * KIB :]


def test_last_words_belong_to_the_question_that_was_deadly(dying):
    """What an earlier question wrote is not blamed for this death."""
    dying.ask("flood", {"mib": 1})
    error, _ = die(dying, "kill_self", {"signal": signal.SIGKILL})
    assert "noise" not in error.last_words


def test_an_out_of_memory_kill_is_told_from_a_kill(dying, nothing_left, memory_group):
    """The kernel's OOM killer, for real, in a group of 48 MiB; a plain SIGKILL in the same group stays one."""
    dying.ask("ping")
    group = dying.pid
    (memory_group / "cgroup.procs").write_text(str(group))
    error, elapsed_s = die(dying, "allocate", {})
    assert error.how == "out-of-memory"
    assert "smaller model" in error.hint
    assert elapsed_s < 5.0
    nothing_left(group)

    dying.ask("ping")
    (memory_group / "cgroup.procs").write_text(str(dying.pid))
    error, _ = die(dying, "kill_self", {"signal": signal.SIGKILL})
    assert error.how == "killed"


@pytest.fixture
def memory_group():
    """A memory control group of 48 MiB below our own; skips with the reason where none can be made."""
    folder, limit = _own_memory_group()
    group = folder / f"planner-test-{os.getpid()}"
    try:
        group.mkdir()
    except OSError as error:
        pytest.skip(f"cannot make a control group in {folder}: {error.strerror}")
    try:
        try:
            (group / limit).write_text(str(48 * KIB * KIB))
            with contextlib.suppress(OSError):
                (group / "memory.swap.max").write_text("0")
        except OSError as error:
            pytest.skip(f"cannot limit the memory of {group}: {error.strerror}")
        yield group
    finally:
        _remove(group)


def _remove(group: Path) -> None:
    """A group can be removed once its last process is collected, which the kernel may notice a moment later."""
    for _ in range(100):
        with contextlib.suppress(OSError):
            group.rmdir()
            return
        time.sleep(0.02)
    pytest.fail(f"{group} still has processes")


def _own_memory_group() -> tuple[Path, str]:
    """The folder of this process's memory control group and the name of its limit."""
    try:
        lines = Path("/proc/self/cgroup").read_text("utf-8").splitlines()
    except OSError:
        pytest.skip("no control groups on this system")
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if "memory" in controllers.split(","):
            return Path("/sys/fs/cgroup/memory") / path.lstrip("/"), "memory.limit_in_bytes"
    path = lines[0].split(":", 2)[2]
    return Path("/sys/fs/cgroup") / path.lstrip("/"), "memory.max"


def tiny_gguf(block_count: int) -> bytes:
    """A GGUF header of a few hundred bytes, without tensors, that names ``block_count`` layers."""

    def text(value: str) -> bytes:
        return struct.pack("<Q", len(value)) + value.encode()

    words = {"general.architecture": "llama", "tokenizer.ggml.model": "no_vocab"}
    numbers = {
        "llama.block_count": block_count,
        "llama.context_length": 128,
        "llama.embedding_length": 64,
        "llama.feed_forward_length": 128,
        "llama.attention.head_count": 4,
        "llama.vocab_size": 16,
    }
    pairs = [text(key) + struct.pack("<I", 8) + text(value) for key, value in words.items()]
    pairs += [text(key) + struct.pack("<II", 4, value) for key, value in numbers.items()]
    return b"GGUF" + struct.pack("<IQQ", 3, 0, len(pairs)) + b"".join(pairs)


@pytest.mark.engine
def test_the_real_engine_aborts_on_a_tiny_file_and_the_next_question_is_answered(dying, nothing_left, tmp_path):
    """No layers, too many, and 2³² − 1: GGML_ASSERT kills the child, the message quotes it, planner lives."""
    for block_count in (0, 1000, 2**32 - 1):
        model = tmp_path / f"{block_count}.gguf"
        model.write_bytes(tiny_gguf(block_count))
        dying.ask("ping")
        group = dying.pid
        with pytest.raises(EngineDiedError) as caught:
            dying.ask("load_model", {"path": str(model)})
        assert caught.value.how == "abort"
        assert "GGML_ASSERT" in caught.value.message
        nothing_left(group)
    model.write_bytes(tiny_gguf(1))
    assert dying.ask("load_model", {"path": str(model)}) == {"loaded": False}
