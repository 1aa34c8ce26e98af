"""Do two runs of the same thing agree? A/A comparisons of small phantoms, with the planner's own verdicts.

Refuted where more than 5 % of the comparisons of valid runs claim a difference that is none, or where fewer than 90 %
had the repetitions to claim one. With ``--noise`` other
processes compute in bursts meanwhile: then a comparison has to be called invalid, or claim nothing.

Each comparison measures the same phantom twice, opened anew each time: one after the other with the whole of
``planner measure`` (``--mode sequential``), or turn by turn as candidates of a race are (``--mode interleaved``). A run
that is cut off goes on where it stopped.

    python bench/aa.py [--comparisons 200] [--mode sequential] [--noise 0] [--output bench/results/aa.json]
"""

import argparse
import functools
import json
import multiprocessing
import os
import random
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
from small_models import small_model

from planner import catalogue, machine
from planner.engine.child import EngineChild
from planner.files import atomic_write
from planner.machine.identity import machine_key
from planner.measure.bench import Bench
from planner.measure.calibration_design import reference_layout
from planner.measure.conditions import Watch
from planner.measure.difference import Difference, compare_runs, machine_moved, machine_scatter
from planner.measure.lock import measurement_lock
from planner.measure.slices import weights_bytes
from planner.measure.statistics import disturbances
from planner.measure.suite import Subject, measure_candidate
from planner.types.measurement import Reference, Test
from planner.types.model import Layout
from planner.types.settings import Settings
from planner.workflow.timing import last_level_cache_bytes

MODELS = (
    ("qwen3-0.6b", 6, "Q8_0"),
    ("qwen3-0.6b", 10, "Q4_K"),
    ("qwen2.5-0.5b", 12, "Q4_0"),
    ("qwen3-1.7b", 4, "Q5_K"),
)
TESTS = (Test(kind="generate", tokens=12), Test(kind="prompt", tokens=64))
MOST_CLAIMS = 0.05
ROUNDS = 5
BUDGET_S = 2.5
"""So long that every test has the five repetitions that a claim needs."""
TOO_FEW = "too few repetitions to tell"
LEAST_MEANT = 0.9
ATTEMPTS = 2
"""So many comparisons are tried for each that is wanted, on a machine that is not always quiet."""


def sequential(bench: Bench, layout: Layout, settings: Settings, name: str, reference: Layout) -> dict[str, Any]:
    """Two measurements one after the other, each as ``planner measure`` makes it, compared as ``--against`` does."""
    subject = Subject(
        model=name,
        quantization="one type",
        shape_key=name,
        whole=lambda: layout,
        part=lambda layers: layout,  # noqa: ARG005 - it always fits
        resident_bytes=2 * weights_bytes(layout),
        usable_bytes=4 << 30,
        cache_bytes=0,
    )
    key = {"machine_key": "aa", "engine_build": "aa", "budget_s": BUDGET_S, "whole_tests": True, "reference": reference}
    first, second = (measure_candidate(bench, subject, settings, TESTS, **key) for _ in range(2))
    return {
        "model": name,
        "disturbed": [*first.conditions.disturbed, *second.conditions.disturbed],
        "samples_ns": {
            a.test.label: [list(a.samples_ns), list(b.samples_ns)]
            for a, b in zip(first.results, second.results, strict=True)
        },
        "reference": [msgspec.to_builtins(each.reference) for each in (first, second)],
    }


def interleaved(bench: Bench, layout: Layout, settings: Settings, name: str) -> dict[str, Any]:
    """The same phantom opened twice, timed turn by turn, every second round backwards."""
    labels = ("a", "b")
    for label in labels:
        bench.open(layout, settings, label, usable_bytes=4 << 30)
    try:
        for label in labels * 2:
            for test in TESTS:
                bench.run(label, test, tokens=test.tokens, deadline_s=120.0)
        watch = Watch(bench.pids, threads=settings.threads)
        times: dict[tuple[str, Test], list[int]] = {}
        for number in range(ROUNDS):
            lanes = [(label, test) for test in TESTS for label in labels]
            for label, test in lanes if number % 2 == 0 else reversed(lanes):
                run = bench.run(label, test, tokens=test.tokens, deadline_s=120.0)
                times.setdefault((label, test), []).extend(run.samples_ns)
        disturbed = [*watch.finish().disturbed, *(why for each in times.values() for why in disturbances(each))]
    finally:
        bench.close(labels)
    return {
        "model": name,
        "disturbed": disturbed,
        "samples_ns": {test.label: [times["a", test], times["b", test]] for test in TESTS},
        "reference": [None, None],
    }


def judged(record: Mapping[str, Any], *, alone: bool = False) -> list[Difference]:
    """The verdict on each test of a comparison as ``--against`` gives it, or as the times ``alone`` would."""
    first, second = (each and msgspec.convert(each, Reference) for each in record["reference"])
    scatter = 0.0 if alone else max(machine_scatter(first), machine_scatter(second))
    return [
        compare_runs(
            *record["samples_ns"][test.label],
            test=test,
            moved=0.0 if alone else machine_moved(first, second, test),
            scatter=scatter,
        )
        for test in TESTS
    ]


