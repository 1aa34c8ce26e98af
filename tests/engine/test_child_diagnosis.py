"""The diagnosis alone: statuses, last words and the OOM killer's counters, on recorded and rebuilt texts."""

import signal
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner.engine.child import EngineChild
from planner.engine.death import _HINTS, _PHRASES, how_it_ended, last_line, obituary
from planner.engine.oom import OomWatch
from planner.errors import EngineDiedError

FAULTHANDLER = b"""Fatal Python error: Aborted

Thread 0x00007f11 (most recent call first):
  File "/x/loop.py", line 81 in read

Current thread 0x00007f22 (most recent call first):
  File "/x/deaths.py", line 78 in abort

Extension modules: numpy (total: 1)
"""


@pytest.mark.parametrize(
    ("status", "oom_killed", "how"),
    [
        (-signal.SIGABRT, False, "abort"),
        (-signal.SIGABRT, True, "abort"),
        (-signal.SIGKILL, False, "killed"),
        (-signal.SIGKILL, True, "out-of-memory"),
        (128 + signal.SIGKILL, True, "out-of-memory"),
        (128 + signal.SIGILL, False, "illegal-instruction"),
        (-signal.SIGHUP, False, "signal"),
        (0, False, "closed-pipe"),
        (None, True, "closed-pipe"),
        (1, False, "exit"),
        (255, False, "exit"),
    ],
)
def test_a_status_has_one_name(status, oom_killed, how):
    """An OOM kill is only ever a signal 9; a shell's 128 + n is the signal n."""
    assert how_it_ended(status, oom_killed=oom_killed) == how


@pytest.mark.parametrize(
    ("stderr", "line"),
    [
        (b"", ""),
        (b"\n \n", ""),
        (b"load: ok\nsomething else\n", "something else"),
        (
            b"/tmp/b-1/src/llama-model.cpp:9: GGML_ASSERT(a > 0) failed\nbye\n",
            "llama-model.cpp:9: GGML_ASSERT(a > 0) failed",
        ),
        (b"GGML_ASSERT(first)\nGGML_ASSERT(second)\n" + FAULTHANDLER, "GGML_ASSERT(second)"),
        (b"terminate called after throwing\n  what():  std::bad_alloc\nbye\n", "what(): std::bad_alloc"),
        (b"CUDA error: out of memory\n  current device: 0\n" + FAULTHANDLER, "CUDA error: out of memory"),
        (b"the reason\n" + FAULTHANDLER, "the reason"),
        (FAULTHANDLER, ""),
        (b"10%\r50%\r100%\r\n", "100%"),
        (b"\x1b[31mred\x1b[0m \x1b]0;title\x07plain", "red plain"),
        (b"half \xff\xfe line", "half \ufffd\ufffd line"),
    ],
)
def test_the_last_line_is_the_one_that_tells_most(stderr, line):
    """A failed assertion first, then an error, then whatever was said last; never Python's own stack dump."""
    assert last_line(stderr) == line


@given(stderr=st.binary(max_size=2000) | st.text(max_size=1000).map(lambda text: text.encode("utf-8", "replace")))
def test_last_words_hold_nothing_that_acts_on_a_terminal(stderr):
    """File names of strangers are in them: no control character, no change of direction, one line of limited length."""
    error = obituary("exit", asked="ping", stderr=stderr, status=1)
    assert not any(unicodedata.category(char).startswith("C") for char in error.message)
    assert len(error.message) < 400
    assert not any(unicodedata.category(char).startswith("C") for char in error.last_words if char not in "\n\t")


def test_each_way_to_die_has_its_phrase_and_hint():
    """One line each; an abort and an OOM kill need different remedies."""
    assert _PHRASES.keys() == _HINTS.keys()
    assert all(text and "\n" not in text for text in (*_PHRASES.values(), *_HINTS.values()))
    assert "build llama-cpp-python" in _HINTS["illegal-instruction"]
    assert "smaller model" in _HINTS["out-of-memory"]


