"""Writing files: the old or the new one, never half, and a device is never replaced by a file."""

import os
import stat
import threading

import pytest

from planner.errors import ExitCode, FileIOError
from planner.files import atomic_write, try_atomic_write


def test_a_file_is_replaced_whole_and_nothing_is_left_beside_it(tmp_path):
    """The new content, the mode that any new file gets, no temporary file."""
    path = tmp_path / "deep" / "plan.json"
    for data in (b"first", b"second, longer"):
        atomic_write(path, data)
        assert path.read_bytes() == data
    assert [each.name for each in path.parent.iterdir()] == ["plan.json"]
    mask = os.umask(0)
    os.umask(mask)
    assert stat.S_IMODE(path.stat().st_mode) == 0o666 & ~mask


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    """A full disk at the moment of writing, syncing or renaming."""
    path = tmp_path / "plan.json"
    atomic_write(path, b"old")
    for name in ("fsync", "replace"):
        with monkeypatch.context() as patch:

            def full(*_arguments):
                raise OSError(28, "No space left on device")

            patch.setattr(os, name, full)
            with pytest.raises(FileIOError) as raised:
                atomic_write(path, b"new")
        assert raised.value.code == "disk-full"
        assert raised.value.exit_code == ExitCode.IO
        assert path.read_bytes() == b"old"
        assert len(list(tmp_path.iterdir())) == 1


def test_a_pipe_is_written_to_and_stays_a_pipe(tmp_path):
    """``--output`` may name a device or a pipe; replacing it would take it from everybody else."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    read = []
    reader = threading.Thread(target=lambda: read.append(pipe.read_bytes()))
    reader.start()
    atomic_write(pipe, b"through")
    reader.join(timeout=5)
    assert read == [b"through"]
    assert stat.S_ISFIFO(pipe.stat().st_mode)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full here")  # noqa: PTH110 - a device
def test_a_full_device_is_an_error_and_stays_a_device():
    """Exit code 74, and ``/dev/full`` is still there for the next one."""
    from pathlib import Path

    with pytest.raises(FileIOError) as raised:
        atomic_write(Path("/dev/full"), b"data")
    assert raised.value.exit_code == ExitCode.IO
    assert stat.S_ISCHR(Path("/dev/full").stat().st_mode)


def test_a_cache_that_cannot_be_written_is_no_error(tmp_path):
    """A file stands where the folder should be."""
    (tmp_path / "occupied").write_bytes(b"")
    assert not try_atomic_write(tmp_path / "occupied" / "cache.json", b"data")
