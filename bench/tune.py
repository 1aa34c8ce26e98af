"""Shows that the racing search finds in little time what an exhaustive search finds in much.

On each of three phantoms with real-size layers, over the same space of setups and with the same runs:

- the *grid* times every setup five times,
- the *race* (``planner tune``'s search) gets 15 % of the grid's time,
- *TPE*, Optuna's estimator, gets as much as the race (left out, and told so, where Optuna is not installed),
- the three winners, llama.cpp's defaults and those of ``llama_cpp.Llama()`` are then timed in interleaved rounds.

Refuted where the race's winner is below 97 % of the speed of the grid's (typical answer of a chat) on any phantom,
below 97 % of TPE's in the median, below 97 % of the defaults' on any, or where the median decode speed is less than 1.5
times that of ``Llama()``'s defaults, whose threads an object of that class tells.

    python bench/tune.py [--output bench/results/tune.json]

About 12 minutes on two quiet cores. Phantoms that an earlier run finished undisturbed are not timed again.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any

from small_models import small_model
from tune_search import Searched, Space, as_plain, compared, grid, llama_class, options, tpe

from planner import machine
from planner.engine.phantom import write_phantom
from planner.files import atomic_write
from planner.machine.identity import machine_key
from planner.machine.places import places
from planner.measure.conditions import Watch
from planner.measure.lock import measurement_lock
from planner.measure.racing import Workload, search
from planner.measure.racing_bench import BenchTrack, Lengths, bench_of
from planner.measure.racing_space import Ground, setting_changes
from planner.types.model import Layout
from planner.types.settings import Settings
from planner.types.tuning import Setup

PHANTOMS = (("qwen3-0.6b", 10, "Q8_0"), ("qwen3-1.7b", 6, "Q4_K"), ("qwen3.5-0.8b", 8, "Q4_0"))
WORK = Workload(prompt_tokens=300, answer_tokens=400)
GRID_SHARE = 0.15
REACHED, OF_TPE, OF_DEFAULTS, OF_LLAMA = 0.97, 0.97, 0.97, 1.5
_TELL = """
import json, sys, llama_cpp
llm = llama_cpp.Llama(sys.argv[1], verbose=False)
p = llm.context_params
print(json.dumps({"threads": llm.n_threads, "threads_batch": llm.n_threads_batch, "batch": llm.n_batch,
    "ubatch": p.n_ubatch, "flash_attention": p.flash_attn_type, "swa_full": bool(p.swa_full)}))
"""


def told_by_llama(layout: Layout, folder: Path) -> dict[str, Any]:
    """What ``llama_cpp.Llama()`` takes by itself here."""
    path = folder / "told.gguf"
    write_phantom(path, layout)
    done = subprocess.run([sys.executable, "-c", _TELL, path], capture_output=True, check=True, text=True, timeout=120)
    path.unlink()
    told: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return told


def here() -> tuple[Ground, Setup]:
    """What decides the space on this machine, and llama-server's own defaults."""
    cpu, found = machine.detect(models_dir=Path.home()).cpu, places()
    threads = cpu.physical_cores or cpu.logical_cpus
    ground = Ground(cpu.usable_threads, threads, huge_pages=found.huge_pages_on_request, prompt_tokens=64)
    return ground, Setup(
        settings=Settings(context_tokens=512, threads=threads, threads_batch=threads, openmp_wait="default")
    )


def lengths_for(layout: Layout, default: Setup, folder: Path) -> Lengths:
    """Runs of about a tenth of a second each."""
    with track_for(layout, Lengths(), folder) as track:
        track.enter((default,))
        generate_s, prompt_s = track.time_s(default, "generate"), track.time_s(default, "prompt")
    return Lengths(max(2, min(32, round(0.08 / generate_s))), max(16, min(128, round(0.12 / prompt_s / 16) * 16)))


def track_for(layout: Layout, lengths: Lengths, folder: Path) -> BenchTrack:
    """A fresh track: nobody inherits another's loaded models."""
    return BenchTrack(lambda setup: bench_of(setup, None, folder=folder), layout, lengths=lengths)


def phantom_record(name: str, layers: int, kind: str, folder: Path) -> dict[str, Any]:
    """All searches on one phantom, and their winners beside each other."""
    layout = small_model(name, layers, kind)
    ground, default = here()
    space = options(ground, default)
    lengths = lengths_for(layout, default, folder)
    watch = Watch(threads=ground.usable_threads)
    label = f"{name} {kind}, {layers} layers"
    with track_for(layout, lengths, folder) as track:
        every = grid(track, default, space, WORK, lambda stage: print(f"{label:28s} {stage}", end="\r", flush=True))
    budget_s = GRID_SHARE * every.seconds
    raced = race(layout, default, ground, lengths, folder, budget_s)
    sampled = sample(layout, default, space, lengths, folder, raced.seconds)
    ends = {"grid": every.best, "race": raced.best, "defaults": default}
    ends["Llama()"] = llama_class(default, told_by_llama(layout, folder))
    if sampled is not None:
        ends["TPE"] = sampled.best
    with track_for(layout, lengths, folder) as track:
        speeds = compared(track, ends, WORK)
        track.leave()
        conditions = track.conditions
    # The children of each search ended within the watch and were waited for, so their time counts as ours.
    disturbed = tuple(dict.fromkeys((*watch.finish().disturbed, *conditions.disturbed)))
    searches = {"grid": every, "race": raced, **({"TPE": sampled} if sampled is not None else {})}
    return {
        "phantom": label,
        "lengths": lengths._asdict(),
        "searches": {
            key: {"seconds": each.seconds, "points": each.points, "best": as_plain(each.best)}
            for key, each in searches.items()
        },
        "speeds": speeds,
        "disturbed": list(disturbed),
    }


