"""Memory, predicted against real: every buffer of full phantoms that the engine really loads, and the resident peak.

For each configuration the estimate is made first, then :mod:`real_load` loads the same phantom in a process of its
own and runs one full micro-batch and 32 tokens. Claims held: every buffer within 0.1 % (or the 0.005 MiB to which the
engine's log is rounded), none missing; resident within 3 %, never more than 1 % below the truth.

    python bench/memory.py [--only SUBSTRING] [--output bench/results/memory.json]
"""

import argparse
import json
import platform
import subprocess
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import msgspec

from planner import catalogue
from planner.engine.answers import Buffers, Weights
from planner.engine.child import EngineChild
from planner.engine.oracle import Oracle
from planner.engine.phantom import write_phantom
from planner.estimate.memory import host_memory
from planner.types.model import Layout
from planner.types.plan import DeviceMemory
from planner.types.settings import Settings

MIB = 1 << 20
REFEREE = Path(__file__).with_name("real_load.py")


class Case(NamedTuple):
    """One configuration: model, quantization and what differs from the default settings."""

    model: str
    quantization: str
    changes: dict[str, object]

    @property
    def label(self) -> str:
        """Model, quantization and changes in one line."""
        return f"{self.model} {self.quantization} " + " ".join(f"{k}={v}" for k, v in self.changes.items())


def cases() -> list[Case]:
    """The grid of the four Qwen3, and twenty more over five architectures and the settings that change memory."""
    grid = [
        Case(f"qwen3-{size}", quantization, {"context_tokens": context})
        for size in ("0.6b", "1.7b", "4b", "8b")
        for quantization in ("Q4_K_M", "Q8_0")
        for context in (4096, 8192, 32768)
    ]
    more = [
        Case("qwen2.5-0.5b", "Q4_0", {"context_tokens": 4096}),
        Case("qwen2.5-0.5b", "Q5_K_M", {"context_tokens": 32768, "parallel": 4}),
        Case("qwen2.5-1.5b", "Q4_K_M", {"context_tokens": 16384, "load_mode": "none"}),
        Case("qwen2.5-3b", "IQ4_XS", {"context_tokens": 8192, "cache_type_k": "q8_0", "cache_type_v": "q8_0"}),
        Case("qwen2.5-7b", "Q3_K_M", {"context_tokens": 8192, "load_mode": "none", "ubatch": 256}),
        Case("qwen2.5-coder-7b", "Q4_K_S", {"context_tokens": 4096, "repack": False}),
        Case("qwen3-0.6b", "F16", {"context_tokens": 4096, "ubatch": 1024}),
        Case("qwen3-0.6b", "Q6_K", {"context_tokens": 8192, "flash_attention": "off"}),
        Case("qwen3-0.6b", "IQ2_XXS", {"context_tokens": 4096, "load_mode": "none"}),
        Case("qwen3-1.7b", "Q4_K_M", {"context_tokens": 8192, "parallel": 2, "kv_unified": True}),
        Case("qwen3-1.7b", "Q4_K_M", {"context_tokens": 8192, "outputs_max": 1}),
        Case("qwen3-4b", "Q2_K", {"context_tokens": 16384, "cache_type_k": "q4_0", "cache_type_v": "q4_0"}),
        Case("qwen3-8b", "Q4_K_M", {"context_tokens": 16384, "load_mode": "none"}),
        Case("deepseek-r1-distill-llama-8b", "Q4_K_M", {"context_tokens": 8192}),
        Case("deepseek-r1-distill-llama-8b", "Q5_K_S", {"context_tokens": 4096, "load_mode": "none"}),
        Case("deepseek-v2-lite", "Q4_K_M", {"context_tokens": 8192, "load_mode": "none"}),
        Case("deepseek-v2-lite", "Q3_K_S", {"context_tokens": 32768, "parallel": 2}),
        Case("qwen3-30b-a3b", "IQ2_XXS", {"context_tokens": 4096, "load_mode": "none"}),
        Case("qwen3-30b-a3b", "Q2_K", {"context_tokens": 16384, "load_mode": "none"}),
    ]
    return grid + more


