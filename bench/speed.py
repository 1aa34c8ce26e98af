"""Proof of the predicted speeds: one calibration of short slices, then full phantoms really loaded and timed.

The claims: decode is predicted with a median error of 5 % at most (90 % within 12 %), pp512 with 8 % (20 %),
decode at a depth of 8192 from depths of 2048 at most with 10 %, batches of 2, 4 and 8 sequences with 10 %, and 75 to 85
of 100 results lie in the 80 % interval. Refuted by a run in which one of these does not hold, whether as plans of that
hour told or as ratios to the reference.

Everything is done in passes. Each begins with a calibration of its own, from which every model is predicted, and
then times every model for some seconds; what counts as the truth is the median over all passes. The speed of a virtual
machine's memory and of its cores changes by a tenth and more within minutes, so a reference phantom is timed beside
every model, as in the calibration, and both are compared as ratios to it (``speed_report.py``). How far one pass is off
the others stands beside the errors.

What a plan of that hour would have told is recorded too: at the pace that the references beside the models before
showed to be usual. The first models know of no other occasion; a calibration that is taken again afterwards knows of
all.

Models take turns (``speed_turns.py``): as many as memory holds are open together.

Each group is written as soon as it was timed, and a second run goes on where the first was cut off. The machine must
have nothing else to do: the load is noted beside every result. ``bench/llama_bench.py`` holds this clock against the
official program's.

    python bench/speed.py --output bench/results/speed.json [--only NAME,…] [--calibrations 5,15,30,55] [--passes 4]
        [--predict-again 5,15,30,55] [--report]
"""

import argparse
import json
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import msgspec
import numpy as np
from speed_report import failures, report
from speed_subjects import DEPTH, SEQUENCES, SUBJECTS, Subject
from speed_turns import BATCH_TOKENS, DEEP_TOKENS, TOKENS, Timed, groups, time_group, together

from planner import catalogue
from planner.engine.graphs import Graph, GraphQuestion, Graphs
from planner.estimate.costs_speeds import batch_time, generate_time, prompt_time
from planner.estimate.costs_table import CostTable, Took
from planner.estimate.memory import host_memory
from planner.measure.calibration import Calibration
from planner.measure.calibration_design import reference_layout
from planner.measure.pace import usual_pace
from planner.measure.slices import weights_bytes
from planner.types.measurement import Reference
from planner.types.model import Layout
from planner.types.settings import Settings
from planner.workflow.calibrating import calibrate_session
from planner.workflow.session import Session, open_session
from planner.workflow.timing import last_level_cache_bytes

COPY_BYTES = 256 << 20
ATTEMPTS = 3
OPEN_SHARE = 0.8
"""Of the usable memory, what the models that are open together may take."""
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
    """One calibration of each length, and the turns of every model that this pass has not timed yet."""
    wanted = [each for each in SUBJECTS if not options.only or each.name in options.only or each.model in options.only]
    missing = [each for each in wanted if len(done["models"].get(each.name, {}).get("passes", ())) <= number]
    if not missing:
        return
    calibrations = _calibrations(session, number, options)
    _note_pace(done, number, calibrations)
    run = Run(session, calibrations)
    timed = [Timed(subject, run.layout(subject), run.open_bytes(subject)) for subject in missing]
    for group in groups(timed, int(OPEN_SHARE * session.machine.memory.usable_bytes)):
        print(f"pass {number + 1}: {', '.join(each.subject.name for each in group)}", flush=True)
        known = run.paces(_references(done))
        found = time_group(group, run.settings, run.reference, session.engine_python)
        for subject in (each.subject for each in group):
            row = done["models"].setdefault(subject.name, run.facts(subject) | {"passes": []})
            told = {"predicted_ns": run.predicted(subject), "pace": known}
            row["passes"].append(found[subject.name] | told)
            row["took_ns"] = _middles(row)
        _write(options.output, done)


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
    _note_pace(done, number, found)
    run = Run(session, found)
    known = run.paces(_references(done))
    for subject in SUBJECTS:
        if subject.name in timed:
            entry = timed[subject.name]["passes"][number]
            entry["predicted_ns"] |= run.predicted(subject)
            entry["pace"] |= known
    _write(options.output, done)


def _note_pace(done: dict[str, Any], number: int, calibrations: Mapping[str, Calibration]) -> None:
    """What the reference took in the calibrations of a pass: at which pace they tell."""
    noted = done.setdefault("calibrated_at", [])
    noted.extend({} for _ in range(number + 1 - len(noted)))
    noted[number] |= {seconds: msgspec.to_builtins(each.reference) for seconds, each in calibrations.items()}


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
    passes = row["passes"]
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
    """What every model is timed with, and asks every calibration of a pass what it would have said."""

    def __init__(self, session: Session, calibrations: Mapping[str, Calibration]) -> None:
        self._session = session
        self.reference = reference_layout(
            session.sources.catalogue, cache_bytes=last_level_cache_bytes(session.machine)
        )
        self._graphs = Graphs(session.oracle)
        self._calibrations = calibrations
        longest = calibrations[max(calibrations, key=int)]
        self.settings = Settings(
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
            "file_bytes": weights_bytes(self.layout(subject)),
            "parameters": model.parameters,
            "parameters_active": model.parameters_active,
        }

    def layout(self, subject: Subject) -> Layout:
        """The shape of a subject with the types of its weights."""
        known = self._session.sources.catalogue
        model, quantization = known.model(subject.model), known.quantization(subject.quantization)
        return self._session.oracle.typed_layout(known.shape_key(model), lambda: known.layout(model), quantization)

    def open_bytes(self, subject: Subject) -> int:
        """What the engine allocates for a subject at depth or for all sequences, and the file that it maps."""
        known, oracle = self._session.sources.catalogue, self._session.oracle
        model, quantization = known.model(subject.model), known.quantization(subject.quantization)
        asked = known.shape_key(model), lambda: known.layout(model)
        weights = oracle.weights(*asked, quantization, self.settings)
        wanted = [self.settings, together(self.settings, max(SEQUENCES))]
        return max(
            host_memory(
                own, weights, buffers, buffers, process_bytes=0, available_bytes=None, tokenizer=False
            ).total_bytes
            for own, buffers in zip(wanted, oracle.buffers(*asked, wanted, quantization), strict=True)
        )

    def predicted(self, subject: Subject) -> dict[str, dict[str, list[float] | None]]:
        """Nanoseconds of each test with their interval, as each calibration has them."""
        known = self._session.sources.catalogue
        model, quantization = known.model(subject.model), known.quantization(subject.quantization)
        shallow = msgspec.structs.replace(self.settings, context_tokens=1024)

        def graph(question: GraphQuestion) -> Graph:
            return self._graphs.ask(known.shape_key(model), lambda: known.layout(model), quantization, [question])[0]

        one = graph(GraphQuestion(settings=shallow, tokens=1))
        deep = graph(GraphQuestion(settings=self.settings, tokens=1))
        prompt = graph(GraphQuestion(settings=shallow, tokens=512))
        batches = {
            count: graph(
                GraphQuestion(settings=together(self.settings, count), tokens=count, sequences=count, outputs=count)
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


if __name__ == "__main__":
    sys.exit(main())
