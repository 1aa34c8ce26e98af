"""Memory, predicted against real: every buffer of phantoms that the engine really loads, and the resident peak.

Configurations are drawn at random (:mod:`memory_draw`). For each the estimate is made first, then :mod:`real_load`
loads the same phantom in a process of its own and runs one full micro-batch and 32 tokens. Claims held: every buffer
within 0.1 % (or the 0.005 MiB to which the engine's log is rounded), none missing; resident within 3 %, never more than
1 % below the truth; what the engine refuses, planner refuses, and nothing else.

    python bench/memory.py [--seed N] [--count N] [--large N] [--max-bytes N] [--output bench/results/memory.json]
"""

import argparse
import contextlib
import fcntl
import hashlib
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import msgspec

sys.path.insert(0, str(Path(__file__).parent))

from memory_draw import Case, Draw, Part

from planner import catalogue
from planner.engine.answers import Buffers, Weights
from planner.engine.child import EngineChild
from planner.engine.oracle import Oracle
from planner.engine.phantom import write_phantom
from planner.errors import EngineDiedError, EngineError
from planner.estimate.memory import host_memory
from planner.types.model import Layout
from planner.types.plan import DeviceMemory
from planner.types.settings import Settings

__all__ = ["Bench", "Case", "Draw", "Part", "cases", "compare", "held"]

MIB = 1 << 20
REFEREE = Path(__file__).with_name("real_load.py")
SMALL_BYTES, LARGE_BYTES = (30 * MIB, 500 * MIB), (2500 * MIB, 9000 * MIB)
SMALL_FLOPS, LARGE_FLOPS = 1.5e11, 6e11
LEAST_TOTAL_LARGE = 2500 * MIB
MOST_SMALL = 1000 * MIB
HEAVY_BYTES = 1500 * MIB
MOST_TRIES = 40
REPEATS = 3


class RefusedError(Exception):
    """Planner's engine refuses the configuration; the text is its reason."""


