"""Proof of the predicted speeds: one calibration of short slices, then full phantoms really loaded and timed.

The claims: decode is predicted with a median error of 5 % at most (90 % within 12 %), pp512 with 8 % (20 %),
decode at a depth of 8192 from depths of 2048 at most with 10 %, batches of 2, 4 and 8 sequences with 10 %, and 75 to 85
of 100 results lie in the 80 % interval. Refuted by a run in which one of these does not hold.

Everything is done in passes. Each begins with a calibration of its own, from which every model is predicted, and
then times every model for a few seconds; what counts as the truth is the median over all passes. So each calibration
is judged by what the machine did over an hour and not by the minute after it: the speed of a virtual machine's memory
and of its cores changes by a tenth and more within minutes. How much it did is printed beside the errors: what one
pass would have said of another.

A reference phantom is timed beside every model, as ``planner measure`` does, and what a pass's calibration says of a
model is told at the pace that the references beside the models before it showed to be usual, as a plan does after
measurements; what it would have said without them stands beside it. The very first model knows of no other occasion; a
calibration that is taken again afterwards knows of all.

``--again`` adds short passes that calibrate nothing and time one sequence only: on a shared host a pass is off the
others by more than a prediction may be, so few passes are no truth.

Each result is written as soon as it is there, and a second run goes on where the first was cut off. The machine must
have nothing else to do: the load is noted beside every result. ``bench/llama_bench.py`` holds this clock against the
official program's.

    python bench/speed.py --output bench/results/speed.json [--only NAME,…] [--calibrations 5,15,30,55] [--passes 4]
        [--again 4] [--predict-again 5,15,30,55] [--report]
"""

import argparse
import contextlib
import json
import os
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
from planner.measure.calibration_design import reference_layout
from planner.measure.pace import usual_pace
from planner.measure.reference import ReferenceRuns
from planner.measure.slices import weights_bytes
from planner.types.measurement import Reference, Test
from planner.types.model import Layout
from planner.types.settings import Settings
from planner.workflow.calibrating import calibrate_session
from planner.workflow.session import Session, open_session
from planner.workflow.timing import last_level_cache_bytes

TOKENS = 8
DEEP_TOKENS = 2
BATCH_TOKENS = 2
REPETITIONS = 3
ANSWERS = 4
"""Of one sequence. Runs are short, since a token takes as long in a short one as in a long one, and what scatters most
is one pass against another (6 to 9 % in the median): so a pass is short and there are many."""
DEEP_ANSWERS = 3
"""A single one was seen to take two and a half times what all later ones did."""
COPY_BYTES = 256 << 20
MOST_SECONDS = 600
ATTEMPTS = 3
QUICK_S = 15
"""Up to so many seconds the phantoms are those of ``planner calibrate --quick``."""


def main() -> int:
    """Pass by pass: calibrate, time what is missing, and report."""
    options = _options()
    done: dict[str, Any] = json.loads(options.output.read_text()) if options.output.exists() else {}
    done.setdefault("models", {})
    if not options.report:
        with open_session(catalogue.load(), None, None) as session:
            done["machine"] = {"cpu": session.machine.cpu.model, "engine_build": session.oracle.system().build}
            done.setdefault("copy_bytes_per_s", copy_bytes_per_s())
            for number in range(options.passes):
                if options.predict_again:
                    _predict_again(session, number, options, done)
                _pass(session, number, options, done)
            for number in range(options.again):
                _again(session, number, options, done)
    print(report(done))
    failed = failures(done)
    print("\n".join(failed) or "all claims hold")
    return 1 if failed else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("bench/results/speed.json"))
    parser.add_argument("--only", type=lambda text: text.split(","), default=[])
    parser.add_argument(
        "--calibrations", type=lambda text: [int(each) for each in text.split(",")], default=[5, 15, 30, 55]
    )
    parser.add_argument("--passes", type=int, default=4)
    parser.add_argument("--again", type=int, default=0, help="after them, so many that only time one sequence")
    parser.add_argument(
        "--predict-again",
        type=lambda text: [int(each) for each in text.split(",")],
        default=[],
        metavar="SECONDS,…",
        help="after a change: calibrate anew for so many seconds and predict what was timed before",
    )
    parser.add_argument("--report", action="store_true", help="only print what was recorded")
    return parser.parse_args()


def _pass(session: Session, number: int, options: argparse.Namespace, done: dict[str, Any]) -> None:
    """One calibration of each length, and some seconds of every model that this pass has not timed yet."""
    missing = _missing(options, done, "passes", number)
    if not missing:
        return
    run = Run(session, _calibrations(session, number, options))
    for subject in missing:
        print(f"pass {number + 1}: {subject.name}", flush=True)
        row = done["models"].setdefault(subject.name, run.facts(subject) | {"passes": []})
        known = run.paces(_references(done))
        row["passes"].append(run.once(subject) | {"pace": known})
        row["took_ns"] = _middles(row)
        _write(options.output, done)


