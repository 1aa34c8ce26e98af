import os
import subprocess
import sys

import pytest

from planner.cli.output import style
from planner.cli.progress import progress

pty = pytest.importorskip("pty")


def on_a_terminal(command, **environment):
    """Run a command with stdout and stderr on one pseudo-terminal and give what it wrote there."""
    ours, theirs = pty.openpty()
    child = subprocess.Popen(
        command, stdin=theirs, stdout=theirs, stderr=theirs, env={**os.environ, "TERM": "xterm", **environment}
    )
    os.close(theirs)
    seen = b""
    while True:
        try:
            piece = os.read(ours, 65536)
        except OSError:
            # Linux says EIO when the other end of a terminal is gone.
            break
        if not piece:
            break
        seen += piece
    os.close(ours)
    return child.wait(timeout=60), seen


def test_a_terminal_gets_colour_and_no_color_takes_it_away(program, monkeypatch):
    """NO_COLOR, when set to anything, wins."""
    monkeypatch.delenv("NO_COLOR", raising=False)
    code, seen = on_a_terminal([*program, "models"])
    assert code == 0
    assert b"\x1b[1m" in seen
    code, seen = on_a_terminal([*program, "models"], NO_COLOR="1")
    assert code == 0
    assert b"\x1b[" not in seen
    _, seen = on_a_terminal([*program, "models"], TERM="dumb")
    assert b"\x1b[" not in seen


def test_a_terminal_gets_a_bar_with_the_time_that_is_left(program, monkeypatch):
    """The bar names the stage, and is gone when the plan is printed."""
    monkeypatch.delenv("NO_COLOR", raising=False)
    code, seen = on_a_terminal([*program, "plan"], STAND_IN="progress", COLUMNS="100")
    assert code == 0
    assert b"measure" in seen
    assert b"left" in seen
    assert b"Run qwen3-8b in Q4_K_M" in seen


def test_without_a_terminal_each_stage_is_one_plain_line(program):
    """A log file gets no escape sequences and no repetition; under --json it gets nothing."""
    environment = {**os.environ, "STAND_IN": "progress"}
    done = subprocess.run([*program, "plan"], capture_output=True, check=True, timeout=60, env=environment)
    assert done.stderr == b"measure (about 3 s): qwen3-8b Q4_K_M\nwrite\n"
    done = subprocess.run([*program, "plan", "--json"], capture_output=True, check=True, timeout=60, env=environment)
    assert done.stderr == b""


def test_rich_is_imported_only_when_a_bar_is_drawn():
    """Text and JSON are ours; rich costs its import only where it shows something."""
    with progress(quiet=True) as shown:
        assert shown is None
    program = (
        "import sys; from planner.cli.progress import progress\nwith progress(quiet=False) as p: p('a', 0, 1, '')\n"
    )
    program += "sys.exit('rich' in sys.modules)"
    assert (
        subprocess.run([sys.executable, "-c", program], check=False, timeout=60, stderr=subprocess.PIPE).returncode == 0
    )


@pytest.mark.parametrize(
    ("encoding", "unicode"), [("utf-8", True), ("UTF-8", True), ("ascii", False), ("latin-1", False)]
)
def test_block_characters_are_drawn_only_in_utf_8(encoding, unicode, monkeypatch):
    """Elsewhere the bar is made of letters."""
    import io

    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.BytesIO(), encoding=encoding))
    assert style().unicode is unicode
    assert style().colour is False
