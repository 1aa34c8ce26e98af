"""Plans started by ``planner serve`` and used by an outside OpenAI client: speed and memory against their intervals.

``python bench/serve.py --server PATH/llama-server`` makes a measured plan of each case, serves a phantom of it, and
asks it as others would, with PyPI's ``openai`` package: single answers, a prompt of 512 tokens, then a load generator
with as many clients at once as were planned, for 20 s. The memory of the whole process tree is watched meanwhile.
Each case is recorded as it ends in ``results/serve.json``, so a run that was cut goes on where it was; ``--again``
starts anew. About 2 minutes a case, 20 in all, on two cores; nothing else should run. Needs the extras ``bench``,
``engine`` and ``server``.

``python bench/serve_faults.py`` is the other half: what goes wrong while serving.
"""

import argparse
import json
import os
import platform
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import openai

from planner.apply.serve_place import free_port, listener
from planner.apply.verify_memory import PYTHON_SERVER_BYTES, resident_bytes
from planner.apply.verify_speed import CLIENT_SHARE, promise_at
from planner.measure.conditions import Watch
from planner.types.plan import Plan, Speed
from planner.workflow.plan_file import read_plan

RESULTS = Path(__file__).parent / "results" / "serve.json"
MIB = 1 << 20
LOAD_S = 20.0
ANSWER_TOKENS = 64
PYTHON_SERVER = "llama-cpp-python"


class Case(NamedTuple):
    """What is planned, and which program serves it."""

    model: str
    quantization: str
    context: int
    parallel: int
    python_server: bool = False

    @property
    def name(self) -> str:
        """One line."""
        server = PYTHON_SERVER if self.python_server else "llama-server"
        return f"{self.model} {self.quantization}, {self.parallel} x {self.context} tokens, {server}"


CASES = (
    Case("qwen3-0.6b", "Q4_K_M", 2048, 1),
    Case("qwen3-0.6b", "Q8_0", 2048, 4),
    Case("qwen3-0.6b", "Q4_0", 4096, 1, python_server=True),
    Case("qwen3-1.7b", "Q4_K_M", 2048, 2),
    Case("qwen3.5-0.8b", "Q4_K_M", 2048, 1),
    Case("qwen2.5-0.5b", "Q5_K_M", 2048, 2),
    Case("qwen2.5-1.5b", "Q4_K_M", 2048, 1, python_server=True),
    Case("deepseek-r1-distill-qwen-1.5b", "Q6_K", 2048, 1),
)


class Serving:
    """A ``planner serve`` that runs, and the most that its server held."""

    def __init__(self, process: subprocess.Popen[bytes], port: int, notes: Path) -> None:
        self.process, self.port, self._notes = process, port, notes
        self.peak_bytes = 0
        self._quiet = threading.Event()
        self._watcher = threading.Thread(target=self._watch, daemon=True)

    @property
    def notes(self) -> str:
        """What planner said."""
        return self._notes.read_text(encoding="utf-8")

    @property
    def pid(self) -> int | None:
        """The server's own process."""
        return listener(self.port)

    def until(self, words: str, seconds: float = 300.0, count: int = 1) -> None:
        """Wait until planner has said ``words`` so often."""
        end = time.monotonic() + seconds
        while self.notes.count(words) < count:
            if time.monotonic() > end or self.process.poll() is not None:
                raise SystemExit(f"planner serve never said {words!r}:\n{self.notes}")
            time.sleep(0.05)

    def watch(self) -> None:
        """Begin to weigh it."""
        self._watcher.start()

    def _watch(self) -> None:
        while not self._quiet.wait(0.5):
            pid = self.pid
            self.peak_bytes = max(self.peak_bytes, (resident_bytes(pid) or 0) if pid else 0)

    def stop(self) -> int:
        """SIGTERM; the exit code."""
        self._quiet.set()
        if self._watcher.is_alive():
            self._watcher.join()
        if self.process.poll() is None:
            self.process.terminate()
        return self.process.wait(60)


@contextmanager
def serving(plan: Path, server: str, *words: str, port: int | None = None) -> Iterator[Serving]:
    """``planner serve PLAN --phantom`` (or other ``words``) that is ready."""
    port = port or free_port()
    with tempfile.TemporaryDirectory() as folder:
        notes = Path(folder) / "notes"
        command = [sys.executable, "-m", "planner", "serve", str(plan), "--server", server, "--port", str(port)]
        with notes.open("wb") as err:
            process = subprocess.Popen([*command, *(words or ("--phantom",))], stderr=err, stdout=subprocess.DEVNULL)
        running = Serving(process, port, notes)
        try:
            running.until("is ready")
            yield running
        finally:
            running.stop()