V2_MOUNT = "30 23 0:26 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n"
V1_MOUNT = "34 25 0:30 / /sys/fs/cgroup/memory rw,nosuid - cgroup cgroup rw,memory\n"
DOCKER_V1_MOUNT = "34 25 0:30 /docker/abc /sys/fs/cgroup/memory ro,nosuid - cgroup cgroup rw,memory\n"


def tree(root: Path, *, cgroup: str, mounts: str, vmstat: str = "oom_kill 5\n", **files: str) -> Path:
    """A ``/proc`` whose mounts point into ``root``, written as the kernel writes them."""
    proc = root / "proc"
    (proc / "42").mkdir(parents=True, exist_ok=True)
    (proc / "self").mkdir(exist_ok=True)
    (proc / "42" / "cgroup").write_text(cgroup)
    (proc / "self" / "mountinfo").write_text(mounts.replace("/sys/fs/cgroup", f"{root}/cgroup"))
    (proc / "vmstat").write_text(vmstat)
    for name, content in files.items():
        file = root / "cgroup" / name.replace("__", "/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content)
    return proc


@pytest.mark.parametrize(
    ("cgroup", "mounts", "file", "content"),
    [
        ("0::/a/b\n", V2_MOUNT, "a__b__memory.events", "low 0\nhigh 0\nmax 9\noom 1\noom_kill {}\noom_group_kill 0\n"),
        (
            "4:cpu:/\n3:memory:/x\n0::/\n",
            V1_MOUNT,
            "memory__x__memory.oom_control",
            "oom_kill_disable 0\nunder_oom 0\noom_kill {}\n",
        ),
        ("3:memory:/x\n", V1_MOUNT, "memory__x__memory.failcnt", "{}\n"),
        ("3:memory:/docker/abc\n", DOCKER_V1_MOUNT, "memory__memory.oom_control", "under_oom 0\noom_kill {}\n"),
        ("3:memory:/docker/abc/in\n", DOCKER_V1_MOUNT, "memory__in__memory.oom_control", "oom_kill {}\n"),
    ],
)
def test_oom_kills_are_read_from_the_group_of_the_process(tmp_path, cgroup, mounts, file, content):
    """v2, v1, hybrid, an old kernel's v1 and a container; a kill elsewhere in the system is not ours."""
    watch = OomWatch(42, proc=tree(tmp_path, cgroup=cgroup, mounts=mounts, **{file: content.format(2)}))
    assert watch.knows_the_group
    assert not watch.struck()
    # A zombie of v1 is shown in the root group; the watch must not follow it there.
    options = {"cgroup": "3:memory:/\n", "mounts": mounts, "vmstat": "oom_kill 6\n"}
    tree(tmp_path, **options, **{file: content.format(2)})
    assert not watch.struck()
    tree(tmp_path, **options, **{file: content.format(3)})
    assert watch.struck()


def test_without_a_group_the_whole_system_decides(tmp_path):
    """The root group of v2 has no counter; then /proc/vmstat is the only witness."""
    watch = OomWatch(42, proc=tree(tmp_path, cgroup="0::/\n", mounts=V2_MOUNT))
    assert not watch.knows_the_group
    assert not watch.struck()
    tree(tmp_path, cgroup="0::/\n", mounts=V2_MOUNT, vmstat="nr_free_pages 77\noom_kill 6\n")
    assert watch.struck()


def test_without_proc_nothing_is_claimed(tmp_path):
    """macOS: unknown is not zero, and an unknown never turns a kill into an OOM kill."""
    watch = OomWatch(42, proc=tmp_path / "absent")
    assert not watch.knows_the_group
    assert not watch.struck()


def test_an_interpreter_that_crashes_at_its_start_is_not_blamed_on_a_model(tmp_path):
    """No file was named yet: the hint speaks of the interpreter."""
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\nkill -SEGV $$\n")
    python.chmod(0o755)
    with EngineChild(str(python)) as child, pytest.raises(EngineDiedError) as raised:
        child.ask("ping")
    assert raised.value.how == "segmentation-fault"
    assert "--engine-python" in raised.value.hint
    assert "model" not in raised.value.hint
