"""What goes wrong while serving, done on purpose to real servers: nothing may be left, lost, or called a success.

``python bench/serve_faults.py --server PATH/llama-server`` serves phantoms of a small model by ``planner serve`` and,
under the load of an outside OpenAI client, kills the server, kills the planner, stops either politely, freezes the
server; takes the port, cuts the weights at many places, names servers that die, hang or never get ready. After each
it looks for processes that are left, for files that are left, and whether the port is free again. Recorded in
``results/serve_faults.json``; about 5 minutes, and other work on the machine does no harm.
"""

import argparse
import json
import os
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import openai
import psutil
from serve import PYTHON_SERVER, Case, Serving, ask, client_of, make_plan, prompt_of, serving

from planner.apply.serve_phantom import phantom_weights
from planner.apply.serve_place import check_port, free_port

RESULTS = Path(__file__).parent / "results" / "serve_faults.json"
CASE = Case("qwen3-0.6b", "Q4_K_M", 1024, 2)
STREAMS = 4
_HANG = """
import sys
from pathlib import Path
from planner.apply.serve import ServeRequest, serve
from planner.apply.supervise import Limits
from planner.workflow.plan_file import read_plan
plan, weights, server, port = sys.argv[1:]
limits = Limits(deadline_s=120, hang_s=3, watch_s=0.5, backoff_s=0.2)
request = ServeRequest(weights=weights, server=server, port=int(port), limits=limits)
serve(read_plan(plan), request, tell=lambda text: print(text, file=sys.stderr, flush=True))
"""


class Load:
    """Clients that stream without end; the answers they got and the failures they saw."""

    def __init__(self, running: Serving, *, plain: bool) -> None:
        self._running, self._plain = running, plain
        self._over = threading.Event()
        self.answers, self.failures = 0, 0
        self._threads = [threading.Thread(target=self._work, args=(number,)) for number in range(STREAMS)]
        for thread in self._threads:
            thread.start()
        time.sleep(2.0)

    def _work(self, number: int) -> None:
        with client_of(self._running) as client:
            while not self._over.is_set():
                try:
                    ask(client, prompt_of(60, number), tokens=48, plain=self._plain)
                    self.answers += 1
                except (openai.OpenAIError, RuntimeError, OSError):
                    self.failures += 1
                    self._over.wait(0.1)
                except Exception:  # noqa: BLE001 - whatever the client's transport raises for a cut stream
                    self.failures += 1

    def end(self) -> None:
        """No more requests."""
        self._over.set()
        for thread in self._threads:
            thread.join()


def gone(pids: list[int], seconds: float = 3.0) -> bool:
    """Whether none of the processes lives, soon."""
    end = time.monotonic() + seconds
    while any(_alive(pid) for pid in pids):
        if time.monotonic() > end:
            return False
        time.sleep(0.02)
    return True


def _alive(pid: int) -> bool:
    with suppress(psutil.Error):
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    return False


def free(port: int) -> bool:
    """Whether the port can be taken again."""
    with suppress(Exception):
        check_port("127.0.0.1", port)
        return True
    return False


def kill_server(plan: Path, weights: Path, server: str, *, plain: bool) -> dict[str, Any]:
    """SIGKILL to the server under load, three times: it is back each time and answers."""
    with serving(plan, server, "--weights", str(weights)) as running:
        load = Load(running, plain=plain)
        for number in range(3):
            pid = running.pid
            assert pid is not None
            os.kill(pid, signal.SIGKILL)
            running.until("is ready", count=number + 2)
            time.sleep(1.0)
        load.end()
        with client_of(running) as client:
            answered = ask(client, prompt_of(60, 9), tokens=8, plain=plain).tokens == 8
        code = running.stop()
    return {"ok": answered and code == 0 and load.answers > 0, "answers": load.answers, "cut": load.failures}