def client_of(running: Serving) -> openai.OpenAI:
    """The outside client."""
    return openai.OpenAI(base_url=f"http://127.0.0.1:{running.port}/v1", api_key="none", max_retries=0, timeout=600)


class Answer(NamedTuple):
    """One streamed answer as the client saw it."""

    first_s: float
    total_s: float
    tokens: int
    prompt_tokens: int | None
    engine_rate: float | None = None
    """Tokens per second as the server itself timed its engine, where it tells."""

    @property
    def rate(self) -> float | None:
        """Tokens written per second after the first."""
        return (self.tokens - 1) / (self.total_s - self.first_s) if self.tokens > 1 else None


def ask(client: openai.OpenAI, prompt: str, *, tokens: int = ANSWER_TOKENS, plain: bool = False) -> Answer:
    """One request, streamed; ``plain`` leaves out what only llama-server knows."""
    extra: dict[str, Any] = {} if plain else {"ignore_eos": True, "cache_prompt": False}
    began = time.perf_counter()
    first, last, pieces, usage = None, began, 0, None
    timings: dict[str, float] = {}
    stream = client.chat.completions.create(
        model="planned",
        messages=[{"role": "user", "content": prompt}],
        max_tokens=tokens,
        temperature=0,
        stream=True,
        stream_options={"include_usage": True},
        extra_body=extra,
    )
    for part in stream:
        usage = part.usage or usage
        timings = (part.model_extra or {}).get("timings") or timings
        if part.choices and part.choices[0].delta.content:
            last = time.perf_counter()
            first, pieces = first or last, pieces + 1
    if first is None:
        raise RuntimeError("an empty answer")
    count = usage.completion_tokens if usage is not None else pieces
    prompt_tokens = usage.prompt_tokens if usage is not None else None
    return Answer(first - began, last - began, count, prompt_tokens, timings.get("predicted_per_second"))