def _again(session: Session, number: int, options: argparse.Namespace, done: dict[str, Any]) -> None:
    """One sequence of every model once more, for a truth that rests on more time."""
    missing = _missing(options, done, "again", number)
    if not missing:
        return
    run = Run(session, _calibrations(session, 0, options))
    for subject in missing:
        print(f"again {number + 1}: {subject.name}", flush=True)
        row = done["models"][subject.name]
        row.setdefault("again", []).append(run.again(subject))
        row["took_ns"] = _middles(row)
        _write(options.output, done)


def _missing(options: argparse.Namespace, done: Mapping[str, Any], kind: str, number: int) -> list[Subject]:
    """The subjects asked for that have not more than ``number`` entries of a kind."""
    wanted = [each for each in SUBJECTS if not options.only or each.name in options.only or each.model in options.only]
    return [each for each in wanted if len(done["models"].get(each.name, {}).get(kind, ())) <= number]


def _predict_again(session: Session, number: int, options: argparse.Namespace, done: dict[str, Any]) -> None:
    """New calibrations in the place of a pass's own, for the same times."""
    rows = {each.name: done["models"][each.name] for each in SUBJECTS if each.name in done["models"]}
    timed = {name: row for name, row in rows.items() if len(row["passes"]) > number}
    if not timed:
        return
    found = {str(seconds): _undisturbed(session, seconds) for seconds in options.predict_again}
    path = _kept(options, number)
    kept = msgspec.json.decode(path.read_bytes(), type=dict[str, Calibration]) if path.exists() else {}
    path.write_bytes(msgspec.json.encode(kept | found))
    run = Run(session, found)
    known = run.paces(_references(done))
    for subject in SUBJECTS:
        if subject.name in timed:
            entry = timed[subject.name]["passes"][number]
            entry["predicted_ns"] |= run.predicted(subject)
            entry["pace"] |= known
    _write(options.output, done)


def _references(done: Mapping[str, Any]) -> list[Reference]:
    """What the reference took beside every model that was timed so far."""
    passes = [each for row in done["models"].values() for each in row["passes"]]
    return [msgspec.convert(each["reference"], Reference) for each in passes]


def _kept(options: argparse.Namespace, number: int) -> Path:
    """Where the calibrations of a pass are kept until nobody needs them."""
    return options.output.with_suffix(f".pass{number + 1}.json")


def _calibrations(session: Session, number: int, options: argparse.Namespace) -> dict[str, Calibration]:
    """The calibrations of a pass by their seconds; those of a run that was cut off are used again."""
    path = _kept(options, number)
    if path.exists():
        return msgspec.json.decode(path.read_bytes(), type=dict[str, Calibration])
    found = {str(seconds): _undisturbed(session, seconds) for seconds in sorted(options.calibrations, reverse=True)}
    path.write_bytes(msgspec.json.encode(found))
    return found


def _undisturbed(session: Session, seconds: float) -> Calibration:
    """A calibration that ``planner calibrate`` would keep."""
    for _ in range(ATTEMPTS):
        found = calibrate_session(session, effort="quick" if seconds <= QUICK_S else "full", budget_s=seconds)
        if not found.conditions.disturbed:
            return found
        print(f"calibrating again: {'; '.join(found.conditions.disturbed)}", flush=True)
    raise SystemExit(f"{ATTEMPTS} calibrations were disturbed: try again on a quiet machine")


def _middles(row: Mapping[str, Any]) -> dict[str, float]:
    """The median over all samples of all passes, by test."""
    passes = [*row["passes"], *row.get("again", ())]
    tests = dict.fromkeys(test for each in passes for test in each["samples_ns"])
    return {test: median(ns for each in passes for ns in each["samples_ns"].get(test, ())) for test in tests}


