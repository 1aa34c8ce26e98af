"""Shows that a phantom is as fast as a file of the same types, and what zeros, holes and routers change.

For each model the same tensors are timed as

- ``random``: a file of random blocks, the reference; ``other``: other random blocks, which shows the noise,
- ``phantom``: as the planner writes it, a hole that reads as zeros with random routers, ``written``: the same bytes
  written out, which tells a hole from zeros,
- ``unrouted``: everything zero, the routers too (only where there are experts).

All of a model are open at once and timed turn by turn. Refuted where the median speed of ``phantom`` is more than 3 %
from that of ``random`` in the median over all tests, or more than 8 % in any of them while ``other`` is within.

    python bench/phantom_fidelity.py [--rounds 12] [--output bench/results/phantom_fidelity.json]
"""

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any

from small_models import small_model

from planner import machine
from planner.engine.child import EngineChild
from planner.engine.phantom import write_phantom
from planner.files import atomic_write
from planner.machine.identity import machine_key
from planner.measure.bench import RANDOM_FOR_ROUTING, Bench
from planner.measure.conditions import Watch
from planner.measure.difference import compare_runs
from planner.measure.lock import measurement_lock
from planner.measure.slices import weights_bytes
from planner.types.measurement import Test
from planner.types.model import Layout
from planner.types.settings import Settings

MODELS = (
    ("qwen3-0.6b", 10, "F16"),
    ("qwen3-0.6b", 14, "Q8_0"),
    ("qwen3-1.7b", 8, "Q4_0"),
    ("qwen3-1.7b", 8, "Q4_K"),
    ("qwen3-1.7b", 8, "Q6_K"),
    ("qwen3-1.7b", 8, "IQ3_S"),
    ("qwen3-30b-a3b", 1, "Q4_K"),
    ("qwen3-30b-a3b", 1, "Q8_0"),
    ("deepseek-v2-lite", 3, "Q4_0"),
    ("qwen3.5-0.8b", 8, "Q8_0"),
)
TESTS = (
    Test(kind="generate", tokens=16),
    Test(kind="prompt", tokens=64),
    Test(kind="generate", tokens=8, depth=768),
)
REFERENCE = "random"
MOST_IN_THE_MEDIAN, MOST_ANYWHERE = 0.03, 0.08


def write_variants(folder: Path, layout: Layout) -> dict[str, Path]:
    """The files of one model, by variant."""
    routed = any("ffn_gate_inp" in tensor.name for tensor in layout.tensors)
    paths = {name: folder / f"{name}.gguf" for name in ("random", "other", "phantom", "written")}
    write_phantom(paths["random"], layout, random_seed=11)
    write_phantom(paths["other"], layout, random_seed=12)
    write_phantom(paths["phantom"], layout, random_seed=1 if routed else None, random_only=RANDOM_FOR_ROUTING)
    with paths["phantom"].open("rb") as source, paths["written"].open("wb") as target:
        while chunk := source.read(1 << 22):
            target.write(chunk)
    if routed:
        paths["unrouted"] = folder / "unrouted.gguf"
        write_phantom(paths["unrouted"], layout)
    return paths


def timed(bench: Bench, layout: Layout, settings: Settings, rounds: int, folder: Path) -> dict[str, Any]:
    """Nanoseconds of every variant and test, round by round, and what disturbed them."""
    paths = write_variants(folder, layout)
    opened: list[str] = []
    times: dict[str, dict[str, list[int]]] = {name: {test.label: [] for test in TESTS} for name in paths}
    try:
        for name, path in paths.items():
            bench.open_file(path, settings, name, size_bytes=weights_bytes(layout))
            opened.append(name)
        lanes = [(name, test) for test in TESTS for name in paths]
        for name, test in lanes * 2:
            bench.run(name, test, tokens=test.tokens, deadline_s=300.0)
        watch = Watch(bench.pids, threads=settings.threads)
        for number in range(rounds):
            # Each round starts with another lane, so that no variant always follows the same one.
            turned = lanes[number % len(lanes) :] + lanes[: number % len(lanes)]
            for name, test in turned if number % 2 == 0 else reversed(turned):
                run = bench.run(name, test, tokens=test.tokens, deadline_s=300.0)
                times[name][test.label].extend(run.samples_ns)
        disturbed = list(watch.finish().disturbed)
    finally:
        bench.close(opened)
        for path in paths.values():
            path.unlink(missing_ok=True)
    return {"times_ns": times, "disturbed": disturbed}


