"""What the tests of the engine's child share: the dying worker, and proof that nothing of it is left."""

import os
import time
from pathlib import Path

import psutil
import pytest

from planner.engine.child import EngineChild

DYING_WORKER = Path(__file__).parent / "dying_worker"


@pytest.fixture
def dying():
    """A child that runs the real loop with operations that die."""
    with EngineChild(worker=DYING_WORKER) as child:
        yield child


@pytest.fixture
def nothing_left():
    """A function that fails if a process of group ``pgid`` lives or is a zombie a second from now."""

    def check(pgid: int) -> None:
        deadline = time.monotonic() + 1.0
        while (left := _members(pgid)) and time.monotonic() < deadline:
            time.sleep(0.01)
        assert left == []

    return check


def _members(pgid: int) -> list[str]:
    """Processes of the group; a zombie counts unless it waits for a parent other than us to collect it."""
    found = []
    for process in psutil.process_iter(["pid", "ppid", "status", "name"]):
        try:
            belongs = os.getpgid(process.pid) == pgid
        except (ProcessLookupError, PermissionError):
            continue
        uncollected = process.info["status"] == psutil.STATUS_ZOMBIE and process.info["ppid"] != os.getpid()
        if belongs and not uncollected:
            found.append(f"{process.info['name']} {process.info['pid']} {process.info['status']}")
    return found
