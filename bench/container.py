"""Plans made inside memory limits and then run there: none may be killed, and what they refused must not fit.

Draws goals at random, makes a real cgroup for each (see :mod:`cgroups`), lets ``planner plan --json --no-measure`` plan
inside, and runs the chosen candidate's phantom inside the same limit to the last byte of its promise
(:mod:`container_run`). For a sample the candidate that the search refused by the least is run in the same limit, too:
killed, or reading its weights again and again from the file (there is no swap in the group), means refused rightly.

    python bench/container.py [--plans 2:90,4:60,8:35,12:15] [--refused 60] [--seed 1] [--output FILE.json [--more]]
"""

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import threading
from concurrent.futures import ThreadPoolExecutor, as_completed
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
from cgroups import CannotLimitError, Limited, limited

from planner import catalogue
from planner.engine.child import EngineChild
from planner.engine.oracle import Oracle
from planner.engine.phantom import write_phantom
from planner.types.plan import Candidate, Goal
from planner.types.settings import Settings

GIB, MIB = 1 << 30, 1 << 20
HERE = Path(__file__).parent
MODELS = (
    "qwen3-0.6b",
    "qwen3-1.7b",
    "qwen3-4b",
    "qwen3.5-0.8b",
    "qwen3.5-2b",
    "qwen3.5-4b",
    "deepseek-v2-lite",
    "qwen3-8b",
)
BUDGET_GIB = 12  # of all groups at once
TOKENIZER_BYTES_PER_TOKEN = 340  # measured with llama.cpp's vocabularies; a phantom has none
PROMPT_FLOPS = 0.3e12  # a prompt of a full micro-batch up to 0.3B parameters, fewer tokens beyond
FAULTS_PER_TOKEN = 8
"""From so many on weights are read from the file again for every token; a plan that fits has none in 32 tokens."""
NOTHING_FITS = 10  # exit code


class Budget:
    """Memory that the groups running at the same time may have in all."""

    def __init__(self, gib: int) -> None:
        self._left, self._turn = gib, threading.Condition()

    def take(self, gib: int) -> None:
        """Wait until so much is free."""
        with self._turn:
            self._turn.wait_for(lambda: self._left >= gib)
            self._left -= gib

    def give(self, gib: int) -> None:
        """Hand it back."""
        with self._turn:
            self._left += gib
            self._turn.notify_all()


def drawn(rng: random.Random) -> Goal:
    """A goal as people have them, at random."""
    model = rng.choice((None, None, None, *MODELS[:5]))
    return Goal(
        use=rng.choice(("chat", "code", "reasoning", "documents")),
        context_tokens=rng.choice((None, None, None, 2048, 4096, 12000, 30000)),
        parallel=rng.choice((1, 1, 1, 1, 2, 4)),
        min_tokens_per_s=rng.choice((8.0, 3.0, 0.5)),
        max_answer_seconds=100_000.0,
        families=() if model else rng.choice(((), ("all",))),
        model=model,
        cache_type=rng.choice((None, None, None, "f16", "q8_0")),
        load_mode=rng.choice((None, None, None, "mmap")),
    )


def argv(goal: Goal) -> list[str]:
    """The command line of a goal."""
    words = [sys.executable, "-m", "planner", "plan", "--json", "--no-measure", "--for", goal.use]
    words += ["--min-speed", str(goal.min_tokens_per_s), "--parallel", str(goal.parallel)]
    words += ["--max-answer-seconds", str(goal.max_answer_seconds)]
    for option, value in (
        ("--context", goal.context_tokens),
        ("--model", goal.model),
        ("--kv-type", goal.cache_type),
        ("--load-mode", goal.load_mode),
        *(("--family", family) for family in goal.families),
    ):
        words += [option, str(value)] if value is not None else []
    return words


