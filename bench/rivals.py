"""Rivals, side by side: what each memory estimator says of one list of configurations, beside a real load of each.

The claim: on every configuration the planner's resident estimate is within 3 % of the truth and never more than 1 %
below it, and no tool that can be asked here is nearer in the median or has a smaller worst miss. One worse number
refutes it.

The truth is :mod:`real_load`: the engine loads the phantom in a process of its own and runs one micro-batch and 32
tokens. ``resident`` is the larger of its peak and its final proportional set size; ``reserved`` is the engine's own
buffer lines plus the process before the load. Tools that make no difference between the two are compared with both.
CPU only.

Install what is to be asked, each in a place of its own, then name it by an option or have it on PATH:

    pip install llmfit==1.1.17                  # --llmfit …/bin/llmfit
    pip install ggufit==0.3.0                   # --ggufit …/bin/ggufit
    pip install llamafit==0.1.1                 # --llamafit …/bin/llamafit
    pip install whichllm==0.5.21 'typer<0.16'   # --whichllm-python …/bin/python (newer typer releases break its import)
    npm install node-llama-cpp@3.22.1           # --node-llama-cpp the folder that holds node_modules
    cmake -B build -DCMAKE_BUILD_TYPE=Release && cmake --build build --target llama-fit-params
                                                # --llama-fit-params build/bin/llama-fit-params; llama-cpp-python's
                                                # source distribution has llama.cpp's sources in vendor/

    python bench/rivals.py [--only SUBSTRING] [--before "flock FILE"] [--truth FILE.jsonl [--no-load]] [--output FILE]

A tool that is absent is skipped, and the result says so. ``--before`` is put before each real load; ``--truth``
keeps the real loads and takes them from there when the engine build is the same, so that asking again is quick, and
``--no-load`` leaves out what it does not hold. 32 loads of up to 10 GB: 15 minutes where nothing else runs.
"""

import argparse
import importlib.metadata
import json
import os
import platform
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
from rivals_ask import (
    MIB,
    Asker,
    Configuration,
    FitPrint,
    Ggufit,
    Llmfit,
    NoAnswerError,
    NodeLlamaCpp,
    Subject,
    Whichllm,
)
from rivals_llamafit import LlamaFit
from rivals_planner import Planner
from rivals_table import broken, show, summarize

from planner import catalogue
from planner.engine.child import EngineChild
from planner.engine.oracle import Oracle
from planner.engine.phantom import write_phantom
from planner.types.settings import Settings

REFEREE = Path(__file__).with_name("real_load.py")

# Tools of the same kind that have no column, and what they said when they were tried (22 November 2026).
NOT_ASKED: Mapping[str, str] = {
    "gguf-parser 0.x (Go)": "not installed: only in the Go module index, which could not be reached; Debian has none",
    "chimeraforge 0.76.0": "plans for named GPUs only: `--hardware auto` and `--hardware cpu` are refused without one",
    "fitllm": "knows GPUs and Macs only: asks for --gpu, --mac or --detect and answers for no CPU",
}