def _write(path: Path, done: Mapping[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_suffix(".part")
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
    """Times subjects, and asks every calibration of a pass what it would have said."""

    def __init__(self, session: Session, calibrations: Mapping[str, Calibration]) -> None:
        self._session = session
        self._reference = reference_layout(
            session.sources.catalogue, cache_bytes=last_level_cache_bytes(session.machine)
        )
        self._graphs = Graphs(session.oracle)
        self._calibrations = calibrations
        longest = calibrations[max(calibrations, key=int)]
        self._settings = Settings(
            context_tokens=DEPTH + 256,
            threads=longest.signature.threads,
            threads_batch=longest.signature.threads_batch,
            openmp_wait=longest.openmp_wait,
            load_mode="mmap",
        )

    def paces(self, others: Sequence[Reference]) -> dict[str, float]:
        """By calibration, how many times longer everything usually takes than while it was taken."""
        return {name: usual_pace(each.reference, others) for name, each in self._calibrations.items()}

    def facts(self, subject: Subject) -> dict[str, Any]:
        """What a reader of the record must know of the model."""
        model = self._session.sources.catalogue.model(subject.model)
        return {
            "architecture": model.architecture,
            "seen": subject.seen,
            "file_bytes": weights_bytes(self._layout(subject)),
            "parameters": model.parameters,
            "parameters_active": model.parameters_active,
        }

    def once(self, subject: Subject) -> dict[str, Any]:
        """The tests of one pass: samples, what each calibration said, and the state of the machine."""
        begin = time.monotonic()
        with self._opened(subject) as (bench, path, size_bytes):
            reference = ReferenceRuns(bench, self._reference, self._settings)
            samples = _alone(bench, subject, reference)
            # One after the other: repacked weights are a copy of the file for each.
            bench.close(["alone"])
            bench.open_file(path, _together(self._settings, max(SEQUENCES)), "together", size_bytes=size_bytes)
            samples |= _together_timed(bench, reference)
        return {
            "samples_ns": samples,
            "reference": msgspec.to_builtins(reference.told()),
            "predicted_ns": self.predicted(subject),
            "load": os.getloadavg()[0],
            "seconds": round(time.monotonic() - begin, 1),
            "taken_at": datetime.now(UTC).isoformat(timespec="seconds"),
        }

    def again(self, subject: Subject) -> dict[str, Any]:
        """The tests of one sequence, and nothing else."""
        with self._opened(subject) as (bench, _path, _size_bytes):
            samples = _alone(bench, subject, ReferenceRuns(bench, self._reference, self._settings))
        return {"samples_ns": samples, "taken_at": datetime.now(UTC).isoformat(timespec="seconds")}

    @contextlib.contextmanager
    def _opened(self, subject: Subject) -> Iterator[tuple[Bench, Path, int]]:
        """The phantom of a subject, open as ``alone``; where it lies, and how large it is."""
        layout = self._layout(subject)
        size_bytes = weights_bytes(layout)

        def child(env: Mapping[str, str]) -> EngineChild:
            return EngineChild(self._session.engine_python, env=env)

        with tempfile.TemporaryDirectory() as folder, Bench(child) as bench:
            path = Path(folder) / "phantom.gguf"
            routed = any("ffn_gate_inp" in tensor.name for tensor in layout.tensors)
            write_phantom(path, layout, random_seed=1 if routed else None, random_only=RANDOM_FOR_ROUTING)
            bench.open_file(path, self._settings, "alone", size_bytes=size_bytes)
            yield bench, path, size_bytes

    def _layout(self, subject: Subject) -> Layout:
        known = self._session.sources.catalogue
        model, quantization = known.model(subject.model), known.quantization(subject.quantization)
        return self._session.oracle.typed_layout(known.shape_key(model), lambda: known.layout(model), quantization)

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
                f"tg@{DEPTH}": generate_time(table, deep, depth=DEPTH, tokens=DEEP_TOKENS),
                "pp512": prompt_time(table, prompt, micro=512, tokens=512),
            }
            for count, each in batches.items():
                found[f"x{count}"] = batch_time(table, each, depth=0, tokens=BATCH_TOKENS)
            return {name: None if took is None else list(took) for name, took in found.items()}

        return {name: told(each.table) for name, each in self._calibrations.items()}


def _alone(bench: Bench, subject: Subject, reference: ReferenceRuns) -> dict[str, list[float]]:
    """Decode at the start and at depth, and a prompt, in turns, after a prompt and an answer that do not count."""
    tests = {"tg": (Test(kind="generate", tokens=TOKENS), ANSWERS)}
    if subject.deep:
        tests[f"tg@{DEPTH}"] = (Test(kind="generate", tokens=DEEP_TOKENS, depth=DEPTH), DEEP_ANSWERS)
    tests["pp512"] = (Test(kind="prompt", tokens=512), 1)
    bench.run("alone", Test(kind="prompt", tokens=64), tokens=64, deadline_s=MOST_SECONDS)
    bench.run("alone", tests["tg"][0], tokens=TOKENS, deadline_s=MOST_SECONDS)
    if subject.deep:
        # The first token behind a depth touches cache that nothing read before.
        bench.run("alone", tests[f"tg@{DEPTH}"][0], tokens=2, deadline_s=MOST_SECONDS, fill_budget_s=60)
    found: dict[str, list[float]] = {name: [] for name in tests}
    for number in range(ANSWERS):
        reference.once()
        for name, (test, repetitions) in tests.items():
            if number >= repetitions:
                continue
            run = bench.run("alone", test, tokens=test.tokens, deadline_s=MOST_SECONDS, fill_budget_s=60)
            if run.samples_ns:
                batches = 1 if test.kind == "prompt" else run.tokens_timed
                found[name].append(run.samples_ns[0] / batches)
    return {name: each for name, each in found.items() if each}


def _together_timed(bench: Bench, reference: ReferenceRuns) -> dict[str, list[float]]:
    """Steps of several sequences that write together; the first of each count does not count."""
    found: dict[str, list[float]] = {}
    for number in range(REPETITIONS + 1):
        reference.once()
        for count in SEQUENCES:
            test = Test(kind="generate", tokens=BATCH_TOKENS, sequences=count)
            run = bench.run("together", test, tokens=BATCH_TOKENS, deadline_s=MOST_SECONDS)
            if number:
                found.setdefault(f"x{count}", []).append(run.samples_ns[0] / run.tokens_timed)
    return found


def _together(settings: Settings, sequences: int) -> Settings:
    return msgspec.structs.replace(settings, context_tokens=256 * sequences, parallel=sequences)


if __name__ == "__main__":
    sys.exit(main())