def kill_planner(plan: Path, weights: Path, server: str, *, plain: bool) -> dict[str, Any]:
    """SIGKILL to the planner under load: server gone within three seconds, port free."""
    with serving(plan, server, "--weights", str(weights)) as running:
        load = Load(running, plain=plain)
        pid = running.pid
        assert pid is not None
        began = time.monotonic()
        running.process.kill()
        running.process.wait()
        ended = gone([pid])
        took = time.monotonic() - began
        load.end()
    return {"ok": ended and free(running.port), "seconds": round(took, 3)}


def stop_planner(plan: Path, weights: Path, server: str, number: signal.Signals, *, plain: bool) -> dict[str, Any]:
    """A polite signal under load: exit code 0, nothing left, in less than the grace and a second."""
    with serving(plan, server, "--weights", str(weights)) as running:
        load = Load(running, plain=plain)
        pid = running.pid
        assert pid is not None
        began = time.monotonic()
        running.process.send_signal(number)
        code = running.process.wait(30)
        took = time.monotonic() - began
        load.end()
    return {"ok": code == 0 and gone([pid]) and free(running.port) and took < 11, "seconds": round(took, 3)}


def freeze_server(plan: Path, weights: Path, server: str) -> dict[str, Any]:
    """SIGSTOP: neither an answer nor a computation, so it is replaced; another one answers."""
    port = free_port()
    with tempfile.TemporaryDirectory() as folder:
        notes = Path(folder) / "notes"
        with notes.open("wb") as err:
            words = [sys.executable, "-c", _HANG, str(plan), str(weights), server, str(port)]
            process = subprocess.Popen(words, stderr=err)
        running = Serving(process, port, notes)
        try:
            running.until("is ready")
            first = running.pid
            assert first is not None
            os.kill(first, signal.SIGSTOP)
            running.until("is ready", count=2, seconds=60)
            replaced = running.pid != first and gone([first])
        finally:
            code = running.stop()
    return {"ok": replaced and code == 0}


def refused(plan: Path, *words: str, port: int | None = None) -> tuple[int, str, float]:
    """``planner serve`` that should end by itself: exit code, the code word of its error, seconds."""
    command = [
        sys.executable,
        "-m",
        "planner",
        "serve",
        str(plan),
        "--json",
        "--port",
        str(port or free_port()),
        *words,
    ]
    began = time.monotonic()
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    told = json.loads(done.stdout) if done.stdout else {}
    return done.returncode, told.get("error", {}).get("code", ""), time.monotonic() - began


