"""The scripted faults: what is ordered of the server or the disk, and what has to be true after each."""

import contextlib
import itertools
import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

from fetch_faults_world import DATA_BYTES, HASTY, HURRIED, World, document, world

from planner.apply.fetch import fetch
from planner.errors import PlannerError
from planner.hub.transfer import Watch

__all__ = ["scripted"]

Run = Callable[[World], str]
_STEP = DATA_BYTES // 20


def scripted(server: ModuleType, scratch: Path) -> list[dict[str, Any]]:
    """Every case, each judged twice: cleaned after the fault, and run again after the fault."""
    rows = []
    for number, (name, scheme, run) in enumerate(_cases()):
        wrong, end, resumed = [], "", 0
        for again in (False, True):
            with world(server, scratch, 2 * number + again, scheme) as here:
                end = run(here)
                wrong.append(here.wrongly_ready())
                here.hub.faults.clear()
                if again:
                    told, resumed = _second(here)
                    wrong.append(told)
                wrong += [f"left behind: {path}" for path in here.left()]
        found = "; ".join(dict.fromkeys(filter(None, wrong)))
        rows.append({"name": name, "hub": scheme, "end": end, "resumed_bytes": resumed, "wrong": found})
        print(f"{number + 1:4} {scheme} {name}: {end}{' WRONG ' + found if found else ''}", flush=True)
    return rows


def _second(here: World) -> tuple[str, int]:
    """The next run, with nothing in its way: whole, right, and nothing asked for that had arrived."""
    held = here.held_bytes()
    here.hub.seen.clear()
    try:
        done = fetch(here.plan, patience=HASTY, pace=HURRIED)
    except PlannerError as error:
        return f"the next run failed: {error.code}", 0
    wasted = here.sent_bytes() - (here.blob.size - held)
    if held and done.resumed_bytes == held and wasted > 0:
        return f"{wasted} bytes came twice", done.resumed_bytes
    return here.not_whole(), done.resumed_bytes


def _cases() -> Iterator[tuple[str, str, Run]]:
    yield from _for("hf", _of_the_body("hf"))
    yield from _for("hf", _of_the_hub())
    yield from _for("hf", _of_the_disk())
    yield from _for("ms", _of_the_body("ms"))


def _for(scheme: str, cases: Iterator[tuple[str, Run]]) -> Iterator[tuple[str, str, Run]]:
    for name, run in cases:
        yield name, scheme, run


def _ordered(**faults: dict[str, Any]) -> Run:
    def run(here: World) -> str:
        for kind, how in faults.items():
            here.hub.fail(kind, **{"times": 99, **how})
        return _ended(here)

    return run


def _ended(here: World, watch: Watch | None = None) -> str:
    try:
        fetch(here.plan, patience=HASTY, pace=HURRIED, watch=watch)
    except PlannerError as error:
        return f"{int(error.exit_code)} {error.code}"
    return "0"