def race(layout: Layout, default: Setup, ground: Ground, lengths: Lengths, folder: Path, budget_s: float) -> Searched:
    """The race over the same space, in ``budget_s`` all in all."""
    begin = time.monotonic()
    changes = [each for each in setting_changes(ground) if each.factor != "ubatch"]
    with track_for(layout, lengths, folder) as track:
        found = search(track, default, changes, WORK, budget_s=budget_s)
    return Searched(found.winner, time.monotonic() - begin, len(found.races) + 1)


def sample(
    layout: Layout, default: Setup, space: Space, lengths: Lengths, folder: Path, budget_s: float
) -> Searched | None:
    """TPE for as long as the race took; ``None`` where Optuna is not installed."""
    try:
        with track_for(layout, lengths, folder) as track:
            return tpe(track, default, space, WORK, budget_s=budget_s, seed=1)
    except ImportError:
        print("Optuna is not installed (pip install 'llama-planner[bench]'): TPE is left out")
        return None


def verdict(records: Sequence[Mapping[str, Any]]) -> tuple[bool, dict[str, float]]:
    """Whether the claims hold, and the numbers they are about."""
    won = [record["speeds"]["race"]["times_as_fast_as"] for record in records]
    told = {
        "of the grid's best, least": min(each["grid"]["answer"] for each in won),
        "of the grid's time, most": max(
            record["searches"]["race"]["seconds"] / record["searches"]["grid"]["seconds"] for record in records
        ),
        "of the defaults, least": min(each["defaults"]["answer"] for each in won),
        "of Llama()'s decode, median": median(each["Llama()"]["generate"] for each in won),
    }
    sampled = [each["TPE"]["answer"] for each in won if "TPE" in each]
    good = told["of the grid's best, least"] >= REACHED and told["of the defaults, least"] >= OF_DEFAULTS
    # The last pair of a race may be under way when its time is up.
    good = good and told["of the grid's time, most"] <= GRID_SHARE * 1.1
    good = good and told["of Llama()'s decode, median"] >= OF_LLAMA
    if sampled:
        told["of TPE's best, median"] = median(sampled)
        good = good and told["of TPE's best, median"] >= OF_TPE
    return good, told


def main() -> int:
    """Search on all phantoms, print the ratios, and say whether the claims hold."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--phantoms", type=int, default=len(PHANTOMS), help="only the first so many")
    parser.add_argument("--output", type=Path, default=Path("bench/results/tune.json"))
    asked = parser.parse_args()
    os.environ.pop("OMP_WAIT_POLICY", None)  # the defaults are those of a shell without it
    records = _earlier(asked.output)
    with measurement_lock(wait_s=60.0), tempfile.TemporaryDirectory() as folder:
        for name, layers, kind in PHANTOMS[: asked.phantoms]:
            label = f"{name} {kind}, {layers} layers"
            if any(record["phantom"] == label and not record["disturbed"] for record in records):
                continue
            records = [record for record in records if record["phantom"] != label]
            records.append(phantom_record(name, layers, kind, Path(folder)))
            _write(asked.output, records)
            _print(records[-1])
    good, told = verdict(records)
    for key, value in told.items():
        print(f"{key:30s} {value:.3f}")
    quiet = not any(record["disturbed"] for record in records)
    print("disturbed" if not quiet else "holds" if good else "DOES NOT HOLD")
    return 0 if good and quiet else 1


def _print(record: Mapping[str, Any]) -> None:
    for key, each in record["searches"].items():
        ratios = record["speeds"][key]["times_as_fast_as"]
        print(
            f"{record['phantom']:28s} {key:5s} {each['seconds']:6.0f} s {each['points']:4d} points, answer "
            f"{ratios['grid']['answer']:.3f} of the grid's, {ratios['defaults']['answer']:.2f} × the defaults', decode "
            f"{ratios['Llama()']['generate']:.2f} × Llama()'s"
        )
    for why in record["disturbed"]:
        print(f"{record['phantom']:28s} disturbed: {why}")


def _earlier(path: Path) -> list[dict[str, Any]]:
    """The phantoms of a run that was cut off."""
    try:
        records: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))["records"]
    except FileNotFoundError:
        return []
    return records


def _write(path: Path, records: Sequence[Mapping[str, Any]]) -> None:
    found = machine.detect(models_dir=Path.home())
    document = {
        "program": "bench/tune.py",
        "taken_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": machine_key(found),
        "processor": found.cpu.model,
        "threads": found.cpu.usable_threads,
        "request": WORK._asdict(),
        "summary": verdict(records)[1],
        "records": records,
    }
    atomic_write(path, (json.dumps(document, indent=1) + "\n").encode())


if __name__ == "__main__":
    sys.exit(main())