class Bench:
    """What all trials share."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.known, self.budget = folder, catalogue.load(), Budget(BUDGET_GIB)
        self.engine_lock = threading.Lock()

    def phantom(self, model: str, quantization: str, path: Path) -> int:
        """Write the phantom of a model's file; the bytes of the tokenizer that it lacks."""
        known = self.known
        named, recipe = known.model(model), known.quantization(quantization)
        with self.engine_lock, EngineChild() as child, Oracle(child) as oracle:
            typed = oracle.typed_layout(known.shape_key(named), lambda: known.layout(named), recipe)
        write_phantom(path, typed, random_seed=1, random_only=("ffn_gate_inp.weight",))
        return TOKENIZER_BYTES_PER_TOKEN * (named.size("n_vocab") or 0)

    def run(
        self, group: Limited, model: str, quantization: str, settings: Settings, *, promise_bytes: int | None
    ) -> dict[str, Any]:
        """Run a candidate inside the group; with a promise to its last byte, without one with a full micro-batch."""
        active = self.known.model(model).parameters_active
        with tempfile.NamedTemporaryFile(dir=self.folder, suffix=".gguf") as file:
            tokenizer = self.phantom(model, quantization, Path(file.name))
            asked = {
                "path": file.name,
                "settings": msgspec.to_builtins(settings),
                "tokenizer_bytes": tokenizer,
                "prompt_tokens": settings.ubatch
                if promise_bytes is None
                else max(32, int(PROMPT_FLOPS / (2 * active))),
                "promise_bytes": promise_bytes or 0,
            }
            before = group.oom_kills
            try:
                ran = group.run(
                    [sys.executable, str(HERE / "container_run.py")], stdin=json.dumps(asked), timeout_s=900
                )
            except subprocess.TimeoutExpired:
                return {"ran": False, "killed": group.oom_kills - before, "error": "no end within 900 s"}
            row: dict[str, Any] = {"ran": ran.returncode == 0, "killed": group.oom_kills - before}
            if ran.returncode == 0:
                return row | json.loads(ran.stdout.splitlines()[-1])
            return row | {"exit_code": ran.returncode, "error": ran.stderr[-300:]}

    def trial(self, gib: int, goal: Goal, *, refused: bool) -> dict[str, Any]:
        """One plan: made inside, run inside; then what it refused by the least."""
        row: dict[str, Any] = {"limit_gib": gib, "goal": msgspec.to_builtins(goal)}
        self.budget.take(gib)
        try:
            with limited(gib * GIB, 2.0) as group:
                return row | self._planned(group, goal, refused=refused)
        except CannotLimitError as error:
            return row | {"unchecked": str(error)}
        finally:
            self.budget.give(gib)

    def _planned(self, group: Limited, goal: Goal, *, refused: bool) -> dict[str, Any]:
        planned = group.run(argv(goal))
        row: dict[str, Any] = {"exit_code": planned.returncode, "killed_while_planning": group.oom_kills}
        if planned.returncode not in {0, NOTHING_FITS}:
            return row | {"error": (planned.stdout or planned.stderr)[-400:]}
        chosen = json.loads(planned.stdout)["chosen"]
        if chosen is not None:
            candidate = msgspec.convert(chosen, Candidate)
            memory = candidate.memory[0]
            row |= {
                "chosen": f"{candidate.model} {candidate.quantization}",
                "settings": changed(candidate.settings),
                "total_bytes": memory.total_bytes,
                "available_bytes": memory.available_bytes,
                "reserve_bytes": memory.reserve_bytes,
                "run": self.run(
                    group,
                    candidate.model,
                    candidate.quantization,
                    candidate.settings,
                    promise_bytes=memory.total_bytes,
                ),
            }
        if refused:
            row["refused"] = self._refused(group, goal)
        return row

    def _refused(self, group: Limited, goal: Goal) -> dict[str, Any] | None:
        """What the search refused by the least, run in the same limit."""
        asked = group.run(
            [sys.executable, str(HERE / "container_refused.py")], stdin=msgspec.json.encode(goal).decode()
        )
        found = json.loads(asked.stdout) if asked.returncode == 0 else None
        if found is None:
            return None
        settings = msgspec.convert(found["settings"], Settings)
        ran = self.run(group, found["model"], found["quantization"], settings, promise_bytes=None)
        return {
            "model": f"{found['model']} {found['quantization']}",
            "settings": changed(settings),
            "needed_bytes": found["needed_bytes"],
            "chosen_model": found["chosen_model"],
            "rightly": rightly(ran),
            "run": ran,
        }


