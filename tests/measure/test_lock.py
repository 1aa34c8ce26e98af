"""One measurement at a time, between real processes."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from planner.errors import ExitCode, PlannerError
from planner.measure.lock import lock_path, measurement_lock

HOLDER = """
import sys, time
from pathlib import Path
from planner.measure.lock import measurement_lock
with measurement_lock(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(float(sys.argv[2]))
"""


def holder(path: Path, seconds: float) -> subprocess.Popen[bytes]:
    """Another process that holds the lock now."""
    process = subprocess.Popen([sys.executable, "-c", HOLDER, str(path), str(seconds)], stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"held\n"
    process.stdout.close()
    return process


def test_a_second_measurement_is_refused_with_exit_75_and_a_hint(tmp_path: Path) -> None:
    """While another process holds the lock, ours says busy."""
    other = holder(tmp_path / "lock", 60)
    try:
        with pytest.raises(PlannerError) as caught, measurement_lock(tmp_path / "lock"):
            pytest.fail("the lock was given twice")
        assert caught.value.exit_code == ExitCode.BUSY
        assert caught.value.code == "busy"
        assert "--no-measure" in caught.value.hint
    finally:
        other.kill()
        other.wait()


def test_the_lock_ends_with_the_process_that_held_it(tmp_path: Path) -> None:
    """Killed outright, it leaves nothing that blocks: the file stays, the lock is free."""
    other = holder(tmp_path / "lock", 60)
    other.send_signal(signal.SIGKILL)
    other.wait()
    with measurement_lock(tmp_path / "lock"):
        assert (tmp_path / "lock").exists()


def test_waiting_gets_the_lock_when_the_other_ends(tmp_path: Path) -> None:
    """With patience the second one runs after the first."""
    other = holder(tmp_path / "lock", 0.5)
    begin = time.monotonic()
    with measurement_lock(tmp_path / "lock", wait_s=20):
        assert time.monotonic() - begin < 20
    assert other.wait() == 0


def test_the_lock_is_free_again_afterwards_also_after_an_error(tmp_path: Path) -> None:
    """Nothing has to be cleaned up by hand."""
    with pytest.raises(ValueError, match="inside"), measurement_lock(tmp_path / "lock"):
        raise ValueError("inside")
    with measurement_lock(tmp_path / "lock"):
        pass


def test_a_planted_link_is_not_followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A link in a shared folder must not make us create a file elsewhere."""
    monkeypatch.setenv("PLANNER_CACHE_DIR", str(tmp_path / "cache"))
    (tmp_path / "lock").symlink_to(tmp_path / "victim")
    with measurement_lock(tmp_path / "lock"):
        assert not (tmp_path / "victim").exists()
        assert (tmp_path / "cache" / "measure.lock").exists()


def test_a_lock_file_of_somebody_else_needs_no_right_to_write(tmp_path: Path) -> None:
    """Read permission is enough to lock."""
    path = tmp_path / "lock"
    path.touch(mode=0o444)
    with measurement_lock(path):
        pass


def test_the_file_can_be_named_by_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Containers that share a machine share a lock by sharing a file."""
    monkeypatch.setenv("PLANNER_LOCK_FILE", str(tmp_path / "shared"))
    assert lock_path() == tmp_path / "shared"
    monkeypatch.delenv("PLANNER_LOCK_FILE")
    assert lock_path().is_absolute()


def test_children_do_not_inherit_the_lock(tmp_path: Path) -> None:
    """A child that outlives the measurement does not hold the lock on."""
    with measurement_lock(tmp_path / "lock"):
        child = subprocess.Popen(["sleep", "30"], close_fds=False)  # noqa: S607 - coreutils
    try:
        with measurement_lock(tmp_path / "lock"):
            assert os.path.exists(tmp_path / "lock")  # noqa: PTH110 - same thing
    finally:
        child.kill()
        child.wait()
