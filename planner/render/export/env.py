"""The deployment as variables that llama-server reads itself, for whoever starts it with no arguments.

Two mistakes it prevents. A file for one reader that another reads differently: what stands here means the same to a
POSIX shell and to systemd's ``EnvironmentFile=``, and without a quote in it to Docker's ``--env-file`` too. And a
switch that is lost: a flag without a variable is kept as a word for the command line.

Variables: ``--help`` of llama-server, ``common/arg.cpp`` of llama.cpp at commit 0c1e57098 (a test asks a real build).
"""

import re

from planner.render.export.words import CONTROLS, comment, refuse
from planner.types.deployment import Deployment, ExportOptions

__all__ = ["EXTRA", "SWITCHES", "VARIABLES", "render"]

VARIABLES = {
    "--model": "MODEL",
    "--ctx-size": "CTX_SIZE",
    "--parallel": "N_PARALLEL",
    "--cache-type-k": "CACHE_TYPE_K",
    "--cache-type-v": "CACHE_TYPE_V",
    "--flash-attn": "FLASH_ATTN",
    "--batch-size": "BATCH",
    "--ubatch-size": "UBATCH",
    "--rope-scaling": "ROPE_SCALING_TYPE",
    "--rope-scale": "ROPE_SCALE",
    "--yarn-orig-ctx": "YARN_ORIG_CTX",
    "--reasoning": "REASONING",
    "--load-mode": "LOAD_MODE",
    "--lazy-mode": "LAZY_MODE",
    "--device": "DEVICE",
    "--n-gpu-layers": "N_GPU_LAYERS",
    "--split-mode": "SPLIT_MODE",
    "--tensor-split": "TENSOR_SPLIT",
    "--main-gpu": "MAIN_GPU",
    "--override-tensor": "OVERRIDE_TENSOR",
    "--n-cpu-moe": "N_CPU_MOE",
    "--spec-type": "SPEC_TYPE",
    "--spec-draft-n-max": "SPEC_DRAFT_N_MAX",
    "--spec-draft-type-k": "SPEC_DRAFT_CACHE_TYPE_K",
    "--spec-draft-type-v": "SPEC_DRAFT_CACHE_TYPE_V",
    "--spec-draft-model": "SPEC_DRAFT_MODEL",
    "--spec-draft-ngl": "N_GPU_LAYERS_DRAFT",
    "--threads": "THREADS",
    "--cache-ram": "CACHE_RAM",
    "--ctx-checkpoints": "CTX_CHECKPOINTS",
    "--fit": "FIT",
    "--host": "HOST",
    "--port": "PORT",
    "--alias": "ALIAS",
    "--api-key-file": "API_KEY_FILE",
}
"""Options with a value; each variable begins with ``LLAMA_ARG_``."""

SWITCHES = {
    "--kv-unified": ("KV_UNIFIED", "true"),
    "--no-kv-unified": ("KV_UNIFIED", "false"),
    "--swa-full": ("SWA_FULL", "true"),
    "--no-repack": ("REPACK", "false"),
    "--cpu-moe": ("CPU_MOE", "true"),
    "--no-host": ("NO_HOST", "true"),
    "--no-kv-offload": ("KV_OFFLOAD", "false"),
    "--spec-draft-backend-sampling": ("SPEC_DRAFT_BACKEND_SAMPLING", "true"),
    "--no-mmproj": ("MMPROJ_AUTO", "false"),
    "--offline": ("OFFLINE", "true"),
}
"""Options without a value: the variable and what it is set to."""

EXTRA = {"--threads-batch": 1, "--no-op-offload": 0}
"""Options that have no variable, and how many words follow each."""

_BARE = re.compile(r"[A-Za-z0-9_./:,@%+=-]*")
_ESCAPED = re.compile(r'(["\\$`])')


def render(deployment: Deployment, options: ExportOptions) -> dict[str, str]:  # noqa: ARG001 - every format's signature
    """``NAME.env``; a control character is refused, because systemd's reader would not take it.

    What has no variable stands in ``LLAMA_EXTRA_ARGS``, plain words to be put on the command line.
    """
    variables, extra = _variables(deployment)
    lines = [
        f"# llama-server with {comment(deployment.model)} in {comment(deployment.quantization)}.",
        f"# For a shell (set -a; . ./{deployment.name}.env) and for EnvironmentFile= of systemd. Then start:",
        f"#   llama-server{' $LLAMA_EXTRA_ARGS' if extra else ''}",
    ]
    if any(_value(value) != value for value in variables.values()):
        lines.append("# Not for --env-file of Docker, which takes quotes for part of the value.")
    if extra:
        variables["LLAMA_EXTRA_ARGS"] = " ".join(extra)
    lines += [f"{name}={_value(value)}" for name, value in variables.items()]
    return {f"{deployment.name}.env": "\n".join(lines) + "\n"}


def _variables(deployment: Deployment) -> tuple[dict[str, str], list[str]]:
    """Each variable with its value, and the words that no variable can say."""
    variables, extra = dict(deployment.environment), []
    words = list(deployment.argv[1:])
    while words:
        flag = words.pop(0)
        if flag in VARIABLES:
            what = "the weights' path" if flag == "--model" else f"the value of {flag}"
            variables[f"LLAMA_ARG_{VARIABLES[flag]}"] = refuse(words.pop(0), CONTROLS, form="env", what=what)
        elif flag in SWITCHES:
            name, value = SWITCHES[flag]
            variables[f"LLAMA_ARG_{name}"] = value
        else:
            # A flag that a newer planner writes has no variable here and stays a word.
            following = EXTRA.get(flag, 1 if words and not words[0].startswith("--") else 0)
            extra += [_plain(word) for word in (flag, *(words.pop(0) for _ in range(following)))]
    return variables, extra


def _plain(word: str) -> str:
    """A word that no shell splits or replaces, for it stands on a command line without quotes."""
    bad = (each for each in word if not _BARE.fullmatch(each))
    return refuse(word, bad, form="env", what="an option without a variable", hint="export to script instead")


def _value(value: str) -> str:
    """A value as both readers take it: bare where it is plain, else in double quotes."""
    return value if _BARE.fullmatch(value) else '"' + _ESCAPED.sub(r"\\\1", value) + '"'
