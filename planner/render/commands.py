"""What to run next for a chosen candidate: the server's argv, its environment, the Python snippet, the weights' home.

A context beyond what the GGUF says the model was trained for needs YaRN switched on by hand in both programs: without
it llama-server starts, says one line in its log and cuts every slot back to the training context.
"""

import shlex

from planner import units
from planner.render.llama_cpp_python import snippet
from planner.render.llama_server import argv, environment
from planner.types.artifact import Artifact
from planner.types.model import Model
from planner.types.plan import Candidate, Commands

__all__ = ["commands", "offloads", "weights_file", "yarn"]


def commands(candidate: Candidate, model: Model) -> Commands:
    """The commands that run this candidate; ``model`` gives the weights' name and its native context."""
    file = weights_file(candidate, model)
    offload = offloads(candidate)
    stretch = yarn(candidate, model)
    return Commands(
        llama_server=argv(
            candidate.settings,
            weights_file=file,
            offload=offload,
            yarn=stretch,
            reasoning=candidate.thinking if model.thinking == "hybrid" else None,
        ),
        environment=environment(candidate.settings),
        llama_cpp_python=snippet(candidate.settings, weights_file=file, offload=offload, yarn=stretch),
        weights_hint=_weights_hint(candidate, model, file),
    )


def weights_file(candidate: Candidate, model: Model) -> str:
    """Where the first file of the weights is, or will be: its path here, its name in the repository.

    For a model of the catalogue it is the name that uploaders give such a GGUF: ``Qwen3-8B-Q4_K_M.gguf``.
    """
    if candidate.artifact is not None and candidate.artifact.parts:
        first = candidate.artifact.parts[0]
        return first.local_path or first.path.rsplit("/", 1)[-1]
    name = model.hf_repo.rsplit("/", 1)[-1] if model.hf_repo else model.name.replace(" ", "-").replace("/", "-")
    return f"{name}-{candidate.quantization}.gguf"


def offloads(candidate: Candidate) -> bool:
    """Whether a device other than the CPU takes part."""
    return any(memory.device != "CPU" and not memory.device.startswith("Host") for memory in candidate.memory)


def yarn(candidate: Candidate, model: Model) -> tuple[int, int] | None:
    """Scale and original context when a sequence is longer than the model's native context, else ``None``.

    The scale is the smallest whole one that reaches, as Qwen's model cards ask for. What needs no stretching is what
    the GGUF claims (``n_ctx_train``, 40960 for Qwen3, which leaves room for an answer after 32768 tokens).
    """
    settings = candidate.settings
    per_sequence = settings.context_tokens if settings.kv_unified else settings.context_tokens // settings.parallel
    if per_sequence <= max(model.context_native, model.size("n_ctx_train") or 0):
        return None
    return -(-per_sequence // model.context_native), model.context_native


def _weights_hint(candidate: Candidate, model: Model, file: str) -> str:
    if candidate.artifact is not None:
        return _file_hint(candidate.artifact)
    size = units.gib(candidate.file_bytes)
    name = file.removesuffix(f"-{candidate.quantization}.gguf")
    if model.hf_repo is None:
        return f"{file} ({size}): a GGUF of {model.name} in {candidate.quantization}"
    return (
        f"{file} ({size}): search Hugging Face for {name}-GGUF and take the {candidate.quantization} file, or make it "
        f"from {model.hf_repo} with llama.cpp's convert_hf_to_gguf.py and llama-quantize"
    )


def _file_hint(artifact: Artifact) -> str:
    """How to get these very files: with the hub's own tool, pinned to the commit that was read."""
    paths = [part.path for part in artifact.parts]
    if artifact.on_disk:
        return f"{artifact.parts[0].local_path} is here already"
    if artifact.hub == "url":
        return "; ".join(f"curl -fLO {shlex.quote(part.url)}" for part in artifact.parts if part.url)
    names = " ".join(map(shlex.quote, paths))
    if artifact.hub == "ms":
        return f"modelscope download --model {artifact.repo} {names} --local_dir ."
    pinned = f" --revision {artifact.commit}" if artifact.commit else ""
    return f"hf download {artifact.repo} {names}{pinned} --local-dir ."
