"""How each memory estimator is asked about one configuration, and what the number that it answers claims to be.

Prevents the unfair comparison: every tool is asked the way its users ask it (its command line, its documented call),
with the same context, micro-batch and cache type where it has an option for them, and each answer is split only where
the tool itself splits it. A tool that has no option for what the configuration asks, or does not know the model, gives
no answer, and the reason is kept.
"""

import json
import os
import re
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

from planner.types.model import Layout, Model
from planner.types.settings import Settings

MIB, GIB = 1 << 20, 1 << 30


class NoAnswerError(Exception):
    """The tool cannot say: the message is why."""


class Configuration(NamedTuple):
    """What is asked about; everything else is llama.cpp's default (micro-batch 512, one sequence)."""

    model: str
    quantization: str
    context_tokens: int
    load_mode: str
    cache_type: str

    @property
    def label(self) -> str:
        """The configuration in one line, unique in the list."""
        return f"{self.model} {self.quantization} {self.context_tokens} {self.load_mode} {self.cache_type}"


class Subject(NamedTuple):
    """A configuration with the phantom file that stands for the model, its tensor table and its catalogue entry."""

    configuration: Configuration
    path: Path
    layout: Layout
    model: Model
    settings: Settings


class Answer(NamedTuple):
    """Bytes by the tool; ``None`` is a part that it does not tell. ``context`` is cache and compute together.

    ``resident`` is only for a tool that says apart what will be resident and what will be reserved (``total``).
    """

    total: float
    weights: float | None = None
    cache: float | None = None
    compute: float | None = None
    context: float | None = None
    resident: float | None = None


class Asker(Protocol):
    """One tool: its name, what its numbers claim to be, its version, and its answer to a subject."""

    name: str
    claims: str

    def version(self) -> str:
        """The tool's own version."""

    def ask(self, subject: Subject) -> Answer:
        """Its answer; raises NoAnswerError with the reason where it has none."""


def said(command: Sequence[str | Path], *, text: str = "", env: Mapping[str, str] | None = None) -> str:
    """What ``command`` printed, run with an empty home; raises NoAnswerError with its complaint."""
    with tempfile.TemporaryDirectory() as home:
        own = {"HOME": home, "XDG_CACHE_HOME": home, "XDG_CONFIG_HOME": home, "NO_COLOR": "1"}
        place = {**os.environ, **own, **(env or {})}
        done = subprocess.run(
            [str(part) for part in command],
            input=text, capture_output=True, text=True, check=False, timeout=300, env=place,
        )  # fmt: skip
    if done.returncode:
        raise NoAnswerError(complaint(done.stderr + "\n" + done.stdout) or f"exit code {done.returncode}")
    return done.stdout


def complaint(text: str) -> str:
    """The line that tells what went wrong: the first that names an error, else the first; not the loader's remark."""
    lines = [line.strip() for line in text.splitlines() if line.strip() and "GLIBC" not in line]
    errors = [line for line in lines if re.search(r"\b\w*Error\b", line)]
    return " ".join((errors or lines or [""])[0].split())[:160]


class FitPrint:
    """llama.cpp's own estimate, which ``--fit`` decides by."""

    name = "llama-fit-params"
    claims = (
        "total: model + context + compute on the host as a no-alloc load of the engine reports them, in whole MiB, the"
        " load mode left out of account; no process"
    )

    def __init__(self, program: Path) -> None:
        self.program = program

    def version(self) -> str:
        """llama.cpp's version line."""
        done = subprocess.run([str(self.program), "--version"], capture_output=True, text=True, check=True)
        return (done.stdout + done.stderr).splitlines()[0].removeprefix("version: ")

    def ask(self, subject: Subject) -> Answer:
        """``llama-fit-params --fit-print on`` on the phantom."""
        each = subject.configuration
        command = [
            self.program, "-m", subject.path, "-c", str(each.context_tokens), "-ub", "512", "-ctk", each.cache_type,
            "-ctv", each.cache_type, "-lm", each.load_mode, "--fit-print", "on",
        ]  # fmt: skip
        return fit_print_answer(said(command))


def fit_print_answer(text: str) -> Answer:
    """The line ``Host <model> <context> <compute>``, in MiB."""
    found = re.search(r"^Host (\d+) (\d+) (\d+)\s*$", text, re.MULTILINE)
    if not found:
        raise NoAnswerError(f"no line of the host in {text[:100]!r}")
    weights, cache, compute = (int(group) * MIB for group in found.groups())
    return Answer(weights + cache + compute, weights, cache, compute, cache + compute)


class NodeLlamaCpp:
    """node-llama-cpp's estimate of a GGUF file, as its ``inspect estimate`` command computes it."""

    name = "node-llama-cpp"
    claims = (
        "total: RAM of model and context (what `inspect estimate` prints as RAM usage); weights: the model's share;"
        " context: cache and graph together; no process"
    )

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def version(self) -> str:
        """The npm package's version, with the release of llama.cpp that it brings."""
        package = self.folder / "node_modules/node-llama-cpp"
        release = json.loads((package / "llama/binariesGithubRelease.json").read_text(encoding="utf-8"))["release"]
        told = json.loads((package / "package.json").read_text(encoding="utf-8"))["version"]
        return f"{told} (llama.cpp {release})"

    def ask(self, subject: Subject) -> Answer:
        """Both calls of its insights: the model's and the context's requirements."""
        each = subject.configuration
        program = Path(__file__).with_name("rivals_node.mjs")
        arguments = [subject.path, str(each.context_tokens), each.cache_type.upper(), each.load_mode]
        told = json.loads(said(["node", program, self.folder, *arguments]).splitlines()[-1])
        return Answer(told["model"] + told["context"], weights=told["model"], context=told["context"])


