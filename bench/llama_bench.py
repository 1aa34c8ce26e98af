"""The planner's clock beside the official ``llama-bench``, turn by turn on the same phantoms.

Both time decode (tg32) and a prompt (pp512) of the same file, with the same threads and waiting, alternately and each
first as often as second, so that a machine that changes within minutes changes under both. Refuted where the medians
differ by more than 5 % in the median over all models and tests.

    python bench/llama_bench.py --llama-bench PATH [--rounds 6] [--output bench/results/llama_bench.json]

The program is the one of the llama.cpp sources that the engine was built from (see docs/calibration.md). About six
minutes on two quiet cores.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any

from planner import catalogue
from planner.engine.child import EngineChild
from planner.engine.phantom import write_phantom
from planner.measure.bench import Bench
from planner.measure.conditions import Watch
from planner.measure.lock import measurement_lock
from planner.measure.slices import weights_bytes
from planner.types.measurement import Test
from planner.types.settings import Settings
from planner.workflow.session import Session, open_session

SUBJECTS = (
    ("qwen3-0.6b", "Q8_0"),
    ("llama-3.2-1b", "Q4_K_M"),
    ("qwen2.5-0.5b", "BF16"),
    ("hunyuan-0.5b", "Q6_K"),
    ("qwen3.5-0.8b", "Q4_0"),
    ("qwen2.5-1.5b", "IQ4_XS"),
)
TESTS = {"tg": Test(kind="generate", tokens=32), "pp512": Test(kind="prompt", tokens=512)}
MOST_IN_THE_MEDIAN = 0.05
DEADLINE_S = 600


def main() -> int:
    """Time every subject both ways, record, and judge."""
    options = _options()
    with measurement_lock(wait_s=5.0), open_session(catalogue.load(), None, None) as session:
        threads = session.machine.cpu.usable_threads
        settings = Settings(context_tokens=1024, threads=threads, threads_batch=threads, openmp_wait="default")
        found = [_subject(session, name, settings, options) for name in SUBJECTS]
        build = session.oracle.system().build
        cpu = session.machine.cpu.model
    differences = [abs(row["ratio"] - 1) for each in found for row in each["tests"].values()]
    record = {
        "machine": {"cpu": cpu, "threads": threads, "engine_build": build},
        "taken_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "median_difference": round(median(differences), 4),
        "largest_difference": round(max(differences), 4),
        "subjects": found,
    }
    options.output.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    held = record["median_difference"] <= MOST_IN_THE_MEDIAN
    print(f"median {record['median_difference']:.1%}, largest {record['largest_difference']:.1%}")
    print("the claim holds" if held else f"refuted: above {MOST_IN_THE_MEDIAN:.0%}")
    return 0 if held else 1


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--llama-bench", required=True, help="the official program")
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results" / "llama_bench.json")
    return parser.parse_args()


def _subject(
    session: Session, name: tuple[str, str], settings: Settings, options: argparse.Namespace
) -> dict[str, Any]:
    """Both clocks on one phantom."""
    took: dict[str, dict[str, list[float]]] = {test: {"planner": [], "llama_bench": []} for test in TESTS}
    with _phantom(session, name) as (path, size):

        def child(env: Mapping[str, str]) -> EngineChild:
            return EngineChild(session.engine_python, env=env)

        with Bench(child) as bench:
            bench.open_file(path, settings, "subject", size_bytes=size)
            bench.run("subject", TESTS["pp512"], tokens=64, deadline_s=DEADLINE_S)
            watch = Watch(bench.pids, threads=settings.threads)
            for number in range(options.rounds):
                turns = [lambda: _own(bench, took), lambda: _official(options.llama_bench, path, settings, took)]
                for turn in turns if number % 2 == 0 else reversed(turns):
                    turn()
            load = watch.finish().load_1min
    row = {
        "model": " ".join(name),
        "file_bytes": size,
        "tests": {test: _compared(both) for test, both in took.items()},
        "load_1min": load,
    }
    told = ", ".join(f"{test} {each['ratio'] - 1:+.1%}" for test, each in row["tests"].items())
    print(f"{row['model']}: {told}", flush=True)
    return row


@contextmanager
def _phantom(session: Session, name: tuple[str, str]) -> Iterator[tuple[Path, int]]:
    known = session.sources.catalogue
    model, quantization = known.model(name[0]), known.quantization(name[1])
    layout = session.oracle.typed_layout(known.shape_key(model), lambda: known.layout(model), quantization)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "phantom.gguf"
        write_phantom(path, layout)
        yield path, weights_bytes(layout)


def _own(bench: Bench, took: dict[str, dict[str, list[float]]]) -> None:
    for name, test in TESTS.items():
        # As the official program does before each test: threads that have ended start again, caches are cold.
        bench.run("subject", test, tokens=1 if test.kind == "generate" else test.tokens, deadline_s=DEADLINE_S)
        run = bench.run("subject", test, tokens=test.tokens, deadline_s=DEADLINE_S)
        took[name]["planner"].append(run.tokens_timed * 1e9 / run.samples_ns[0])


def _official(program: str, path: Path, settings: Settings, took: dict[str, dict[str, list[float]]]) -> None:
    argv = [program, "-m", str(path), "-r", "1", "-o", "json", "-t", str(settings.threads), "-fa", "auto"]
    argv += ["-p", str(TESTS["pp512"].tokens), "-n", str(TESTS["tg"].tokens)]
    env = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"}
    done = subprocess.run(argv, check=True, capture_output=True, env=env, timeout=DEADLINE_S)
    for row in json.loads(done.stdout):
        took["pp512" if row["n_prompt"] else "tg"]["llama_bench"].append(row["avg_ts"])


def _compared(both: Mapping[str, list[float]]) -> dict[str, Any]:
    """Medians of both, in tokens per second, and how many times the official's the planner's is."""
    medians = {who: median(each) for who, each in both.items()}
    return {
        **{f"{who}_tokens_per_s": [round(value, 2) for value in each] for who, each in both.items()},
        "ratio": round(medians["planner"] / medians["llama_bench"], 4),
    }


if __name__ == "__main__":
    sys.exit(main())