@contextmanager
def noise(processes: int) -> Iterator[None]:
    """Processes that compute in bursts of up to three seconds, with pauses as long."""
    started = [multiprocessing.Process(target=_bursts, args=(seed,), daemon=True) for seed in range(processes)]
    for each in started:
        each.start()
    try:
        yield
    finally:
        for each in started:
            each.terminate()
            each.join()


def _bursts(seed: int) -> None:
    rng = random.Random(seed)  # noqa: S311 - noise, no secret
    while True:
        until = time.monotonic() + rng.uniform(0.2, 3.0)
        while time.monotonic() < until:
            sum(range(2000))
        time.sleep(rng.uniform(0.2, 3.0))


def summary(records: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What the comparisons say: how many were valid, and which share of their tests claims a difference."""
    valid = [record for record in records if not record["disturbed"]]
    tests = [each for record in valid for each in judged(record)]
    alone = [each for record in valid for each in judged(record, alone=True)]
    changes = sorted(abs(each.speed_ratio - 1) for each in tests)
    claimed = sum(each.claimed for each in tests)
    return {
        "comparisons": len(records),
        "valid": len(valid),
        "tests_compared": len(tests),
        "with_enough_repetitions": sum(each.why_not != TOO_FEW for each in tests),
        "claimed": claimed,
        "claimed_share": claimed / len(tests) if tests else None,
        "claimed_by_times_alone": sum(each.claimed for each in alone),
        "median_change": changes[len(changes) // 2] if changes else None,
        "p95_change": changes[int(0.95 * len(changes))] if changes else None,
    }


def holds(found: Mapping[str, Any], wanted: int, *, noisy: bool) -> bool:
    """Whether the claim holds: enough valid ones and few differences; under noise it suffices that none is claimed."""
    few = found["claimed"] <= MOST_CLAIMS * max(found["tests_compared"], 1)
    # Where nothing could be claimed, it says nothing that nothing was.
    meant = found["with_enough_repetitions"] >= LEAST_MEANT * found["tests_compared"]
    return few and (noisy or (meant and found["valid"] >= wanted))


def main() -> int:
    """Compare until enough are valid, write after each, and say whether the claim holds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--comparisons", type=int, default=200)
    parser.add_argument("--mode", choices=("sequential", "interleaved"), default="sequential")
    parser.add_argument("--noise", type=int, default=0, metavar="PROCESSES")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--output", type=Path, default=Path("bench/results/aa.json"))
    asked = parser.parse_args()
    question = {"mode": asked.mode, "noise": asked.noise, "threads": asked.threads}
    records = _earlier(asked.output, question)
    known = catalogue.load()
    reference = reference_layout(known, cache_bytes=last_level_cache_bytes(machine.detect(models_dir=Path.home())))
    compare = functools.partial(sequential, reference=reference) if asked.mode == "sequential" else interleaved
    settings = Settings(context_tokens=512, threads=asked.threads, threads_batch=asked.threads, openmp_wait="default")
    layouts = {f"{name} {kind}": small_model(name, layers, kind) for name, layers, kind in MODELS}
    begin = time.monotonic()
    with measurement_lock(wait_s=60.0), noise(asked.noise), Bench(lambda env: EngineChild(env=env)) as bench:
        while len(records) < ATTEMPTS * asked.comparisons:
            done = len(records) if asked.noise else sum(not record["disturbed"] for record in records)
            if done >= asked.comparisons:
                break
            name = list(layouts)[len(records) % len(layouts)]
            records.append(compare(bench, layouts[name], settings, name))
            _write(asked.output, question, records)
            told = records[-1]["disturbed"][:1] or [f"{each.speed_ratio:.3f}" for each in judged(records[-1])]
            print(f"{len(records):4d}  {name:20s}  {'; '.join(told)}", flush=True)
    found = summary(records)
    for name, value in found.items():
        print(f"{name:28s} {value if not isinstance(value, float) else f'{value:.4f}'}")
    good = holds(found, asked.comparisons, noisy=asked.noise > 0)
    print(f"{'holds' if good else 'DOES NOT HOLD'} ({time.monotonic() - begin:.0f} s)")
    return 0 if good else 1


def _earlier(path: Path, question: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The comparisons of a run that was cut off, if it asked the same."""
    try:
        kept = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return []
    records: list[dict[str, Any]] = kept["records"] if kept["question"] == question else []
    return records


def _write(path: Path, question: Mapping[str, Any], records: Sequence[Mapping[str, Any]]) -> None:
    found = machine.detect(models_dir=Path.home())
    document = {
        "program": "bench/aa.py",
        "taken_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": machine_key(found),
        "processor": found.cpu.model,
        "question": question,
        "summary": summary(records),
    }
    # A line for each comparison: samples one under the other would be forty thousand.
    rows = ",\n".join(json.dumps(record) for record in records)
    text = f'{json.dumps(document, indent=1)[:-2]},\n "records": [\n{rows}\n ]\n}}\n'
    atomic_write(path, text.encode())


if __name__ == "__main__":
    sys.exit(main())