class Bench:
    """Runs cases: estimate, real load, comparison."""

    def __init__(self, catalogued: catalogue.Catalogue, oracle: Oracle, folder: Path, lock: Path | None = None) -> None:
        self._catalogued = catalogued
        self._oracle = oracle
        self._folder = folder
        self._lock = lock

    def estimate(self, case: Case) -> tuple[DeviceMemory, dict[str, float]]:
        """The host's row and the engine's buffer lines as they should read; raises :class:`RefusedError`."""
        model, quantization = case.part.shape(self._catalogued), self._catalogued.quantization(case.quantization)
        key, settings = self._key(case), case.settings
        lean = what_runs(settings)

        def source() -> Layout:
            return self._catalogued.layout(model, case.part.layers)

        try:
            weights = self._oracle.weights(key, source, quantization, settings)
            full, small = self._oracle.buffers(key, source, [settings, lean], quantization)
        except EngineError as error:
            raise RefusedError(error.message) from error
        if full.refused or small.refused:
            raise RefusedError(full.refused or small.refused)
        typed = self._oracle.typed_layout(key, source, quantization)
        asked = [[among_others(settings), lean]]
        if any("recurrent" in line for line in full.log):
            # States are gathered for each sequence that runs, caches cut for each that there may be: in between.
            asked.append([lean])
        told = [self._touched(typed, settings, runs) for runs in asked]
        touched = None if None in told else sum(each or 0 for each in told) // len(told)
        process_bytes = self._oracle.system().process_bytes or 0
        row = host_memory(
            settings,
            weights,
            full,
            small,
            process_bytes=process_bytes,
            available_bytes=None,
            tokenizer=False,
            touched_bytes=touched,
        )
        return row, expected_buffers(settings, weights, full)

    def _touched(self, typed: Layout, settings: Settings, runs: list[Settings]) -> int | None:
        """What of the compute buffer planned for ``settings`` the first of ``runs`` with an equal graph writes."""
        asked = [msgspec.to_builtins(each) for each in (settings, *runs)]
        told = self._oracle.ask_about("touched", typed, {"settings": asked, "outputs": 1})
        return msgspec.convert(told["touched_bytes"], int | None)

    def sizes(self, case: Case) -> tuple[int, int | None]:
        """Bytes of the weights, and of everything (``None``: refused)."""
        model, quantization = case.part.shape(self._catalogued), self._catalogued.quantization(case.quantization)

        def source() -> Layout:
            return self._catalogued.layout(model, case.part.layers)

        try:
            weights = self._oracle.weights(self._key(case), source, quantization, case.settings).file_bytes
        except (EngineError, EngineDiedError):
            return 0, None
        try:
            return weights, self.estimate(case)[0].total_bytes
        except (RefusedError, EngineDiedError):
            return weights, None

    def load(self, case: Case, total_bytes: int) -> dict[str, object]:
        """What the referee saw, or ``refused``."""
        quantization = self._catalogued.quantization(case.quantization)
        model = case.part.shape(self._catalogued)
        typed = self._oracle.typed_layout(
            self._key(case), lambda: self._catalogued.layout(model, case.part.layers), quantization
        )
        path = self._folder / "phantom.gguf"
        # Random routers: a router of zeros sends every token to the same experts.
        write_phantom(path, typed, random_seed=1, random_only=("ffn_gate_inp.weight",))
        request = json.dumps({"path": str(path), "settings": msgspec.to_builtins(case.settings)})
        with self._held(total_bytes):
            done = subprocess.run(
                [sys.executable, str(REFEREE)],
                input=request,
                capture_output=True,
                text=True,
                check=False,
                env={**os.environ, "OMP_WAIT_POLICY": "passive"},
            )
        path.unlink()
        if done.returncode:
            return {"refused": f"ended with {done.returncode}: {done.stderr[-300:].strip()}"}
        return msgspec.json.decode(done.stdout, type=dict[str, object])

    def run(self, case: Case) -> dict[str, object]:
        """One row of the table."""
        try:
            row, expected = self.estimate(case)
        except (RefusedError, EngineDiedError) as refusal:
            real = self.load(case, self.sizes(case)[0])
            told = real.get("refused")
            return {**case.row, "refused": str(refusal)[-200:], "engine_refused": told and str(told)[-200:]}
        real = self.load(case, row.total_bytes)
        for _ in range(REPEATS):
            if not evicted(real):
                break
            real = self.load(case, row.total_bytes)
        if "refused" in real:
            return {**case.row, "refused": None, "engine_refused": str(real["refused"])[-300:]}
        return compare(case, row, expected, real)

    def _key(self, case: Case) -> str:
        """A name for the part that the oracle can keep its answers under."""
        shape = self._catalogued.shape_key(case.part.shape(self._catalogued))
        return hashlib.sha256(f"{shape}{case.part.layers}".encode()).hexdigest()[:16]

    @contextlib.contextmanager
    def _held(self, total_bytes: int) -> Iterator[None]:
        """A lock on a file while a large load runs, where several programs share the machine."""
        if self._lock is None or total_bytes < HEAVY_BYTES:
            yield
            return
        with self._lock.open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield


def what_runs(settings: Settings) -> Settings:
    """The settings of just what the referee does: one sequence, one micro-batch, logits of its last token.

    The engine pads the cells that it looks at to 256; the 32 tokens that follow look at more, one at a time.
    """
    per_sequence = settings.context_tokens if settings.kv_unified else settings.context_tokens // settings.parallel
    tokens = min(settings.ubatch, settings.batch, _padded(per_sequence) - 32)
    return msgspec.structs.replace(
        settings, parallel=1, outputs_max=1, kv_unified=False, context_tokens=_padded(tokens), ubatch=tokens
    )


def among_others(settings: Settings) -> Settings:
    """As :func:`what_runs`, in a cache that is cut for as many sequences as there are."""
    lean = what_runs(settings)
    caches = 1 if settings.kv_unified else settings.parallel
    return msgspec.structs.replace(
        lean,
        parallel=settings.parallel,
        outputs_max=settings.parallel,
        kv_unified=settings.kv_unified,
        context_tokens=lean.context_tokens * caches,
    )


