"""How many exact estimates a second one child answers, and in how much memory.

The claim: 1,000 exact estimates in 30 s on 2 cores with one child, both processes under 300 MB together. An estimate
is what ``planner estimate`` asks for one candidate: where the weights go, and the buffers for a whole batch of outputs
and for one output per sequence. Nothing is kept from an earlier run.

The candidates: 40 models of the catalogue, from the smallest to the largest, each in 5 quantizations with 5 settings
drawn from context, sequences, cache types, flash attention and micro-batch.

    python bench/answering.py [--models N] [--output FILE.json]

``child_cpu_s`` and ``parent_cpu_s`` are processor time; where something else runs, they are nearer to the truth than
``wall_s`` is.
"""

import argparse
import json
import os
import random
import tempfile
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import msgspec
import psutil

from planner import catalogue
from planner.engine.child import EngineChild
from planner.engine.oracle import Oracle
from planner.types.model import Quantization
from planner.types.settings import CACHE_TYPES, Settings

SEED = 20261122
QUANTIZATIONS = ("Q4_K_M", "Q8_0", "Q5_K_M", "IQ4_XS", "Q4_0")
QUANTIZED = tuple(each for each in CACHE_TYPES if each[0] in "qi")


def drawn(rng: random.Random) -> Settings:
    """Settings that the engine accepts: a quantized V cache wants flash attention."""
    cache_v = rng.choice(("f16", "f16", "q8_0", "q4_0", "bf16"))
    flash = "on" if cache_v in QUANTIZED else rng.choice(("auto", "auto", "on", "off"))
    parallel = rng.choice((1, 1, 2, 4))
    return Settings(
        context_tokens=rng.choice((2048, 4096, 8192, 16384, 32768)) * parallel,
        parallel=parallel,
        kv_unified=rng.random() < 0.3,
        cache_type_k=rng.choice(("f16", "q8_0", "q4_0")) if flash == "on" else "f16",
        cache_type_v=cache_v,
        flash_attention=flash,
        ubatch=rng.choice((128, 256, 512, 512, 1024)),
        threads=2,
        threads_batch=2,
    )


def candidates(known: catalogue.Catalogue, count: int) -> list[tuple[str, Quantization, Settings]]:
    """Models spread over the catalogue by size, each with every quantization and five settings."""
    rng = random.Random(SEED)  # noqa: S311 - a sample, not a secret
    by_size = sorted(known.models.values(), key=lambda model: model.parameters)
    step = len(by_size) / count
    names = [by_size[int(place * step)].id for place in range(count)]
    return [
        (name, known.quantization(quantization), drawn(rng))
        for name in names
        for quantization in QUANTIZATIONS
        for _ in range(5)
    ]


def cpu_s(process: psutil.Process) -> float:
    """Processor time of one process."""
    times = process.cpu_times()
    return float(times.user + times.system)


def measured(wanted: Sequence[tuple[str, Quantization, Settings]], known: catalogue.Catalogue) -> dict[str, object]:
    """Ask all of them once; seconds, bytes, and how many were refused."""
    devices = ()
    refused = peak = 0
    with tempfile.TemporaryDirectory() as folder, EngineChild() as child:
        oracle = Oracle(child, folder=Path(folder), devices=devices)
        oracle.system()
        parent, worker = psutil.Process(), psutil.Process(child.pid)
        before, started = (cpu_s(parent), cpu_s(worker)), time.perf_counter()
        for name, quantization, settings in wanted:
            model = known.model(name)
            key, source = known.shape_key(model), partial(known.layout, model)
            oracle.weights(key, source, quantization, settings)
            lean = msgspec.structs.replace(settings, outputs_max=settings.parallel)
            refused += any(each.refused for each in oracle.buffers(key, source, [settings, lean], quantization))
            peak = max(peak, parent.memory_info().rss + worker.memory_info().rss)
        wall = time.perf_counter() - started
        return {
            "estimates": len(wanted),
            "refused": refused,
            "wall_s": round(wall, 2),
            "per_s": round(len(wanted) / wall, 1),
            "child_cpu_s": round(cpu_s(worker) - before[1], 2),
            "parent_cpu_s": round(cpu_s(parent) - before[0], 2),
            "peak_rss_bytes": peak,
            "child_rss_bytes": worker.memory_info().rss,
            "engine_build": oracle.system().build,
            "processors": os.cpu_count(),
        }


def main() -> None:
    """Measure and print; keep the result where asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", type=int, default=40)
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    known = catalogue.load()
    result = measured(candidates(known, options.models), known)
    text = json.dumps(result, indent=1)
    print(text)
    if options.output is not None:
        options.output.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