class Llmfit:
    """llmfit's plan for a model of its catalogue."""

    name = "llmfit"
    claims = (
        "total: the RAM that the CPU-only path needs at least (weights + cache + 0.5; its GB are compared with GiB of"
        " RAM, so they are read as GiB); weights: its disk size; cache: its cache at that type"
    )

    def __init__(self, program: Path) -> None:
        self.program = program

    def version(self) -> str:
        """What ``--version`` says."""
        return said([self.program, "--version"]).split()[-1]

    def ask(self, subject: Subject) -> Answer:
        """``llmfit --json plan`` by the name on Hugging Face."""
        each = subject.configuration
        kind = {"f16": "fp16"}.get(each.cache_type, each.cache_type)
        name = subject.model.hf_repo or each.model
        told = json.loads(
            said(
                [self.program, "--json", "plan", name, "--context", str(each.context_tokens), "--quant",
                 each.quantization, "--kv-quant", kind]
            )
        )  # fmt: skip
        if told["model_name"].lower() != name.lower():
            raise NoAnswerError(f"answered about {told['model_name']} instead")
        return llmfit_answer(told, kind)


def llmfit_answer(told: dict[str, object], kind: str) -> Answer:
    """The CPU-only path of a plan; its GB are taken as GiB."""
    paths = {path["path"]: path for path in told["run_paths"]}  # type: ignore[attr-defined]
    caches = {each["kv_quant"]: each["kv_cache_gb"] for each in told["kv_alternatives"]}  # type: ignore[attr-defined]
    return Answer(
        total=paths["cpu_only"]["minimum"]["ram_gb"] * GIB,
        weights=float(str(told["disk_size_gb"])) * GIB,
        cache=caches[kind] * GIB,
    )


class Ggufit:
    """ggufit's answer for a model of its offline catalogue."""

    name = "ggufit"
    claims = (
        "total: RAM that is needed; weights: its download; compute: its working memory (compute buffers, activations,"
        " fragmentation); its GB are GiB, rounded to 0.01; one figure for all quantizations of as many bits; f16 cache"
    )
    names: Mapping[str, str] = {
        "deepseek-r1-distill-llama-8b": "deepseek-r1-8b",
        "deepseek-v2-lite": "deepseek-v2-lite-16b",
    }

    def __init__(self, program: Path) -> None:
        self.program = program

    def version(self) -> str:
        """What ``--version`` says."""
        return said([self.program, "--version"]).split()[-1]

    def ask(self, subject: Subject) -> Answer:
        """``ggufit --offline --no-gpu``."""
        each = subject.configuration
        if each.cache_type != "f16":
            raise NoAnswerError("no option for the cache's type")
        bits = re.search(r"Q(\d)", each.quantization)
        command = [
            self.program, "--offline", "--no-gpu", self.names.get(each.model, each.model), "--quant",
            f"q{bits[1] if bits else ''}", "--context", str(each.context_tokens),
        ]  # fmt: skip
        return ggufit_answer(said(command))


_GGUFIT = re.compile(
    r"download ([\d.]+) (GB|MB) ·(?: [^·]*active per token ·)? cache ([\d.]+) (GB|MB) · working memory ([\d.]+) (GB|MB)"
    r" · total ([\d.]+) (GB|MB) of"
)


def ggufit_answer(text: str) -> Answer:
    """The first line of parts that ggufit prints, wherever it breaks it."""
    found = _GGUFIT.search(" ".join(text.split()))
    if not found:
        raise NoAnswerError(f"no figures in {text[-200:]!r}")
    scale = {"GB": GIB, "MB": MIB}
    weights, cache, compute, total = (float(found[at]) * scale[found[at + 1]] for at in (1, 3, 5, 7))
    return Answer(total, weights, cache, compute, cache + compute)


class Whichllm:
    """whichllm's estimator, called in its own interpreter with the file's true size; its commands need a hub."""

    name = "whichllm"
    claims = (
        "total: memory required to run (what its fit decides by, for CPU as for GPU): file size + cache by parameter"
        " count + activation + framework; given the true parameter counts and file size; f16 cache"
    )
    program = (
        "import json, sys; from whichllm.models.types import ModelInfo, GGUFVariant; from whichllm.engine import vram;"
        " d = json.load(sys.stdin); v = GGUFVariant(d['file'], d['quant'], d['bytes']);"
        " m = ModelInfo(id=d['id'], family_id=d['id'], name=d['id'], parameter_count=d['n'],"
        " parameter_count_active=d['active'], architecture=d['arch'], is_moe=d['active'] is not None);"
        " print(json.dumps({'total': vram.estimate_vram(m, v, d['context']),"
        " 'cache': vram.estimate_kv_cache(m, d['context'])}))"
    )

    def __init__(self, python: Path) -> None:
        self.python = python

    def version(self) -> str:
        """The package's version."""
        return said([self.python, "-c", "from importlib.metadata import version; print(version('whichllm'))"]).strip()

    def ask(self, subject: Subject) -> Answer:
        """``whichllm.engine.vram.estimate_vram``."""
        each, model = subject.configuration, subject.model
        if each.cache_type != "f16":
            raise NoAnswerError("no option for the cache's type")
        size = subject.path.stat().st_size
        facts = {
            "id": model.hf_repo or model.id, "file": subject.path.name, "quant": each.quantization, "bytes": size,
            "n": model.parameters, "arch": model.architecture, "context": each.context_tokens,
            "active": model.parameters_active if model.parameters_active < model.parameters else None,
        }  # fmt: skip
        told = json.loads(said([self.python, "-c", self.program], text=json.dumps(facts)))
        return Answer(told["total"], weights=size, cache=told["cache"])