def compared(record: Mapping[str, Any]) -> list[dict[str, Any]]:
    """For each test and variant: its speed over that of the reference beside it, and whether the two differ.

    The ratio is the median over rounds: both were timed within a second, while the machine was what it was.
    """
    times = record["times_ns"]
    found = []
    for test in TESTS:
        reference = times[REFERENCE][test.label]
        for name in times:
            if name != REFERENCE:
                own = times[name][test.label]
                told = compare_runs(reference, own)
                found.append(
                    {
                        "model": record["model"],
                        "test": test.label,
                        "variant": name,
                        "ratio": median(ours / theirs for ours, theirs in zip(reference, own, strict=True)),
                        "differs": told.claimed,
                    }
                )
    return found


def verdict(found: Sequence[Mapping[str, Any]]) -> tuple[bool, dict[str, float]]:
    """Whether the claim holds, and the median and the largest change of each variant."""
    told: dict[str, float] = {}
    for name in dict.fromkeys(row["variant"] for row in found):
        changes = [abs(row["ratio"] - 1) for row in found if row["variant"] == name]
        told[f"{name} median"], told[f"{name} largest"] = median(changes), max(changes)
    noisy = {(row["model"], row["test"]): abs(row["ratio"] - 1) for row in found if row["variant"] == "other"}
    far = [
        row
        for row in found
        if row["variant"] == "phantom" and abs(row["ratio"] - 1) > MOST_ANYWHERE >= noisy[row["model"], row["test"]]
    ]
    return told["phantom median"] <= MOST_IN_THE_MEDIAN and not far, told


def main() -> int:
    """Time all variants of all models, print the ratios, and say whether the claim holds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--models", type=int, default=len(MODELS), help="only the first so many")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--output", type=Path, default=Path("bench/results/phantom_fidelity.json"))
    asked = parser.parse_args()
    settings = Settings(context_tokens=1024, threads=asked.threads, threads_batch=asked.threads, openmp_wait="default")
    records: list[dict[str, Any]] = _earlier(asked.output, asked.rounds, asked.threads)
    begin = time.monotonic()
    with measurement_lock(wait_s=60.0), Bench(lambda env: EngineChild(env=env)) as bench:
        for name, layers, kind in MODELS[: asked.models]:
            label = f"{name} {kind}, {layers} layers"
            if any(record["model"] == label and not record["disturbed"] for record in records):
                continue
            records = [record for record in records if record["model"] != label]
            with tempfile.TemporaryDirectory() as folder:
                record = timed(bench, small_model(name, layers, kind), settings, asked.rounds, Path(folder))
            records.append({"model": label, **record})
            _write(asked.output, asked.rounds, asked.threads, records)
            for row in compared(records[-1]):
                mark = " differs" if row["differs"] else ""
                print(f"{label:34s} {row['test']:12s} {row['variant']:9s} {row['ratio']:.3f}{mark}", flush=True)
            for why in records[-1]["disturbed"]:
                print(f"{label:34s} disturbed: {why}", flush=True)
    good, told = verdict([row for record in records for row in compared(record)])
    for key, value in told.items():
        print(f"{key:20s} {value:.1%}")
    quiet = not any(record["disturbed"] for record in records)
    word = "disturbed" if not quiet else "holds" if good else "DOES NOT HOLD"
    print(f"{word} ({time.monotonic() - begin:.0f} s)")
    return 0 if good and quiet else 1


def _earlier(path: Path, rounds: int, threads: int) -> list[dict[str, Any]]:
    """The models of a run that was cut off, if it asked the same."""
    try:
        kept = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return []
    same = (kept["rounds"], kept["threads"]) == (rounds, threads)
    records: list[dict[str, Any]] = kept["records"] if same else []
    return records


def _write(path: Path, rounds: int, threads: int, records: Sequence[Mapping[str, Any]]) -> None:
    found = machine.detect(models_dir=Path.home())
    table = [row for record in records for row in compared(record)]
    document = {
        "program": "bench/phantom_fidelity.py",
        "taken_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": machine_key(found),
        "processor": found.cpu.model,
        "rounds": rounds,
        "threads": threads,
        "summary": verdict(table)[1],
        "rows": table,
        "records": records,
    }
    atomic_write(path, json.dumps(document, indent=1).encode() + b"\n")


if __name__ == "__main__":
    sys.exit(main())
