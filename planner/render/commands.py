"""What to run next for a chosen candidate: the server's argv, its environment, the Python snippet, the weights' home.

A context beyond what the GGUF says the model was trained for needs YaRN switched on by hand in both programs: without
it llama-server starts, says one line in its log and cuts every slot back to the training context.
"""

from planner import units
from planner.render.llama_cpp_python import snippet
from planner.render.llama_server import argv, environment
from planner.types.model import Model
from planner.types.plan import Candidate, Commands

__all__ = ["commands", "offloads", "weights_file", "yarn"]


def commands(candidate: Candidate, model: Model) -> Commands:
    """The commands that run this candidate; ``model`` gives the weights' name and its native context."""
    file = weights_file(candidate, model)
    offload = offloads(candidate)
    stretch = yarn(candidate, model)
    return Commands(
        llama_server=argv(candidate.settings, weights_file=file, offload=offload, yarn=stretch),
        environment=environment(candidate.settings),
        llama_cpp_python=snippet(candidate.settings, weights_file=file, offload=offload, yarn=stretch),
        weights_hint=_weights_hint(candidate, model, file),
    )


def weights_file(candidate: Candidate, model: Model) -> str:
    """The file name that uploaders give such a GGUF: ``Qwen3-8B-Q4_K_M.gguf``."""
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
    size = units.gib(candidate.file_bytes)
    name = file.removesuffix(f"-{candidate.quantization}.gguf")
    if model.hf_repo is None:
        return f"{file} ({size}): a GGUF of {model.name} in {candidate.quantization}"
    return (
        f"{file} ({size}): search Hugging Face for {name}-GGUF and take the {candidate.quantization} file, or make it "
        f"from {model.hf_repo} with llama.cpp's convert_hf_to_gguf.py and llama-quantize"
    )