def _padded(tokens: int) -> int:
    return -(-tokens // 256) * 256


def expected_buffers(settings: Settings, weights: Weights, full: Buffers) -> dict[str, float]:
    """The engine's buffer lines, in MiB, as the estimate predicts them."""
    lines = {"CPU output": full.output_bytes / MIB}
    for name, size in weights.buffers.items():
        mapped = name == "CPU" and settings.load_mode.startswith("mmap")
        lines["CPU_Mapped model" if mapped else f"{name} model"] = (weights.mapped[name] if mapped else size) / MIB
    for buffer in full.buffers:
        if buffer.context_bytes:
            lines[f"{buffer.name} context"] = buffer.context_bytes / MIB
        if buffer.compute_bytes:
            lines[f"{buffer.name} compute"] = buffer.compute_bytes / MIB
    return lines


def evicted(real: dict[str, object]) -> bool:
    """Whether the system took pages of the mapped file back for want of memory: less was resident than was used."""
    if "refused" in real:
        return False
    before, after = (msgspec.convert(real[name], dict[str, int]) for name in ("before", "after"))
    of_files = (after["rss"] - after["anonymous"]) - (before["rss"] - before["anonymous"])
    mapped_mib = msgspec.convert(real["buffers_mib"], dict[str, float]).get("CPU_Mapped model", 0.0)
    return of_files < mapped_mib * MIB


def compare(
    case: Case, estimate: DeviceMemory, expected: dict[str, float], real: dict[str, object]
) -> dict[str, object]:
    """One row of the table: the worst buffer and the resident error, in per cent."""
    actual = msgspec.convert(real["buffers_mib"], dict[str, float])
    # Each line of the log is rounded to 0.01 MiB; a cache in several parts has a line for each.
    lines = msgspec.convert(real["lines"], dict[str, int])
    errors: dict[str, float] = {}
    for name in expected.keys() | actual.keys():
        difference = abs(expected.get(name, 0.0) - actual.get(name, 0.0)) - 0.0051 * lines.get(name, 1)
        errors[name] = max(0.0, difference) / max(actual.get(name, 0.0), 1e-9)
    worst = max(errors, key=lambda name: errors[name])
    after = msgspec.convert(real["after"], dict[str, int])
    truth = max(after["pss"], int(str(real["peak"])))
    predicted = estimate.resident_bytes or 0
    return {
        **case.row,
        "buffers": len(actual),
        "worst_buffer": worst,
        "worst_buffer_percent": round(100 * errors[worst], 4),
        "resident_mib": round(truth / MIB, 1),
        "predicted_mib": round(predicted / MIB, 1),
        "resident_percent": round(100 * (predicted / truth - 1), 2),
        "unexplained_mib": round((truth - predicted) / MIB, 1),
        "total_mib": round(estimate.total_bytes / MIB, 1),
    }


def held(row: dict[str, object]) -> bool:
    """Whether the claims hold for one row."""
    if "engine_refused" in row:
        return row["refused"] is not None and row["engine_refused"] is not None
    return row["worst_buffer_percent"] <= 0.1 and -1.0 <= row["resident_percent"] <= 3.0  # type: ignore[operator]


def cases(bench: Bench, draw: Draw, count: int, limits: tuple[int, int], least: int, most: int) -> Iterator[Case]:
    """``count`` configurations that planner does not refuse and that hold between ``least`` and ``most`` bytes.

    One that is too small or too large is drawn again, of the same architecture; half of ``most`` is enough as long as
    that is easy. A few that are refused come along.
    """
    found = refused = tries = 0
    while found < count:
        case = draw.case(*limits)
        limit = most // 2 if tries < MOST_TRIES // 2 and least < most // 2 else most
        weights, total = bench.sizes(case)
        if weights <= limit and (least <= total <= limit if total is not None else refused <= found // 8):
            found, refused, tries = found + (total is not None), refused + (total is None), 0
            yield case
            continue
        tries += 1
        if tries < MOST_TRIES:
            draw.again()
        else:
            tries = 0


def main() -> int:
    """Run all cases, print the table, keep the result; 1 when a claim does not hold."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--count", type=int, default=300, help="small configurations")
    parser.add_argument("--large", type=int, default=15, help="large configurations")
    parser.add_argument("--max-bytes", type=int, default=12 << 30, help="of the largest")
    parser.add_argument("--small-bytes", type=int, default=MOST_SMALL, help="of the largest small one")
    parser.add_argument("--architectures", nargs="*", default=(), help="draw these only")
    parser.add_argument("--lock", type=Path, help="a file to hold locked during each large load")
    parser.add_argument("--folder", type=Path, help="where the phantoms lie (default: a temporary folder)")
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    catalogued = catalogue.load()
    rows: list[dict[str, object]] = []
    with tempfile.TemporaryDirectory(dir=options.folder) as name, EngineChild() as child, Oracle(child) as oracle:
        bench = Bench(catalogued, oracle, Path(name), options.lock)
        kinds = options.architectures
        small = Draw(catalogued, options.seed, max_flops=SMALL_FLOPS, architectures=kinds)
        large = Draw(catalogued, options.seed + 1, max_flops=LARGE_FLOPS, architectures=kinds)
        drawn = (
            (small, options.count, SMALL_BYTES, 0, min(options.small_bytes, options.max_bytes)),
            (large, options.large, LARGE_BYTES, LEAST_TOTAL_LARGE, options.max_bytes),
        )
        for draw, count, limits, least, most in drawn:
            for case in cases(bench, draw, count, limits, least, most):
                begun = time.monotonic()
                row = bench.run(case)
                rows.append({**row, "seconds": round(time.monotonic() - begun, 1)})
                print(("     " if held(row) else "FAIL ") + json.dumps(rows[-1]), flush=True)
        build = oracle.system().build
    return report(rows, {"engine_build": build, "seed": options.seed}, options.output)


def summary(rows: list[dict[str, object]], catalogued: catalogue.Catalogue) -> dict[str, object]:
    """The claims in numbers, over all rows and for each architecture."""
    loaded = [row for row in rows if "resident_percent" in row]
    groups: dict[str, list[dict[str, object]]] = {}
    for row in loaded:
        groups.setdefault(catalogued.model(str(row["model"])).architecture, []).append(row)
    return {
        "loaded": len(loaded),
        "refused_by_both": sum("engine_refused" in row and held(row) for row in rows),
        "outside_bounds": sum(not held(row) for row in rows),
        **_spread(loaded),
        "architectures": {name: {"loaded": len(groups[name]), **_spread(groups[name])} for name in sorted(groups)},
    }


def _spread(rows: list[dict[str, object]]) -> dict[str, object]:
    errors = sorted(float(str(row["resident_percent"])) for row in rows)
    return {
        "worst_buffer_percent": max(float(str(row["worst_buffer_percent"])) for row in rows),
        "resident_percent": [errors[0], round(statistics.median(errors), 2), errors[-1]],
        "largest_mib": max(float(str(row["resident_mib"])) for row in rows),
    }


def report(rows: list[dict[str, object]], told: dict[str, object], output: Path | None) -> int:
    """Print the verdict and keep the rows with what is ``told`` about the run; 1 when a claim does not hold."""
    good = all(map(held, rows))
    found = summary(rows, catalogue.load())
    print(json.dumps(found, indent=1))
    print(f"claims {'held' if good else 'NOT held'}")
    if output:
        cpu = platform.processor() or platform.machine()
        date = datetime.now(UTC).date().isoformat()
        result = {"date": date, "cpu": cpu, **told, "held": good, "summary": found, "rows": rows}
        output.write_text(json.dumps(result, indent=1) + "\n")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
