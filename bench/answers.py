"""How long the planner takes to answer, and what it takes meanwhile: whole processes, interleaved, medians.

Claims: ``planner --help`` adds at most 150 ms to a bare interpreter; an estimate of DeepSeek-R1 at its full context
answers within 2 s, under 200 MB of memory and 1 MB of disk, with nothing cached; ``plan --no-measure`` over the whole
catalogue, families of all vendors, answers within 1 s from warm caches and 10 s from cold ones under 300 MB over all
processes, for this machine and for every shipped one (of those the slowest counts).

    python bench/answers.py [--repetitions 5] [--output bench/results/answers.json]
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import NamedTuple

import psutil  # type: ignore[import-untyped, unused-ignore]

from planner import machine

MB = 1_000_000
PLANNER = [sys.executable, "-m", "planner"]
PLAN = ["plan", "--no-measure", "--family", "all", "--json"]
R1 = ["estimate", "deepseek-r1", "--quant", "Q4_K_M", "--context", "163840", "--machine", "epyc-768gb"]


class Run(NamedTuple):
    """One process with its children: seconds, peak bytes of memory together, bytes of disk in the cache after."""

    seconds: float
    memory_bytes: int
    disk_bytes: int


def run(argv: list[str], cache: Path, *, watch: bool = False) -> Run:
    """Run to the end; with ``watch`` the memory of the whole tree is sampled every 10 ms (and costs a little time)."""
    environment = {**os.environ, "PLANNER_CACHE_DIR": str(cache)}
    # Whoever installs a program has its bytecode; a shell that forbids to write it would compile anew each time.
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    begin = time.perf_counter()
    with subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment) as process:
        peak = 0
        while watch and process.poll() is None:
            peak = max(peak, _tree_bytes(process.pid))
            time.sleep(0.01)
        process.wait()
    seconds = time.perf_counter() - begin
    if process.returncode not in {0, 10}:
        raise SystemExit(f"{' '.join(argv)} ended with {process.returncode}")
    return Run(seconds, peak, sum(path.lstat().st_blocks * 512 for path in cache.rglob("*")))


def _tree_bytes(pid: int) -> int:
    total = 0
    try:
        parent = psutil.Process(pid)
        for process in (parent, *parent.children(recursive=True)):
            total += process.memory_info().rss
    except psutil.Error:
        return total  # it ended while it was looked at
    return total


def _cold_and_warm(cache: Path, words: list[str]) -> tuple[Run, Run]:
    cache.mkdir(parents=True)
    return run([*PLANNER, *words], cache, watch=True), run([*PLANNER, *words], cache)


def main() -> int:
    """Measure every claim, print a line each, keep the samples; 1 when one does not hold."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    samples: dict[str, list[Run]] = {}
    with tempfile.TemporaryDirectory() as folder:
        warm = Path(folder) / "warm"
        run([*PLANNER, *PLAN], warm)  # fills the cache, and the system's own
        for number in range(options.repetitions):
            cold = Path(folder) / f"cold-{number}"
            for label, argv, cache in (
                ("bare interpreter", [sys.executable, "-c", "pass"], warm),
                ("planner --help", [*PLANNER, "--help"], warm),
                ("plan --no-measure, warm", [*PLANNER, *PLAN], warm),
                ("plan --no-measure, cold", [*PLANNER, *PLAN], cold / "plan"),
                ("estimate deepseek-r1, cold", [*PLANNER, *R1], cold / "estimate"),
            ):
                cache.mkdir(parents=True, exist_ok=True)
                samples.setdefault(label, []).append(run(argv, cache))
        watched = Path(folder) / "watched"
        watched.mkdir()
        samples["estimate deepseek-r1, memory"] = [run([*PLANNER, *R1], watched, watch=True)]
        every = {
            f"{name} {use}": _cold_and_warm(Path(folder) / name / use, [*PLAN, "--machine", name, "--for", use])
            for name in machine.names()
            for use in ("chat", "code")
        }
    seconds = {label: median(each.seconds for each in runs) for label, runs in samples.items()}
    added = [b.seconds - a.seconds for a, b in zip(samples["bare interpreter"], samples["planner --help"], strict=True)]
    (estimate,) = samples["estimate deepseek-r1, memory"]
    claims = {
        "--help adds to a bare interpreter, s": (median(added), 0.150),
        "plan --no-measure, warm, s": (seconds["plan --no-measure, warm"], 1.0),
        "plan --no-measure, cold, s": (seconds["plan --no-measure, cold"], 10.0),
        "the same for the slowest shipped machine, warm, s": (max(warm.seconds for _, warm in every.values()), 1.0),
        "the same for the slowest shipped machine, cold, s": (max(cold.seconds for cold, _ in every.values()), 10.0),
        "the same, memory of all processes, MB": (max(cold.memory_bytes for cold, _ in every.values()) / MB, 300.0),
        "estimate deepseek-r1, cold, s": (seconds["estimate deepseek-r1, cold"], 2.0),
        "estimate deepseek-r1, memory of all processes, MB": (estimate.memory_bytes / MB, 200.0),
        "estimate deepseek-r1, disk after, MB": (estimate.disk_bytes / MB, 1.0),
    }
    for label, (value, limit) in claims.items():
        print(f"{'ok ' if value <= limit else 'NOT'} {label:52} {value:8.3f}   limit {limit:g}")
    held = all(value <= limit for value, limit in claims.values())
    if options.output:
        result = {
            "date": datetime.now(UTC).date().isoformat(),
            "machine": f"{platform.machine()}, {os.cpu_count()} logical CPUs",
            "load_1min": os.getloadavg()[0],
            "held": held,
            "claims": {label: {"value": value, "limit": limit} for label, (value, limit) in claims.items()},
            "machines": {
                label: {
                    "cold_s": round(cold.seconds, 2),
                    "warm_s": round(again.seconds, 2),
                    "mb": cold.memory_bytes // MB,
                }
                for label, (cold, again) in every.items()
            },
            "seconds": {label: [round(each.seconds, 4) for each in runs] for label, runs in samples.items()},
        }
        options.output.write_text(json.dumps(result, indent=1) + "\n")
    return 0 if held else 1


if __name__ == "__main__":
    sys.exit(main())
