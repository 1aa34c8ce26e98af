"""Proof of the predicted speeds: one calibration of short slices, then full phantoms really loaded and timed.

The claims: decode is predicted with a median error of 5 % at most (90 % within 12 %), pp512 with 8 % (20 %),
decode at a depth of 8192 from depths of 2048 at most with 10 %, batches of 2, 4 and 8 sequences with 10 %, and 75 to 85
of 100 results lie in the 80 % interval. Refuted by a run in which one of these does not hold.

A calibration is taken before every five models, and each model is predicted from the one before it: the speed of a
virtual machine's memory changes by a tenth from one quarter of an hour to the next, and what is judged is a minute of
timing and what it says, not the weather. How much the machine changed in between is told by an anchor, a phantom that
both timed.

Each result is written as soon as it is there, and a second run goes on where the first was cut off. The machine must
have nothing else to do: the load is noted beside every result. With ``--llama-bench`` the official program times the
smaller models' phantoms too.

    python bench/speed.py --output bench/results/speed.json [--only NAME,…] [--calibrations 5,15,30,45]
        [--llama-bench PATH] [--report]
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any

import msgspec
import numpy as np
from speed_report import failures, report
from speed_subjects import DEPTH, SEQUENCES, SUBJECTS, Subject

from planner import catalogue
from planner.engine.child import EngineChild
from planner.engine.graphs import Graph, GraphQuestion, Graphs
from planner.engine.phantom import write_phantom
from planner.estimate.costs_speeds import batch_time, generate_time, prompt_time
from planner.estimate.costs_table import CostTable, Took
from planner.measure.bench import RANDOM_FOR_ROUTING, Bench
from planner.measure.calibration import Calibration
from planner.measure.calibration_design import Probe, probes
from planner.measure.slices import weights_bytes
from planner.types.measurement import Test
from planner.types.model import Layout
from planner.types.settings import Settings
from planner.workflow.calibrating import calibrate_session
from planner.workflow.session import Session, open_session
from planner.workflow.timing import last_level_cache_bytes

TOKENS = 16
BATCH_TOKENS = 6
REPETITIONS = 5
COPY_BYTES = 256 << 20
MODELS_PER_CALIBRATION = 5
CURVE_MODELS = 5
OFFICIAL_BYTES = 1_500_000_000
"""The largest model that the official program times as well: it reads each from its file anew."""
ANCHOR = "q8_0-few"


def main() -> int:
    """Calibrate what is missing, time what is missing, and report."""
    options = _options()
    done: dict[str, Any] = json.loads(options.output.read_text()) if options.output.exists() else {}
    done.setdefault("models", {})
    if not options.report:
        with open_session(catalogue.load(), None, None) as session:
            done["machine"] = {"cpu": session.machine.cpu.model, "engine_build": session.oracle.system().build}
            done.setdefault("copy_bytes_per_s", copy_bytes_per_s())
            for number, subject in enumerate(_wanted(options.only, done)):
                if number % MODELS_PER_CALIBRATION == 0:
                    # The curve of error against seconds needs no more than the first models.
                    chosen = options.calibrations if number < CURVE_MODELS else [max(options.calibrations)]
                    done["calibrations"] = {
                        str(seconds): msgspec.to_builtins(calibrate_session(session, budget_s=seconds))
                        for seconds in sorted(chosen, reverse=True)
                    }
                print(subject.name, flush=True)
                done["models"][subject.name] = Run(session, done, options.llama_bench).model(subject)
                _write(options.output, done)
    print(report(done))
    failed = failures(done)
    print("\n".join(failed) or "all claims hold")
    return 1 if failed else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("bench/results/speed.json"))
    parser.add_argument("--only", type=lambda text: text.split(","), default=[])
    parser.add_argument(
        "--calibrations", type=lambda text: [int(each) for each in text.split(",")], default=[5, 15, 30, 45]
    )
    parser.add_argument("--llama-bench", type=Path, help="the official program, timed on the same phantoms")
    parser.add_argument("--report", action="store_true", help="only print what was recorded")
    return parser.parse_args()


def _wanted(only: list[str], done: Mapping[str, Any]) -> Iterator[Subject]:
    for subject in tuple(SUBJECTS):
        named = not only or subject.name in only or subject.model in only
        if named and subject.name not in done["models"]:
            yield subject


def _write(path: Path, done: Mapping[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_suffix(".part")
    # A line for each model: the covariance of a calibration would take a hundred thousand.
    parts = [
        f"{json.dumps(key)}: {_lines(value) if key == 'models' else json.dumps(value)}" for key, value in done.items()
    ]
    new.write_text("{\n" + ",\n".join(parts) + "\n}\n")
    new.replace(path)


def _lines(models: Mapping[str, Any]) -> str:
    return "{\n " + ",\n ".join(f"{json.dumps(name)}: {json.dumps(row)}" for name, row in models.items()) + "\n}"


def copy_bytes_per_s() -> float:
    """Bytes copied per second in RAM, the best of a few: what the formula of llmfit starts from on a CPU."""
    source = np.ones(COPY_BYTES, dtype=np.uint8)
    target = np.empty_like(source)
    best = 0.0
    for _ in range(5):
        begin = time.perf_counter()
        np.copyto(target, source)
        best = max(best, COPY_BYTES / (time.perf_counter() - begin))
    return best


class Run:
    """Times one subject and asks every calibration what it would have said."""

    def __init__(self, session: Session, done: Mapping[str, Any], llama_bench: Path | None) -> None:
        self._session = session
        self._graphs = Graphs(session.oracle)
        self._calibrations = {name: msgspec.convert(found, Calibration) for name, found in done["calibrations"].items()}
        longest = max(self._calibrations, key=int)
        signature = self._calibrations[longest].signature
        self._settings = Settings(
            context_tokens=DEPTH + 256,
            threads=signature.threads,
            threads_batch=signature.threads_batch,
            openmp_wait=self._calibrations[longest].openmp_wait,
        )
        self._llama_bench = llama_bench

    def model(self, subject: Subject) -> dict[str, Any]:
        """Every test of one subject: what it took, what each calibration said, and the state of the machine."""
        known = self._session.sources.catalogue
        model, quantization = known.model(subject.model), known.quantization(subject.quantization)
        key = known.shape_key(model)
        layout = self._session.oracle.typed_layout(key, lambda: known.layout(model), quantization)
        begin = time.monotonic()
        took: dict[str, list[float]] = {}

        def child(env: Mapping[str, str]) -> EngineChild:
            return EngineChild(self._session.engine_python, env=env)

        with Bench(child) as bench:
            anchor = probes(known, cache_bytes=last_level_cache_bytes(self._session.machine), quick=True)
            bench.open(
                _labelled(anchor, ANCHOR).layout, msgspec.structs.replace(self._settings, context_tokens=1024), ANCHOR
            )
            drift = [self._anchor(bench)]
            bench.open(layout, self._settings, "alone")
            took |= self._alone(bench, subject)
            bench.close(["alone"])
            bench.open(layout, _together(self._settings, max(SEQUENCES)), "together")
            took |= self._together(bench)
            drift.append(self._anchor(bench))
        size = weights_bytes(layout)
        official = self._official(layout) if self._llama_bench and size <= OFFICIAL_BYTES else {}
        return {
            "architecture": model.architecture,
            "file_bytes": size,
            "parameters": model.parameters,
            "parameters_active": model.parameters_active,
            "samples_ns": took,
            "took_ns": {name: median(each) for name, each in took.items()},
            "predicted_ns": self.predicted(subject),
            "official_tokens_per_s": official,
            "anchor_ns": drift,
            "anchor_calibrated_ns": self._anchor_calibrated(),
            "load": os.getloadavg()[0],
            "seconds": time.monotonic() - begin,
            "taken_at": datetime.now(UTC).isoformat(timespec="seconds"),
        }

    def _anchor(self, bench: Bench) -> float:
        """Nanoseconds of a token of a phantom that the calibration timed too: the machine itself may have changed."""
        test = Test(kind="generate", tokens=8)
        return median(
            (run := bench.run(ANCHOR, test, tokens=8, deadline_s=600)).samples_ns[0] / run.tokens_timed
            for _ in range(REPETITIONS)
        )

    def _anchor_calibrated(self) -> float | None:
        longest = self._calibrations[max(self._calibrations, key=int)]
        label = f"{ANCHOR} tg8"
        return next((each.took_ns for each in longest.table.timings if each.label == label), None)

    def _alone(self, bench: Bench, subject: Subject) -> dict[str, list[float]]:
        """Decode at the start and at depth, and a prompt, in turns, after one run of each that does not count."""
        tests = {
            "tg": (Test(kind="generate", tokens=TOKENS), REPETITIONS),
            f"tg@{DEPTH}": (Test(kind="generate", tokens=TOKENS, depth=DEPTH), 3),
            "pp512": (Test(kind="prompt", tokens=512), subject.prompts),
        }
        bench.run("alone", Test(kind="prompt", tokens=64), tokens=64, deadline_s=600)
        found: dict[str, list[float]] = {name: [] for name in tests}
        for number in range(REPETITIONS):
            for name, (test, repetitions) in tuple(tests.items()):
                if number >= repetitions:
                    continue
                run = bench.run("alone", test, tokens=test.tokens, deadline_s=600, fill_budget_s=60)
                if test.depth and run.filled_by == "decode":
                    # A recurrent state is reached by reading the whole context again, every time: once is enough.
                    tests[name] = (test, 1)
                if run.samples_ns:
                    batches = 1 if test.kind == "prompt" else run.tokens_timed
                    found[name].append(run.samples_ns[0] / batches)
        return {name: each for name, each in found.items() if each}

    def _together(self, bench: Bench) -> dict[str, list[float]]:
        """Steps of several sequences that write together."""
        found: dict[str, list[float]] = {}
        for number in range(REPETITIONS + 1):
            for count in SEQUENCES:
                test = Test(kind="generate", tokens=BATCH_TOKENS, sequences=count)
                run = bench.run("together", test, tokens=BATCH_TOKENS, deadline_s=600)
                if number:
                    found.setdefault(f"x{count}", []).append(run.samples_ns[0] / run.tokens_timed)
        return found

    def predicted(self, subject: Subject) -> dict[str, dict[str, list[float] | None]]:
        """Nanoseconds of each test with their interval, as each calibration has them."""
        known = self._session.sources.catalogue
        model, quantization = known.model(subject.model), known.quantization(subject.quantization)
        shallow = msgspec.structs.replace(self._settings, context_tokens=1024)

        def graph(question: GraphQuestion) -> Graph:
            return self._graphs.ask(known.shape_key(model), lambda: known.layout(model), quantization, [question])[0]

        one = graph(GraphQuestion(settings=shallow, tokens=1))
        deep = graph(GraphQuestion(settings=self._settings, tokens=1))
        prompt = graph(GraphQuestion(settings=shallow, tokens=512))
        batches = {
            count: graph(
                GraphQuestion(settings=_together(self._settings, count), tokens=count, sequences=count, outputs=count)
            )
            for count in SEQUENCES
        }

        def told(table: CostTable) -> dict[str, list[float] | None]:
            found: dict[str, Took | None] = {
                "tg": generate_time(table, one, depth=0, tokens=TOKENS),
                f"tg@{DEPTH}": generate_time(table, deep, depth=DEPTH, tokens=TOKENS),
                "pp512": prompt_time(table, prompt, micro=512, tokens=512),
            }
            for count, each in batches.items():
                found[f"x{count}"] = batch_time(table, each, depth=0, tokens=BATCH_TOKENS)
            return {name: None if took is None else list(took) for name, took in found.items()}

        return {name: told(calibration.table) for name, calibration in self._calibrations.items()}

    def _official(self, layout: Layout) -> dict[str, float]:
        """Tokens per second as the official llama-bench has them on the same phantom, by test."""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "phantom.gguf"
            routed = any("ffn_gate_inp" in tensor.name for tensor in layout.tensors)
            write_phantom(path, layout, random_seed=1 if routed else None, random_only=RANDOM_FOR_ROUTING)
            argv = [str(self._llama_bench), "-m", str(path), "-p", "512", "-n", str(TOKENS), "-r", "3", "-o", "json"]
            argv += ["-t", str(self._settings.threads), "-fa", "auto"]
            env = {**os.environ, "OMP_WAIT_POLICY": self._settings.openmp_wait}
            answer = subprocess.run(argv, check=True, capture_output=True, env=env, timeout=900)
        rows = json.loads(answer.stdout)
        return {
            ("pp512" if row["n_prompt"] else "tg"): row.get("median_ts") or median(row["samples_ts"]) for row in rows
        }


def _labelled(designed: Sequence[Probe], label: str) -> Probe:
    return next(each for each in designed if each.label == label)


def _together(settings: Settings, sequences: int) -> Settings:
    return msgspec.structs.replace(settings, context_tokens=256 * sequences, parallel=sequences)


if __name__ == "__main__":
    sys.exit(main())
