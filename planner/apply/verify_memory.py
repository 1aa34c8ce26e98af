"""What a server really holds: its own memory and that of all its children, each shared page counted once.

The mistake it prevents is the sum of resident sizes, which counts what processes share (the mapped weights) several
times, and a look at the first process alone, where a wrapper holds nothing and its child everything.
"""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import psutil  # type: ignore[import-untyped, unused-ignore]
from msgspec import structs

from planner.types.plan import Candidate, DeviceMemory
from planner.types.serving import ServerKind
from planner.types.verification import Check
from planner.units import gib

__all__ = ["PYTHON_SERVER_BYTES", "memory_checks", "resident_bytes"]

PYTHON_SERVER_BYTES = 32 << 20
"""What llama-cpp-python's server takes beyond the process that a plan counts: web framework and buffers of one answer
(24 MiB more than an idle engine's child with a model of a few tensors, 21 with one of 151,936 tokens)."""

_PROC = Path("/proc")


def resident_bytes(pid: int) -> int | None:
    """Bytes that a process and its children hold: proportional set sizes on Linux, else resident sizes.

    ``None`` when it is gone or belongs to somebody else.
    """
    try:
        root = psutil.Process(pid)
        return sum(_held(each) for each in (root, *root.children(recursive=True)))
    except (psutil.Error, OSError):
        return None


def memory_checks(
    chosen: Candidate, *, kind: ServerKind | None, started: bool, loaded_bytes: int | None, most_bytes: int | None
) -> Iterator[Check]:
    """The held bytes beside the plan's promise for RAM, made for the process of llama-server.

    After the first answer nothing is saved yet, so the promise is that without what a server may keep of earlier
    prompts. Only a server that was ``started`` for this is known to have answered nobody before.
    """
    host = [row for row in chosen.memory if row.device == "CPU" or row.device.startswith("Host")] or list(chosen.memory)
    own = PYTHON_SERVER_BYTES if kind == "llama-cpp-python" else 0
    whole, kept = sum(row.total_bytes for row in host) + own, sum(row.server_bytes for row in host)
    loaded = _check("resident-loaded", whole - kept, loaded_bytes, "after the first answer")
    if kept and not started and loaded.status == "missed":
        text = "it ran before, and may keep earlier prompts"
        loaded = structs.replace(loaded, status="unknown", text=text, place=None)
    yield loaded
    yield _check("resident", whole, most_bytes, "the most, after every kind of request")
    for row in chosen.memory:
        if row not in host:
            yield _unseen(row)


def _held(process: psutil.Process) -> int:
    rollup = _PROC / str(process.pid) / "smaps_rollup"
    if _PROC.is_dir():
        with contextlib.suppress(ValueError, StopIteration):
            lines = rollup.read_text(encoding="ascii", errors="replace").splitlines()
            return next(int(line.split()[1]) for line in lines if line.startswith("Pss:")) * 1024
    return int(process.memory_info().rss)


def _check(name: str, promised: int, found: int | None, when: str) -> Check:
    if found is None:
        text = "the server's process cannot be looked at from here"
        return Check(area="memory", name=name, status="unknown", planned=gib(promised), text=text)
    share = found / promised
    return Check(
        area="memory",
        name=name,
        status="met" if found <= promised else "missed",
        planned=f"at most {gib(promised)}",
        found=gib(found),
        text=f"{share:.0%} of what was promised, {when}",
        place="inside" if found <= promised else "above",
    )


def _unseen(row: DeviceMemory) -> Check:
    return Check(
        area="memory",
        name=f"resident-{row.device.lower()}",
        status="unknown",
        planned=f"at most {gib(row.total_bytes)}",
        text="what a process holds on a GPU is not read",
    )
