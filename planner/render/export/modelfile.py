"""The deployment as a Modelfile for Ollama: where the weights are and how long the context is.

Three mistakes it prevents: promising what Ollama decides alone (layers on the GPU, threads, the cache's type are no
parameters of a Modelfile); a relative file name that is taken for the name of a model in Ollama's registry; and a
character that its parser drops without a word.

Grammar: ``parser/parser.go`` of ollama at commit 00dc3af8.
"""

from planner.errors import UsageError
from planner.render.export.words import comment, refuse
from planner.types.deployment import Deployment, ExportOptions

__all__ = ["render"]


def render(deployment: Deployment, options: ExportOptions) -> dict[str, str]:  # noqa: ARG001 - every format's signature
    """``NAME.Modelfile``; a character that is not printable is refused, and so is a split set of files.

    Ollama listens where ``OLLAMA_HOST`` says, and asks nobody for a key.
    """
    if len(deployment.weights) > 1:
        raise UsageError(
            f"Ollama takes one file, and these weights are {len(deployment.weights)}",
            hint="join them with: llama-gguf-split --merge FIRST-PART OUTPUT",
        )
    if deployment.exposed or deployment.api_key_file is not None:
        raise UsageError(
            "Ollama has no keys, and its address is no part of a Modelfile",
            hint="leave out --expose and --api-key-file; put a server that checks keys in front of Ollama",
        )
    settings = deployment.settings
    environment = (
        f"OLLAMA_NUM_PARALLEL={settings.parallel} OLLAMA_KV_CACHE_TYPE={settings.cache_type_k} "
        f"OLLAMA_FLASH_ATTENTION={int(settings.flash_attention != 'off')}"
    )
    lines = [
        f"# {comment(deployment.model)} in {comment(deployment.quantization)}. Create and run:",
        f"#   ollama create {deployment.name} -f {deployment.name}.Modelfile && ollama run {deployment.name}",
        "# Ollama itself decides about layers on the GPU, threads and batches. What was planned and belongs to its",
        f"# environment: {environment}",
        f"FROM {_value(deployment.weights[0])}",
        f"PARAMETER num_ctx {settings.context_tokens // settings.parallel}",
    ]
    return {f"{deployment.name}.Modelfile": "\n".join(lines) + "\n"}


def _value(path: str) -> str:
    """A path that Ollama reads as it is, and takes for a file."""
    refuse(path, (each for each in path if not each.isprintable()), form="modelfile", what="the weights' path")
    file = path if path.startswith("/") else f"./{path}"
    # Outer blanks are cut off unless quoted, and the longer quotes hold every quote inside.
    return f'"""{file}"""' if file != file.strip() else file
