"""No orphan: when the parent is killed, interrupted or simply gone, so are the child and its group."""

import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import psutil
import pytest

DYING_WORKER = Path(__file__).parent / "dying_worker"

PARENT = """
import sys, threading
from pathlib import Path
from planner.engine.child import EngineChild

child = EngineChild(worker=Path(sys.argv[1]))

def say(pid):
    print(pid, flush=True)

def work():
    child.ask("ping")
    {work}

{start}
"""

IDLE = "say(child.pid); import time; time.sleep(60)"
BUSY = 'child.ask("hang", {"deaf": True}, deadline_s=60, on_event=lambda event: say(event["hanging"]))'
STUCK = 'child.ask("hold_the_interpreter", deadline_s=60, on_event=lambda event: say(event["stuck"]))'
MAIN = "work()"
THREAD = "thread = threading.Thread(target=work); thread.start(); thread.join()"


def start_parent(work: str, start: str = MAIN) -> tuple[subprocess.Popen[bytes], int]:
    """A parent in a process of its own, and the number of its child once that is at work."""
    program = textwrap.dedent(PARENT).format(work=work, start=start)
    parent = subprocess.Popen([sys.executable, "-c", program, str(DYING_WORKER)], stdout=subprocess.PIPE)
    assert parent.stdout is not None
    return parent, int(parent.stdout.readline())


def gone(pid: int, *, within_s: float) -> bool:
    """Whether process ``pid`` ends in time; a zombie that its new parent has not collected has ended."""
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        try:
            if psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
                return True
        except psutil.NoSuchProcess:
            return True
        time.sleep(0.01)
    return False


@pytest.mark.parametrize("start", [MAIN, THREAD], ids=["main-thread", "other-thread"])
@pytest.mark.parametrize("work", [IDLE, BUSY], ids=["idle", "busy"])
def test_a_killed_parent_leaves_no_child(work, start):
    """Idle or in the middle of a question, started by the main thread (the kernel's signal) or another (stdin)."""
    parent, child = start_parent(work, start)
    with parent:
        assert psutil.pid_exists(child)
        parent.kill()
    assert gone(child, within_s=2.0)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux kills a child with its parent")
def test_a_child_stuck_in_native_code_dies_with_its_parent():
    """No thread of Python can run there to see the end of stdin; the kernel does it."""
    parent, child = start_parent(STUCK)
    with parent:
        parent.kill()
    assert gone(child, within_s=2.0)


def test_ctrl_c_ends_the_child_before_the_parent_goes():
    """Even a child that is deaf to SIGTERM; the interrupt itself is passed on."""
    parent, child = start_parent(BUSY)
    with parent:
        parent.send_signal(signal.SIGINT)
        assert parent.wait(timeout=5) == -signal.SIGINT
    assert gone(child, within_s=0.1)


def test_a_parent_that_forgets_to_close_leaves_no_child():
    """The end of the parent is the end of the child's stdin."""
    parent, child = start_parent("say(child.pid)")
    with parent:
        assert parent.wait(timeout=5) == 0
    assert gone(child, within_s=2.0)