def configurations() -> list[Configuration]:
    """The list: dense, mixture, latent attention and hybrids; no load above 10 GB."""
    rows = """
        qwen3-0.6b Q4_K_M 4096 mmap f16; qwen3-0.6b Q4_K_M 8192 mmap f16; qwen3-0.6b Q4_K_M 32768 mmap f16
        qwen3-0.6b Q8_0 4096 mmap f16; qwen3-0.6b Q8_0 8192 none f16; qwen3-0.6b Q8_0 32768 mmap f16
        qwen3-0.6b Q8_0 32768 none q8_0
        qwen3-1.7b Q4_K_M 4096 mmap f16; qwen3-1.7b Q4_K_M 8192 none f16; qwen3-1.7b Q8_0 8192 mmap f16
        qwen3-1.7b Q8_0 32768 none q8_0
        qwen3-4b Q4_K_M 4096 mmap f16; qwen3-4b Q4_K_M 8192 none f16; qwen3-4b Q4_K_M 32768 mmap q8_0
        qwen3-4b Q8_0 8192 mmap f16; qwen3-4b Q8_0 32768 none f16
        qwen3.5-0.8b Q4_K_M 8192 mmap f16; qwen3.5-0.8b Q8_0 32768 none q8_0
        qwen3.5-2b Q4_K_M 4096 mmap f16; qwen3.5-2b Q8_0 8192 none f16
        deepseek-v2-lite Q3_K_M 8192 none f16; deepseek-v2-lite Q3_K_M 32768 none q8_0
        qwen3-30b-a3b IQ2_XXS 4096 none f16
        qwen3.5-4b Q4_K_M 32768 mmap f16; qwen3.5-9b Q4_K_M 8192 none f16
        qwen2.5-7b Q4_K_M 4096 mmap f16; qwen2.5-7b Q4_K_M 32768 none f16
        qwen3-8b Q4_K_M 4096 mmap f16; qwen3-8b Q4_K_M 8192 none f16; qwen3-8b Q8_0 8192 none q8_0
        deepseek-r1-distill-llama-8b Q4_K_M 8192 none f16; deepseek-r1-distill-llama-8b Q8_0 4096 none f16
    """
    found = []
    for line in rows.replace(";", "\n").split("\n"):
        if line.strip():
            model, quantization, context, load_mode, cache_type = line.split()
            found.append(Configuration(model, quantization, int(context), load_mode, cache_type))
    return found


def settings_of(each: Configuration, threads: int) -> Settings:
    """The planner's settings for a configuration."""
    return Settings(
        context_tokens=each.context_tokens,
        load_mode=each.load_mode,  # type: ignore[arg-type]
        cache_type_k=each.cache_type,  # type: ignore[arg-type]
        cache_type_v=each.cache_type,  # type: ignore[arg-type]
        threads=threads,
        threads_batch=threads,
    )


def truth_of(subject: Subject, before: list[str]) -> dict[str, Any]:
    """Bytes of a real load: resident and reserved, and the engine's buffers as weights, cache and compute."""
    request = json.dumps({"path": str(subject.path), "settings": msgspec.to_builtins(subject.settings)})
    done = subprocess.run(
        [*before, sys.executable, str(REFEREE)],
        input=request,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "OMP_WAIT_POLICY": "passive"},
    )
    told = json.loads(done.stdout) if done.returncode == 0 else {"refused": done.stderr[-500:]}
    if "refused" in told:
        raise SystemExit(f"{subject.configuration.label}: the referee failed: {told['refused']}")
    return truth_from(told)


def truth_from(told: Mapping[str, Any]) -> dict[str, Any]:
    """The referee's report in the parts that tools tell: bytes, output buffers counted as compute."""
    parts = dict.fromkeys(("weights", "cache", "compute"), 0.0)
    kinds = {"model": "weights", "context": "cache", "compute": "compute", "output": "compute"}
    for name, size_mib in told["buffers_mib"].items():
        parts[kinds[name.rsplit(" ", 1)[1]]] += size_mib * MIB
    return {
        "resident": max(told["after"]["pss"], told["peak"]),
        "reserved": round(told["before"]["pss"] + sum(parts.values())),
        **{name: round(size) for name, size in parts.items()},
        "context": round(parts["cache"] + parts["compute"]),
        "buffers_mib": told["buffers_mib"],
    }


def kept_truths(path: Path | None, build: str) -> dict[str, dict[str, Any]]:
    """The real loads that an earlier run with this engine build kept, by configuration."""
    if path is None or not path.exists():
        return {}
    kept = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return {each["configuration"]: each["truth"] for each in kept if each["engine_build"] == build}


def keep_truth(path: Path | None, build: str, each: Configuration, truth: dict[str, Any]) -> None:
    """Append one real load to those that are kept."""
    if path is not None:
        with path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"engine_build": build, "configuration": each.label, "truth": truth}) + "\n")


def ask_all(askers: list[Asker], subject: Subject) -> dict[str, dict[str, object]]:
    """Each tool's answer in bytes, parts that it does not tell left out, or the reason why it has none."""
    answers: dict[str, dict[str, object]] = {}
    for asker in askers:
        try:
            answer = asker.ask(subject)._asdict()
        except NoAnswerError as reason:
            answers[asker.name] = {"none": str(reason)}
        else:
            answers[asker.name] = {name: round(size) for name, size in answer.items() if size is not None}
    return answers


