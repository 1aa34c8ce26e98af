"""How fast the fast model of memory is, and how far from the engine: 50,000 estimates, and errors over random settings.

Builds the model of a few shapes on phantom cards, sketches settings drawn at random (context, micro-batch, cache type,
layers and experts per device, split), times 50,000 of them on one core, and compares a sample with the
engine's own answers, device by device.

    python bench/model_speed.py [--estimates 50000] [--sample 40] [--seed 1] [--output bench/results/model_speed.json]
"""

import argparse
import json
import random
import resource
import statistics
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec

from planner import catalogue
from planner.engine.child import EngineChild
from planner.engine.devices import PhantomDevice
from planner.engine.oracle import Oracle
from planner.estimate.model_source import memory_model
from planner.types.settings import Settings

GIB, MIB = 1 << 30, 1 << 20
SHAPES = (
    ("qwen3-8b", "Q4_K_M", (24, 12)),
    ("qwen3-30b-a3b", "Q4_K_M", (24,)),
    ("qwen3.5-4b", "Q4_0", (16,)),
    ("deepseek-v2-lite", "Q8_0", (8,)),
)
LIMIT_S, LIMIT_MIB = 5.0, 300.0
LONGEST_CONTEXT = 1 << 17


def drawn(rng: random.Random, layers: int, cards: int) -> Settings:
    """Settings as a search for a split meets them: a few dozen classes a shape, thousands of splits."""
    cache = rng.choice(("f16", "f16", "q8_0"))
    return Settings(
        context_tokens=int(2 ** rng.uniform(9, 16.9)),
        ubatch=rng.choice((256, 512)),
        cache_type_k=cache,
        cache_type_v=cache,
        gpu_layers=rng.choice((-1, -1, rng.randint(1, layers))),
        cpu_moe_layers=rng.choice((0, 0, rng.randint(0, layers))),
        tensor_split=rng.choice(((), tuple(float(rng.randint(1, 9)) for _ in range(cards)))) if cards > 1 else (),
        load_mode="none",
    )


class Shape:
    """One model × quantization on cards that are not here."""

    def __init__(self, oracle: Oracle, name: str, quantization: str, cards: Sequence[int]) -> None:
        known = catalogue.load()
        model = known.model(name)
        self.label = f"{name} {quantization} on {len(cards)} cards"
        self.oracle, self.key, self.cards = oracle, known.shape_key(model), len(cards)
        self.quantization, self._layout = known.quantization(quantization), known.layout(model)
        self.layers = len(self._layout.layers)
        started = time.perf_counter()
        self.model = memory_model(
            oracle,
            self.key,
            lambda: self._layout,
            self.quantization,
            layers=self.layers,
            devices=[f"CUDA{index}" for index in range(len(cards))],
            free_bytes=[gib * GIB for gib in cards],
            longest_context=LONGEST_CONTEXT,
        )
        self.build_s = time.perf_counter() - started

    def errors(self, settings: Settings) -> list[dict[str, float]]:
        """Relative errors per device against the engine; small parts are judged against 64 MiB."""
        sketch = self.model.sketch(settings)
        weights = self.oracle.weights(self.key, lambda: self._layout, self.quantization, settings)
        (buffers,) = self.oracle.buffers(self.key, lambda: self._layout, [settings], self.quantization)
        if sketch is None or buffers.refused is not None:
            return []
        found = []
        for index, device in enumerate(sketch.gpus):
            mine = [each for each in buffers.buffers if each.name == f"CUDA{index}"]
            held = weights.buffers.get(f"CUDA{index}", 0)
            cache, compute = sum(e.context_bytes for e in mine), sum(e.compute_bytes for e in mine)
            if held + cache + compute:
                found.append(
                    {
                        "weights": _relative(device.weights, held),
                        "cache": _relative(device.cache, cache),
                        "compute": _relative(device.compute, compute),
                        "compute_bound": _relative(device.compute_bound, compute),
                        "total": _relative(device.total, held + cache + compute),
                    }
                )
        return found


def _relative(told: int, truth: int) -> float:
    return (told - truth) / max(truth, 64 * MIB)


def summary(errors: list[dict[str, float]]) -> dict[str, dict[str, float]]:
    """Median, 90th percentile and worst absolute error of each part, and the furthest below the truth."""
    rows = {}
    for part in ("weights", "cache", "compute", "compute_bound", "total"):
        signed = [each[part] for each in errors]
        sizes = sorted(map(abs, signed))
        rows[part] = {
            "median": statistics.median(sizes),
            "p90": sizes[int(0.9 * (len(sizes) - 1))],
            "worst": sizes[-1],
            "furthest_below": min(signed),
        }
    return rows


def main() -> int:
    """Time and compare; 1 when slower than asked, or when a bound lies below the truth."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--estimates", type=int, default=50_000)
    parser.add_argument("--sample", type=int, default=40, help="settings per shape that the engine is asked about, too")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    rng = random.Random(options.seed)  # noqa: S311 - a sample that can be repeated
    shapes, builds, errors, elapsed_s, warming_s = [], {}, [], 0.0, 0.0
    with EngineChild() as child:
        for name, quantization, cards in SHAPES:
            devices = [
                PhantomDevice(backend="cuda", free_bytes=g * GIB, total_bytes=g * GIB, compute_capability="8.6")
                for g in cards
            ]
            with Oracle(child, devices=devices) as oracle:
                shape = Shape(oracle, name, quantization, cards)
                wanted = [drawn(rng, shape.layers, shape.cards) for _ in range(options.estimates // len(SHAPES))]
                started = time.perf_counter()
                for settings in wanted:
                    shape.model.sketch(settings)  # the first of a class asks the engine
                warming_s += time.perf_counter() - started
                started = time.perf_counter()
                for settings in wanted:
                    shape.model.sketch(settings)
                elapsed_s += time.perf_counter() - started
                errors += [each for settings in wanted[: options.sample] for each in shape.errors(settings)]
                shapes.append(shape)
                builds[shape.label] = {"build_s": shape.build_s, "questions": shape.model.questions}
    count = options.estimates // len(SHAPES) * len(SHAPES)
    memory_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    row: dict[str, Any] = {
        "date": datetime.now(UTC).date().isoformat(),
        "seed": options.seed,
        "estimates": count,
        "seconds": elapsed_s,
        "first_pass_seconds": warming_s,
        "microseconds_each": 1e6 * elapsed_s / count,
        "memory_mib": memory_mib,
        "shapes": builds,
        "devices_compared": len(errors),
        "errors": summary(errors),
    }
    row["held"] = (
        elapsed_s * 50_000 / count <= LIMIT_S
        and memory_mib <= LIMIT_MIB
        and row["errors"]["compute_bound"]["furthest_below"] >= 0
    )
    print(json.dumps(row, indent=1))
    print("claims held" if row["held"] else "claims NOT held")
    if options.output:
        options.output.write_bytes(msgspec.json.format(msgspec.json.encode(row), indent=1) + b"\n")
    return 0 if row["held"] else 1


if __name__ == "__main__":
    sys.exit(main())