def expected_buffers(settings: Settings, weights: Weights, full: Buffers) -> dict[str, float]:
    """The engine's buffer lines, in MiB, as the estimate predicts them."""
    lines = {"CPU output": full.output_bytes / MIB}
    for name, size in weights.buffers.items():
        mapped = name == "CPU" and settings.load_mode.startswith("mmap")
        lines["CPU_Mapped model" if mapped else f"{name} model"] = (weights.mapped[name] if mapped else size) / MIB
    for buffer in full.buffers:
        if buffer.context_bytes:
            lines[f"{buffer.name} KV"] = buffer.context_bytes / MIB
        if buffer.compute_bytes:
            lines[f"{buffer.name} compute"] = buffer.compute_bytes / MIB
    return lines


def run_case(case: Case, catalogued: catalogue.Catalogue, oracle: Oracle, folder: Path) -> dict[str, object]:
    """Estimate, load for real, compare."""
    model, quantization = catalogued.model(case.model), catalogued.quantization(case.quantization)
    settings = msgspec.convert({"threads": 2, "threads_batch": 2, **case.changes}, Settings)
    # The referee fills one micro-batch and 32 tokens; the engine pads the cells that it looks at to 256.
    depth = min(settings.context_tokens // settings.parallel, -(-(settings.ubatch + 32) // 256) * 256)
    lean = msgspec.structs.replace(settings, outputs_max=settings.parallel, context_tokens=depth * settings.parallel)
    key = catalogued.shape_key(model)

    def source() -> Layout:
        return catalogued.layout(model)

    weights = oracle.weights(key, source, quantization, settings)
    full, small = oracle.buffers(key, source, [settings, lean], quantization)
    process_bytes = oracle.system().process_bytes or 0
    estimate = host_memory(settings, weights, full, small, process_bytes=process_bytes, available_bytes=None)
    path = folder / "phantom.gguf"
    # Random routers: a router of zeros sends every token to the same experts.
    write_phantom(
        path, oracle.typed_layout(key, source, quantization), random_seed=1, random_only=("ffn_gate_inp.weight",)
    )
    request = json.dumps({"path": str(path), "settings": msgspec.to_builtins(settings)})
    done = subprocess.run([sys.executable, str(REFEREE)], input=request, capture_output=True, text=True, check=False)
    path.unlink()
    if done.returncode:
        raise SystemExit(f"{case.label}: the referee failed: {done.stderr[-500:]}")
    return compare(case, estimate, expected_buffers(settings, weights, full), json.loads(done.stdout))


def compare(
    case: Case, estimate: DeviceMemory, expected: dict[str, float], real: dict[str, object]
) -> dict[str, object]:
    """One row of the table: the worst buffer and the resident error, in per cent."""
    actual = msgspec.convert(real["buffers_mib"], dict[str, float])
    errors = {
        name: max(0.0, abs(expected.get(name, 0.0) - actual.get(name, 0.0)) - 0.0051) / max(actual.get(name, 0.0), 1e-9)
        for name in expected.keys() | actual.keys()
    }
    worst = max(errors, key=lambda name: errors[name])
    truth = max(int(str(real["after"])), int(str(real["peak"])))
    predicted = estimate.resident_bytes or 0
    return {
        "case": case.label,
        "buffers": len(actual),
        "worst_buffer": worst,
        "worst_buffer_percent": round(100 * errors[worst], 4),
        "resident_mib": round(truth / MIB, 1),
        "predicted_mib": round(predicted / MIB, 1),
        "resident_percent": round(100 * (predicted / truth - 1), 2),
        "unexplained_mib": round((truth - predicted) / MIB, 1),
        "total_mib": round(estimate.total_bytes / MIB, 1),
    }


def main() -> int:
    """Run all cases, print the table, keep the result; 1 when a claim does not hold."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="")
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    catalogued = catalogue.load()
    rows: list[dict[str, object]] = []
    with tempfile.TemporaryDirectory() as name, EngineChild() as child, Oracle(child) as oracle:
        for case in cases():
            if options.only in case.label:
                rows.append(run_case(case, catalogued, oracle, Path(name)))
                print(json.dumps(rows[-1]), flush=True)
        build = oracle.system().build
    held = all(row["worst_buffer_percent"] <= 0.1 and -1.0 <= row["resident_percent"] <= 3.0 for row in rows)  # type: ignore[operator]
    print(f"{len(rows)} configurations; claims {'held' if held else 'NOT held'}")
    if options.output:
        result = {
            "date": datetime.now(UTC).date().isoformat(),
            "engine_build": build,
            "cpu": platform.processor() or platform.machine(),
            "held": held,
            "rows": rows,
        }
        options.output.write_text(json.dumps(result, indent=1) + "\n")
    return 0 if held else 1


if __name__ == "__main__":
    sys.exit(main())