def find_rivals(options: argparse.Namespace) -> tuple[list[Asker], dict[str, str]]:
    """The rivals that are here, and those that are not, with the reason."""
    asked: list[Asker] = []
    absent = dict(NOT_ASKED)
    for name, make in (
        ("llama_fit_params", FitPrint), ("llmfit", Llmfit), ("ggufit", Ggufit), ("llamafit", LlamaFit),
        ("whichllm_python", Whichllm), ("node_llama_cpp", NodeLlamaCpp),
    ):  # fmt: skip
        given = getattr(options, name) or shutil.which(name.replace("_", "-"))
        if given and Path(given).exists():
            asked.append(make(Path(given).absolute()))
        else:
            absent[name.replace("_", "-")] = "not given and not on PATH"
    return asked, absent


def rows_of(
    options: argparse.Namespace, askers: list[Asker], folder: Path, catalogued: catalogue.Catalogue, oracle: Oracle
) -> list[dict[str, Any]]:
    """One row for each configuration: the truth and every answer."""
    build = oracle.system().build
    known = kept_truths(options.truth, build)
    threads = len(os.sched_getaffinity(0))
    rows = []
    for each in configurations():
        if options.only not in each.label or (options.no_load and each.label not in known):
            continue
        model, quantization = catalogued.model(each.model), catalogued.quantization(each.quantization)
        layout = oracle.typed_layout(
            catalogued.shape_key(model), lambda model=model: catalogued.layout(model), quantization
        )
        path = folder / f"{each.model}-{each.quantization}.gguf"
        # Random routers: a router of zeros sends every token to the same experts, whose pages alone would be touched.
        write_phantom(path, layout, random_seed=1, random_only=("ffn_gate_inp.weight",))
        subject = Subject(each, path, layout, model, settings_of(each, threads))
        truth = known.get(each.label)
        if truth is None:
            truth = truth_of(subject, shlex.split(options.before))
            keep_truth(options.truth, build, each, truth)
        rows.append(
            {"configuration": each.label, **each._asdict(), "truth": truth, "answers": ask_all(askers, subject)}
        )
        path.unlink()
        told = {name: str(round(a["total"] / MIB)) if "total" in a else "-" for name, a in rows[-1]["answers"].items()}
        print(f"{each.label}: really {round(truth['resident'] / MIB)} MiB; {told}", flush=True)
    return rows


def main() -> int:
    """Load, ask, compare; 1 when the claim does not hold."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("llama-fit-params", "llmfit", "ggufit", "llamafit", "whichllm-python", "node-llama-cpp"):
        parser.add_argument(f"--{name}", metavar="PATH")
    parser.add_argument("--only", default="")
    parser.add_argument("--before", default="", metavar="COMMAND")
    parser.add_argument("--truth", type=Path)
    parser.add_argument("--no-load", action="store_true")
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    rivals, absent = find_rivals(options)
    with tempfile.TemporaryDirectory() as name, EngineChild() as child, Oracle(child) as oracle:
        catalogued = catalogue.load()
        askers: list[Asker] = [Planner(catalogued, oracle, Path(name)), *rivals]
        rows = rows_of(options, askers, Path(name), catalogued, oracle)
        build = oracle.system().build
    summary = summarize(rows, [asker.name for asker in askers])
    refuted = broken(rows, summary)
    print(show(summary))
    for tool, reason in absent.items():
        print(f"not asked: {tool}: {reason}")
    print("\n".join(refuted) if refuted else f"{len(rows)} configurations; the claim held")
    if options.output:
        result = {
            "date": datetime.now(UTC).date().isoformat(),
            "engine_build": build,
            "engine": f"llama-cpp-python {importlib.metadata.version('llama-cpp-python')}",
            "cpu": platform.processor() or platform.machine(),
            "held": not refuted,
            "refuted": refuted,
            "tools": {asker.name: {"version": asker.version(), "claims": asker.claims} for asker in askers},
            "not_asked": absent,
            "summary": summary,
            "rows": rows,
        }
        options.output.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    return 1 if refuted else 0


if __name__ == "__main__":
    sys.exit(main())