def _of_the_body(scheme: str) -> Iterator[tuple[str, Run]]:
    cuts = 20 if scheme == "hf" else 8
    for part in range(cuts):
        at = DATA_BYTES * part // cuts
        yield f"cut each time after {at} bytes", _ordered(content={"cut_at": at})
    for part in range(cuts // 2):
        at = DATA_BYTES * part // (cuts // 2) + 7
        yield f"a bit flipped at {at}", _ordered(content={"flip_at": at})
    for at in (1, 3 * _STEP, 5 * _STEP) if scheme == "hf" else (5 * _STEP,):
        yield f"cut once after {at} bytes", _ordered(content={"cut_at": at, "times": 1})
        yield f"cut, then the whole file for a range, from {at}", _then({"cut_at": at}, {"ignore_range": True})
        yield f"cut, then another range, from {at}", _then({"cut_at": at}, {"shift": 5})
        yield f"cut, then 416, from {at}", _then({"cut_at": at}, {"status": 416})
        yield f"cut, then other bytes, from {at}", _then({"cut_at": at}, {"flip_at": at + 9})
        yield f"a range that ends early, after {at}", _ordered(content={"short": at, "times": 1})
    yield "another length", _ordered(content={"total": 123_456_789})
    yield "another length and no ranges", _ordered(content={"total": 123_456_789, "ignore_range": True})
    yield "a page of HTML", _ordered(content={"body": b"<html>sign in</html>"})
    yield "an empty body", _ordered(content={"body": b""})
    if scheme == "hf":
        yield "a drip", _ordered(content={"drip_s": 0.01})
        yield "a header that trickles", _ordered(content={"drip_head_s": 0.02, "times": 1})
        yield "an encoding", _ordered(content={"headers": {"Content-Encoding": "gzip"}})


def _then(first: dict[str, Any], second: dict[str, Any]) -> Run:
    """One fault in a first run, another in the second; the judge's own run comes after both."""

    def run(here: World) -> str:
        here.hub.fail("content", times=99, **first)
        _ended(here)
        here.hub.faults.clear()
        here.hub.fail("content", times=1, **second)
        return _ended(here)

    return run


def _of_the_hub() -> Iterator[tuple[str, Run]]:
    for kind, status in itertools.product(("head", "resolve", "content"), (401, 403, 404, 500, 503)):
        yield f"{kind} answers {status}", _ordered(**{kind: {"status": status}})
    for kind in ("head", "resolve", "content"):
        yield f"{kind} answers 429 for long", _ordered(**{kind: {"status": 429, "headers": {"Retry-After": "600"}}})
        yield f"{kind} sends in a circle", _ordered(**{kind: {"location": "/org/Small-GGUF/resolve/main/x.gguf"}})
    yield "sent to no usable address", _ordered(resolve={"location": "ftp://127.0.0.1/x"})
    yield "sent to nobody", _ordered(resolve={"location": "http://127.0.0.1:9/x"})
    yield "another commit", _ordered(head={"commit": "f" * 40})
    yield "no hash and no commit", _ordered(head={"status": 200, "headers": {}})
    yield "gated", _gated
    yield "another file under the name, before", _another(before=True)
    yield "another file under the name, midway", _another(before=False)


def _gated(here: World) -> str:
    here.hub.gated.add("org/Small-GGUF")
    end = _ended(here)
    here.hub.gated.clear()
    return end


def _another(*, before: bool) -> Run:
    def run(here: World) -> str:
        files = here.hub.repos["org/Small-GGUF"]
        name = next(iter(files))
        if not before:
            here.hub.fail("content", times=99, cut_at=3 * _STEP)
            _ended(here)
            here.hub.faults.clear()
        files[name] = here.another
        end = _ended(here)
        files[name] = here.blob
        return end

    return run


def _of_the_disk() -> Iterator[tuple[str, Run]]:
    for part in (0, 1, 5, 10, 19):
        yield f"no byte more than {part * _STEP} of a file", _limited(part * _STEP + 4096)
    yield "a cache that may not be written", _with("HF_HOME", "/sys/planner")
    yield "a cache that is a file", _with("HF_HOME", os.devnull)
    yield "data that may not be written", _with("PLANNER_DATA_DIR", "/sys/planner")
    yield "a disk that is full from the beginning", _tmpfs(fill_at_once=True)
    yield "a disk that fills up midway", _tmpfs(fill_at_once=False)
    for harm in ("cut", "flipped", "longer"):
        yield f"a front that is {harm}", _front(harm)


def _limited(size_bytes: int) -> Run:
    """A real process that may write no longer file."""

    def run(here: World) -> str:
        def limit() -> None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, size_bytes))

        argv = [sys.executable, "-m", "planner", "fetch", str(here.plan_file), "--json"]
        done = subprocess.run(argv, capture_output=True, text=True, check=False, preexec_fn=limit)
        return f"{done.returncode} {document(done.stdout).get('error', {}).get('code', '')}"

    return run


def _with(variable: str, path: str) -> Run:
    def run(here: World) -> str:
        os.environ[variable] = path
        try:
            return _ended(here)
        finally:
            os.environ[variable] = here.environment[variable]

    return run


def _tmpfs(*, fill_at_once: bool) -> Run:
    """A real small disk, where one may be mounted; elsewhere the limit on file sizes stands for it."""

    def run(here: World) -> str:
        disk = Path(here.environment["HF_HOME"])
        disk.mkdir(parents=True, exist_ok=True)
        mount = shutil.which("mount") or "mount"
        made = subprocess.run([mount, "-t", "tmpfs", "-o", "size=80m", "none", disk], capture_output=True, check=False)
        if made.returncode:
            return _limited(6 * _STEP)(here)
        try:
            ballast = disk / "ballast"
            if fill_at_once:
                _fill(ballast, 1 << 20)
            here.hub.fail("content", times=99, pause_s=0.02)
            end = _ended(here, watch=None if fill_at_once else lambda *_: _fill(ballast, 64 << 10))
            ballast.unlink(missing_ok=True)
            # What the case left on the small disk is judged on the large one.
            kept = here.folder / "kept"
            shutil.copytree(disk, kept, symlinks=True)
        finally:
            subprocess.run([shutil.which("umount") or "umount", disk], check=True)
        shutil.copytree(kept, disk, symlinks=True, dirs_exist_ok=True)
        shutil.rmtree(kept)
        return end

    return run


def _fill(ballast: Path, spare_bytes: int) -> None:
    """Leave only so much of the disk free."""
    room = os.statvfs(ballast.parent)
    free = room.f_bavail * room.f_frsize
    if free > spare_bytes:
        with contextlib.suppress(OSError), ballast.open("ab") as file:
            file.write(bytes(free - spare_bytes))


def _front(harm: str) -> Run:
    """A front that something has changed since it was written."""

    def run(here: World) -> str:
        here.hub.fail("content", times=99, cut_at=5 * _STEP)
        _ended(here)
        here.hub.faults.clear()
        (partial,) = here.folder.rglob("*.incomplete")
        data = partial.read_bytes()
        changed = {"cut": data[: len(data) // 2], "flipped": b"x" + data[1:], "longer": data + bytes(4 << 20)}
        partial.write_bytes(changed[harm])
        return _ended(here)

    return run