def cut_weights(plan: Path, weights: Path, server: str, folder: Path) -> dict[str, Any]:
    """A file cut at 20 places, in its header and in its data: refused each time with 65, no server started."""
    size = weights.stat().st_size
    cut = folder / "cut.gguf"
    shutil.copyfile(weights, cut)
    codes = []
    for length in sorted((size * part // 20 - (part == 20) for part in range(1, 21)), reverse=True):
        os.truncate(cut, length)
        codes.append(refused(plan, "--weights", str(cut), "--server", server)[0])
    for length in (100_000, 1000, 24, 0):
        os.truncate(cut, length)
        codes.append(refused(plan, "--weights", str(cut), "--server", server)[0])
    return {"ok": set(codes) == {65}, "files": len(codes)}


def wayward(folder: Path, name: str, body: str) -> str:
    """An executable that behaves as ``body`` says."""
    path = folder / name
    path.write_text(f"#!{sys.executable}\n{body}\n", encoding="utf-8")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return str(path)


def bad_servers(plan: Path, weights: Path, folder: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Programs that are no good servers: each ends with its code, in its time."""
    given = ("--weights", str(weights))
    silent = wayward(folder, "silent", "import time; time.sleep(600)")
    code, word, took = refused(plan, *given, "--server", silent, "--deadline", "3")
    yield "never ready", {"ok": code == 13 and word == "engine-died" and took < 8, "seconds": round(took, 1)}
    dying = wayward(folder, "dying", "import sys; sys.exit('no')")
    code, word, took = refused(plan, *given, "--server", dying)
    yield "dies at once", {"ok": code == 13 and took < 5, "seconds": round(took, 1)}
    code, word, _ = refused(plan, *given, "--server", str(folder / "absent"))
    yield "not there", {"ok": (code, word) == (66, "server-missing")}
    code, word, _ = refused(plan, "--server", dying)
    yield "weights missing", {"ok": (code, word) == (66, "weights-missing")}


def taken_port(plan: Path, weights: Path, server: str) -> dict[str, Any]:
    """The port of another planner, and of a stranger: 75 each, and the first serves on."""
    with serving(plan, server, "--weights", str(weights)) as running:
        second = refused(plan, "--weights", str(weights), "--server", server, port=running.port)
        alive = running.process.poll() is None and running.pid is not None
        pid = running.pid
    command = [sys.executable, "-m", "http.server", "--bind", "127.0.0.1", str(running.port)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as stranger:
        time.sleep(1.5)
        third = refused(plan, "--weights", str(weights), "--server", server, port=running.port)
        stranger.kill()
    return {"ok": second[:2] == third[:2] == (75, "port-taken") and alive and pid is not None}


def kill_while_writing(plan: Path, server: str, cache: Path) -> dict[str, Any]:
    """SIGKILL while the phantom is written: the next run removes what it left; SIGTERM leaves nothing at all."""
    folder = cache / "phantoms"
    words = [sys.executable, "-m", "planner", "serve", str(plan), "--phantom", "--server", server]
    left = []
    for number in (signal.SIGKILL, signal.SIGTERM):
        stale = set(folder.glob("served-*/.phantom*"))
        process = subprocess.Popen([*words, "--port", str(free_port())], stderr=subprocess.DEVNULL)
        end = time.monotonic() + 30
        while not set(folder.glob("served-*/.phantom*")) - stale and time.monotonic() < end and process.poll() is None:
            time.sleep(0.01)
        process.send_signal(number)
        process.wait(30)
        left.append(len(list(folder.glob("served-*"))))
    return {"ok": left == [1, 0], "left": left}


def left_over(folder: Path) -> list[int]:
    """Processes that still name a file of this run."""
    return [
        process.pid
        for process in psutil.process_iter(["cmdline"])
        if process.pid != os.getpid() and any(str(folder) in word for word in process.info["cmdline"] or [])
    ]


def main() -> None:
    """All faults, recorded."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--server", required=True, help="a llama-server (make llama-server builds one)")
    arguments = parser.parse_args()
    # A shell starts a job in the background with these ignored, and what is ignored stays so in every child.
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler)
    rows: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ["PLANNER_CACHE_DIR"] = str(folder / "cache")
        plan, made_plan = make_plan(CASE, folder)
        chosen = made_plan.chosen
        assert chosen is not None
        with phantom_weights(chosen, tell=print, folder=folder / "own") as made:
            weights = made.paths[0]
            for server in (arguments.server, PYTHON_SERVER):
                plain, what = server == PYTHON_SERVER, "python" if server == PYTHON_SERVER else "llama-server"
                rows[f"{what}: killed under load"] = kill_server(plan, weights, server, plain=plain)
                for number in range(5):
                    rows[f"{what}: planner killed, {number}"] = kill_planner(plan, weights, server, plain=plain)
                for each in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
                    rows[f"{what}: {each.name} under load"] = stop_planner(plan, weights, server, each, plain=plain)
                rows[f"{what}: frozen"] = freeze_server(plan, weights, server)
                rows[f"{what}: port taken"] = taken_port(plan, weights, server)
            rows["weights cut"] = cut_weights(plan, weights, arguments.server, folder)
            rows.update(bad_servers(plan, weights, folder))
        rows["killed while writing a phantom"] = kill_while_writing(plan, arguments.server, folder / "cache")
        rows["nothing left"] = {"ok": not left_over(folder)}
    for fault, row in rows.items():
        print(f"{fault}: {json.dumps(row)}")
    record = {"date": datetime.now(UTC).date().isoformat(), "faults": rows}
    RESULTS.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    wrong = [fault for fault, row in rows.items() if not row["ok"]]
    print(f"refuted: {wrong}" if wrong else f"{len(rows)} faults, nothing lost, nothing left")
    raise SystemExit(1 if wrong else 0)


if __name__ == "__main__":
    main()