def prompt_of(tokens: int, mark: int) -> str:
    """Text of about ``tokens`` bytes, which a phantom reads as one token each."""
    text = f"{mark:06} " + "time and water " * (tokens // 15 + 1)
    return text[: max(8, tokens - 40)]


def load(running: Serving, clients: int, *, plain: bool) -> dict[str, Any]:
    """``clients`` that ask again and again for ``LOAD_S``, each its own prompts; what each answer got."""
    answers: list[Answer] = []
    failures: list[str] = []
    end = time.monotonic() + LOAD_S

    def work(number: int) -> None:
        with client_of(running) as client:
            turn = 0
            while time.monotonic() < end:
                turn += 1
                try:
                    answers.append(ask(client, prompt_of(60, 1000 * number + turn), plain=plain))
                except (openai.OpenAIError, RuntimeError) as error:
                    failures.append(f"{type(error).__name__}: {error}")

    threads = [threading.Thread(target=work, args=(number,)) for number in range(clients)]
    began = time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    took = time.monotonic() - began
    rates = [rate for each in answers if (rate := each.rate) is not None]
    return {
        "clients": clients,
        "answers": len(answers),
        "failures": failures,
        "tokens_per_s_each": round(statistics.median(rates), 2),
        "tokens_per_s_all": round(sum(each.tokens for each in answers) / took, 2),
        "first_token_s": round(statistics.median(each.first_s for each in answers), 3),
    }


def placed(found: float, promised: Speed | None) -> dict[str, Any]:
    """A speed beside its interval."""
    if promised is None:
        return {"measured": round(found, 2), "promised": None, "place": None, "kept": None}
    near = found >= (1 - CLIENT_SHARE) * promised.low
    place = "below" if found < promised.low else "above" if found > promised.high else "inside"
    interval = [round(value, 2) for value in (promised.low, promised.tokens_per_s, promised.high)]
    return {"measured": round(found, 2), "promised": interval, "origin": promised.origin, "place": place, "kept": near}


def engine_over_client(answers: list[Answer]) -> float | None:
    """How much faster the server's own clock says it wrote than the client saw, in the median; 1 is no difference."""
    ratios = [each.engine_rate / each.rate for each in answers if each.engine_rate and each.rate]
    return round(statistics.median(ratios), 4) if ratios else None


def make_plan(case: Case, folder: Path) -> tuple[Path, Plan]:
    """A plan of the case, its speeds measured here."""
    path = folder / "plan.json"
    words = ["plan", "--model", case.model, "--quant", case.quantization, "--context", str(case.context)]
    words += ["--parallel", str(case.parallel), "--min-speed", "0.1", "--max-answer-seconds", "100000"]
    done = subprocess.run(
        [sys.executable, "-m", "planner", *words, "--output", str(path)], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(f"{case.name}: no plan\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    return path, read_plan(path)


def run_case(case: Case, server: str, folder: Path) -> dict[str, Any]:
    """One case from plan to numbers."""
    path, plan = make_plan(case, folder)
    chosen = plan.chosen
    assert chosen is not None
    row = next(each for each in chosen.memory if each.device == "CPU")
    own = PYTHON_SERVER_BYTES if case.python_server else 0
    with serving(path, PYTHON_SERVER if case.python_server else server) as running, client_of(running) as client:
        plain = case.python_server
        ask(client, prompt_of(min(1000, case.context // 2), 1), tokens=8, plain=plain)
        pid = running.pid
        loaded = (resident_bytes(pid) or 0) if pid else 0
        watch = Watch((pid,) if pid else (), threads=chosen.settings.threads)
        short = [ask(client, prompt_of(60, 100 + number), plain=plain) for number in range(5)]
        reads = [ask(client, prompt_of(512, 200 + number), tokens=2, plain=plain) for number in range(3)]
        running.watch()
        loaded_by = load(running, 1 if case.python_server else case.parallel, plain=plain)
        disturbed = list(watch.finish().disturbed)
        code = running.stop()
    read = statistics.median((each.prompt_tokens or 512) / each.first_s for each in reads)
    return {
        "case": case.name,
        "date": datetime.now(UTC).date().isoformat(),
        "generate": placed(
            statistics.median(each.rate or 0.0 for each in short),
            promise_at(chosen.speed, (short[0].prompt_tokens or 60) + ANSWER_TOKENS // 2),
        ),
        "engine_over_client": engine_over_client(short),
        "prompt": placed(read, chosen.speed.prompt),
        "together": {**loaded_by, "promised": placed(loaded_by["tokens_per_s_each"], chosen.speed.generate_together)},
        "loaded_mib": {
            "held": round(loaded / MIB, 1),
            "promised": round((row.total_bytes - row.server_bytes + own) / MIB, 1),
        },
        "peak_mib": {"held": round(running.peak_bytes / MIB, 1), "promised": round((row.total_bytes + own) / MIB, 1)},
        "exit_code": code,
        "disturbed": disturbed,
    }


def refuted(row: dict[str, Any]) -> bool:
    """Whether a promise was broken: slower than its interval, more memory, an answer that failed."""
    slow = False in (row["generate"]["kept"], row["prompt"]["kept"], row["together"]["promised"]["kept"])
    large = any(row[name]["held"] > row[name]["promised"] for name in ("loaded_mib", "peak_mib"))
    return slow or large or bool(row["together"]["failures"]) or row["exit_code"] != 0


def main() -> None:
    """Run what is not recorded yet, and record it."""
    # A bench that is ended must end its servers as well.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--server", required=True, help="a llama-server (make llama-server builds one)")
    parser.add_argument("--only", type=int, help="one case by its number, from 0, and record nothing")
    parser.add_argument("--again", action="store_true", help="forget what was recorded")
    arguments = parser.parse_args()
    record: dict[str, Any] = {"machine": f"{platform.machine()}, {os.cpu_count()} cores", "cases": []}
    if RESULTS.exists() and not arguments.again:
        record = json.loads(RESULTS.read_text(encoding="utf-8"))
    known = {row["case"] for row in record["cases"]}
    rows = []
    for number, case in enumerate(CASES):
        if arguments.only not in (None, number) or (arguments.only is None and case.name in known):
            continue
        with tempfile.TemporaryDirectory() as folder:
            row = run_case(case, arguments.server, Path(folder))
        print(json.dumps(row), flush=True)
        rows.append(row)
        if arguments.only is None:
            record["cases"].append(row)
            RESULTS.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    wrong = [row["case"] for row in (rows if arguments.only is not None else record["cases"]) if refuted(row)]
    print(f"refuted: {wrong}" if wrong else "every promise held")
    raise SystemExit(1 if wrong else 0)


if __name__ == "__main__":
    main()