def rightly(ran: dict[str, Any]) -> bool:
    """Whether what was refused did not run as it should: killed, or waiting for its weights at every token."""
    return not ran["ran"] or ran.get("major_faults_while_generating", 0) > 32 * FAULTS_PER_TOKEN


def changed(settings: Settings) -> dict[str, Any]:
    """Settings that differ from the defaults."""
    usual = msgspec.to_builtins(Settings(context_tokens=0))
    return {name: value for name, value in msgspec.to_builtins(settings).items() if value != usual[name]}


def summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """The claims in numbers."""
    planned = [row for row in rows if "unchecked" not in row]
    ran = [row for row in planned if "run" in row]
    sample = [row["refused"] for row in planned if row.get("refused")]
    right = sum(rightly(each["run"]) for each in sample)
    killed = [row for row in ran if row["run"]["killed"] or not row["run"]["ran"]]
    return {
        "plans": len(planned),
        "chose_something": len(ran),
        "failed_to_plan": sum("error" in row for row in planned),
        "killed_while_planning": sum(row["killed_while_planning"] for row in planned),
        "killed_while_running": len(killed),
        "refused_and_run": len(sample),
        "refused_rightly": right,
        "refused_rightly_share": round(right / len(sample), 3) if sample else None,
        "least_left_of_limit_mib": min(
            (round(row["limit_gib"] * 1024 - row["run"]["peak"] / MIB) for row in ran if row["run"].get("peak")),
            default=None,
        ),
    }


def shares(text: str) -> list[tuple[int, int]]:
    """``2:90,4:60`` → plans by GiB."""
    return [(int(gib), int(count)) for gib, _, count in (part.partition(":") for part in text.split(","))]


def main() -> int:
    """Run all trials, the large ones first; 1 when a plan was killed or the reserve is fat."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--plans", type=shares, default=shares("2:90,4:60,8:35,12:15"))
    parser.add_argument("--refused", type=int, default=60, help="size of the sample of refused candidates")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--at-once", type=int, default=2)
    parser.add_argument("--output", type=Path)
    parser.add_argument("--more", action="store_true", help="beside the rows that --output holds already")
    options = parser.parse_args()
    rng = random.Random(options.seed)  # noqa: S311 - a sample that can be repeated
    limits = [gib for gib, count in options.plans for _ in range(count)]
    chosen = set(rng.sample(range(len(limits)), min(options.refused, len(limits))))
    trials = [(gib, drawn(rng), index in chosen) for index, gib in enumerate(limits)]
    trials.sort(key=lambda trial: -trial[0])
    before = json.loads(options.output.read_text()) if options.more else {"rows": [], "seeds": []}
    rows: list[dict[str, Any]] = before["rows"]
    with tempfile.TemporaryDirectory() as name, ThreadPoolExecutor(options.at_once) as pool:
        os.environ.setdefault("PLANNER_CACHE_DIR", str(Path(name) / "cache"))
        bench = Bench(Path(name))
        running = [pool.submit(bench.trial, gib, goal, refused=refused) for gib, goal, refused in trials]
        for done in as_completed(running):
            rows.append(done.result())
            print(json.dumps(rows[-1]), flush=True)
    told = summary(rows)
    share = told["refused_rightly_share"]
    held = not (told["killed_while_running"] or told["killed_while_planning"] or told["failed_to_plan"])
    held = held and (share is None or share >= 0.6)
    print(json.dumps(told, indent=1))
    print("claims held" if held else "claims NOT held")
    if options.output:
        document = {
            "date": datetime.now(UTC).date().isoformat(),
            "seeds": [*before["seeds"], options.seed],
            "held": held,
            "summary": told,
            "rows": rows,
        }
        options.output.write_text(json.dumps(document, indent=1) + "\n")
    return 0 if held else 1


if __name__ == "__main__":
    sys.exit(main())
