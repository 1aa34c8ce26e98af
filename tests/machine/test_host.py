"""The door: programs that hang, flood, die or leave children behind; files that are no files."""

import os
import sys
import time
from pathlib import Path

import pytest

from planner.machine.host import Host, run_program


def python(code, **options):
    """Run a line of Python through the door."""
    return run_program([sys.executable, "-c", code], deadline_s=options.pop("deadline_s", 10.0))


def test_output_of_a_good_program_arrives_whole():
    """Exit code 0 is no failure."""
    answer = python("print('x' * 300000)")
    assert (len(answer.stdout), answer.failure) == (300001, None)


def test_an_exit_code_is_named():
    """What was printed before is kept."""
    answer = python("import sys; print('half'); sys.exit(3)")
    assert (answer.stdout, answer.failure) == ("half\n", "ended with exit code 3")


def test_a_signal_is_named():
    """A death by signal is told from an exit code."""
    assert python("import os, signal; os.kill(os.getpid(), signal.SIGABRT)").failure == "died of SIGABRT"


def test_a_program_that_does_not_exist_is_a_failure_and_no_exception():
    """The reason is the system's own."""
    assert run_program(["/no/such/program"], deadline_s=1.0).failure == "No such file or directory"


def test_a_hanging_program_is_stopped_with_its_grandchild():
    """A grandchild that holds the pipe open cannot delay us, and does not survive."""
    code = (
        "import subprocess, sys; "
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)']); "
        "print(child.pid, flush=True); "
        "import time; time.sleep(60)"
    )
    answer = python(code, deadline_s=2.0)
    assert answer.failure == "did not answer in time and was stopped"
    grandchild = int(answer.stdout)
    for _ in range(50):
        try:
            os.kill(grandchild, 0)
            if Path(f"/proc/{grandchild}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z":
                break
        except (ProcessLookupError, FileNotFoundError):
            break
        time.sleep(0.1)
    else:
        pytest.fail("the grandchild lives on")


def test_a_program_that_closes_its_output_and_lingers_is_stopped():
    """End of output is not end of program."""
    answer = python("import os, time; os.write(1, b'hi'); os.close(1); time.sleep(60)", deadline_s=1.0)
    assert (answer.stdout, answer.failure) == ("hi", "did not end in time and was stopped")


def test_a_flood_is_cut_off():
    """A program cannot fill our memory."""
    answer = python("while True: print('y' * 65536)", deadline_s=20.0)
    assert answer.failure == "printed more than 8 MiB and was stopped"
    assert len(answer.stdout) <= 8 << 20


def test_a_named_pipe_in_place_of_a_file_does_not_hang(tmp_path):
    """Opening it returns at once, empty."""
    os.mkfifo(tmp_path / "meminfo")
    assert Host(tmp_path).read("/meminfo") == ""


def test_a_huge_file_is_read_in_part(tmp_path):
    """Four MiB are more than any answer has."""
    with (tmp_path / "huge").open("wb") as file:
        file.truncate(1 << 40)
    assert len(Host(tmp_path).read("/huge")) == 4 << 20


def test_bytes_that_are_no_text_do_not_stop_reading(tmp_path):
    """They become U+FFFD."""
    (tmp_path / "odd").write_bytes(b"MemTotal: \xff\xfe kB")
    assert Host(tmp_path).read("/odd") == "MemTotal: �� kB"


def test_room_is_asked_of_the_nearest_existing_folder(tmp_path):
    """A models folder that is yet to be made lies on its parent's file system."""
    assert Host().space(tmp_path / "not" / "yet" / "made").total_bytes == Host().space(tmp_path).total_bytes
