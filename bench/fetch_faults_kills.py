"""The kills: a real ``planner fetch`` ended by SIGKILL at a random moment, and the run after it."""

import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType
from typing import Any

from fetch_faults_world import World, document, world

from planner.apply.receipts import find_receipt

__all__ = ["kills", "together"]

_PAUSE_S = 0.012
"""Between two chunks of 64 KiB: the transfer then takes about as long as the start of the process."""


def _argv(here: World) -> list[str]:
    return [sys.executable, "-m", "planner", "fetch", str(here.plan_file), "--json"]


def _usual_s(server: ModuleType, scratch: Path, scheme: str) -> float:
    """Seconds that a fetch takes when nobody kills it."""
    with world(server, scratch, 9999, scheme) as here:
        here.hub.fail("content", times=99, pause_s=_PAUSE_S)
        start = time.monotonic()
        subprocess.run(_argv(here), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=True)
        return time.monotonic() - start


def kills(server: ModuleType, scratch: Path, when: random.Random, count: int) -> list[dict[str, Any]]:
    """``count`` kills, every fourth at ModelScope; every fifth is cleaned instead of run again."""
    usual_s = {scheme: _usual_s(server, scratch, scheme) for scheme in ("hf", "ms")}
    rows = []
    for number in range(count):
        scheme = "ms" if number % 4 == 3 else "hf"
        # Most of the first third is the start of Python; the moments after the last byte are the ones that matter.
        moment_s = when.uniform(0.25, 1.02) * usual_s[scheme]
        with world(server, scratch, 1000 + number, scheme) as here:
            row = _killed(here, moment_s, again=number % 5 != 4)
        rows.append({"name": f"kill {number + 1} after {moment_s:.3f} s", "hub": scheme, **row})
        wrong = f" WRONG {row['wrong']}" if row["wrong"] else ""
        print(f"kill {number + 1:3} {scheme} after {moment_s:.2f} s: held {row['held_bytes']}{wrong}", flush=True)
    return rows


def _killed(here: World, moment_s: float, *, again: bool) -> dict[str, Any]:
    here.hub.fail("content", times=99, pause_s=_PAUSE_S)
    process = subprocess.Popen(_argv(here), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    time.sleep(moment_s)
    process.send_signal(signal.SIGKILL)
    process.wait()
    here.hub.faults.clear()
    ready, held = find_receipt(here.plan) is not None, here.held_bytes()
    wrong = [here.wrongly_ready()]
    resumed = 0
    if again:
        here.hub.seen.clear()
        done = subprocess.run(_argv(here), capture_output=True, text=True, check=False)
        resumed = document(done.stdout).get("resumed_bytes", 0)
        wrong.append("" if done.returncode == 0 else f"the next run ended with {done.returncode}")
        wrong.append(here.not_whole())
        if here.sent_bytes() > here.blob.size - held:
            wrong.append(f"{here.sent_bytes() + held - here.blob.size} bytes came twice")
    wrong += [f"left behind: {path}" for path in here.left()]
    return {
        "again": again,
        "ready_after_kill": ready,
        "held_bytes": held,
        "resumed_bytes": resumed,
        "wrong": "; ".join(filter(None, wrong)),
    }


def together(server: ModuleType, scratch: Path, processes: int) -> dict[str, Any]:
    """Several fetches of one plan at once: how often the file travelled, and how many of them ended well."""
    with world(server, scratch, 9998, "hf") as here:
        here.hub.fail("content", times=99, pause_s=_PAUSE_S)
        started = [
            subprocess.Popen(_argv(here), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            for _ in range(processes)
        ]
        ready = sum(process.wait() == 0 for process in started)
        right = not here.not_whole()
        return {
            "processes": processes,
            "ready": ready if right else 0,
            "sent_bytes": here.sent_bytes(),
            "file_bytes": here.blob.size,
        }
