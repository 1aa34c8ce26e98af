"""The deployment for llama-cpp-python: a configuration of its server, and a program that asks one question.

The mistake it prevents: the binding's own defaults, with which it decodes with half the cores and serves 512 tokens.
What the binding cannot do is said in the program's comments.
"""

import json

from planner.errors import UsageError
from planner.render.llama_cpp_python import snippet
from planner.render.llama_cpp_server import server_config, server_differences
from planner.types.deployment import Deployment, ExportOptions

__all__ = ["render"]


def render(deployment: Deployment, options: ExportOptions) -> dict[str, str]:  # noqa: ARG001 - every format's signature
    """``NAME.config.json`` for ``python -m llama_cpp.server --config_file``, and ``NAME.py``.

    A file of keys cannot be said: that server takes its one key out of the configuration itself, and no key is ever
    written here.
    """
    if deployment.exposed or deployment.api_key_file is not None:
        raise UsageError(
            "the server of llama-cpp-python reads no file of keys",
            hint="leave out --expose and --api-key-file, or export for llama-server",
        )
    offload = bool(deployment.gpus)
    yarn = _yarn(deployment.argv)
    config = server_config(
        deployment.settings,
        weights_file=deployment.weights[0],
        name=deployment.name,
        host=deployment.host,
        port=deployment.port,
        offload=offload,
        yarn=yarn,
        thinking=deployment.thinking if "--reasoning" in deployment.argv else None,
    )
    variables = "".join(f"{name}={value} " for name, value in sorted(deployment.environment.items()))
    head = [
        f"# The server: {variables}python -m llama_cpp.server --config_file {deployment.name}.config.json",
        "# planner serve is faster: by itself this server computes in several threads that hinder one another.",
        *(f"# Of the plan it cannot do: {each}." for each in server_differences(deployment.settings, offload=offload)),
        "",
    ]
    program = snippet(deployment.settings, weights_file=deployment.weights[0], offload=offload, yarn=yarn)
    return {
        f"{deployment.name}.config.json": json.dumps(config, indent=2, ensure_ascii=False) + "\n",
        f"{deployment.name}.py": "\n".join(head) + program,
    }


def _yarn(argv: tuple[str, ...]) -> tuple[int, int] | None:
    """Scale and original context where the command stretches the model."""
    if "--yarn-orig-ctx" not in argv:
        return None
    scale, original = (argv[argv.index(flag) + 1] for flag in ("--rope-scale", "--yarn-orig-ctx"))
    return int(scale), int(original)
