"""Settings as the command line of ``llama-server``: every flag that changes memory or speed is written out.

It prevents two drifts. llama-server's own defaults move between builds and allocate on their own (a prompt cache of
up to 8 GiB, four slots, context checkpoints, ``--fit`` rewriting what we planned), so nothing is left to a default.
And a command line is data: an argv tuple, quoted only where a person reads it.

Flag names: ``common/arg.cpp`` of llama.cpp at commit 0c1e57098.
"""

import shlex
from collections.abc import Mapping, Sequence

from planner.types.settings import Settings

__all__ = ["argv", "environment", "shell_lines"]


def argv(
    settings: Settings,
    *,
    weights_file: str,
    offload: bool,
    yarn: tuple[int, int] | None = None,
    reasoning: bool | None = None,
    draft_file: str | None = None,
) -> tuple[str, ...]:
    """The argv of ``llama-server`` for these settings and this GGUF file.

    ``offload`` says whether a GPU takes part; without it ``--device none`` keeps a build that has one to the CPU, as
    planned. ``yarn`` is the scale and the original context where the model must be stretched to reach the planned one.
    ``reasoning`` switches the thinking of a hybrid model on or off; ``None`` leaves it to the template. ``draft_file``
    is the GGUF of the small model that drafts; with ``draft-simple`` it must be given.
    """
    return (
        "llama-server",
        *("--model", weights_file),
        *_context(settings, yarn),
        *(() if reasoning is None else ("--reasoning", "on" if reasoning else "off")),
        *_loading(settings),
        *(_gpu(settings) if offload else ("--device", "none")),
        *_speculation(settings, draft_file, offload=offload),
        *("--threads", str(settings.threads), "--threads-batch", str(settings.threads_batch)),
        # Memory that llama-server would take on its own, beyond what was planned.
        *("--cache-ram", str(settings.cache_ram_mib), "--ctx-checkpoints", str(settings.checkpoints), "--fit", "off"),
        # Loopback only: this server has no key, and a plan must not open a machine to its network.
        *("--host", "127.0.0.1", "--port", "8080"),
    )


def environment(settings: Settings) -> dict[str, str]:
    """The environment that belongs to the command: how OpenMP threads wait, where that is not left to the runtime."""
    return {} if settings.openmp_wait == "default" else {"OMP_WAIT_POLICY": settings.openmp_wait}


def shell_lines(command: Sequence[str], variables: Mapping[str, str], *, width: int, indent: str) -> list[str]:
    r"""The command as lines for a POSIX shell, broken before flags with ``\``; pasted, it is exactly this argv."""
    words = [f"{name}={shlex.quote(value)}" for name, value in sorted(variables.items())]
    words += [shlex.quote(word) for word in command]
    groups: list[str] = []
    for word in words:
        if groups and not word.startswith("-") and groups[-1].startswith("-"):
            groups[-1] += f" {word}"
        else:
            groups.append(word)
    lines = [indent]
    for group in groups:
        if len(lines[-1]) + len(group) + 3 > width and lines[-1].strip():
            lines[-1] += "\\"
            lines.append(f"{indent}  ")
        lines[-1] += f"{group} "
    return [line.rstrip() for line in lines]


def _context(settings: Settings, yarn: tuple[int, int] | None) -> tuple[str, ...]:
    flags = [
        *("--ctx-size", str(settings.context_tokens), "--parallel", str(settings.parallel)),
        "--kv-unified" if settings.kv_unified else "--no-kv-unified",
        *("--cache-type-k", settings.cache_type_k, "--cache-type-v", settings.cache_type_v),
        *("--flash-attn", settings.flash_attention),
        *("--batch-size", str(settings.batch), "--ubatch-size", str(settings.ubatch)),
    ]
    if settings.swa_full:
        flags.append("--swa-full")
    if yarn is not None:
        scale, original = yarn
        flags += ["--rope-scaling", "yarn", "--rope-scale", str(scale), "--yarn-orig-ctx", str(original)]
    return tuple(flags)


def _loading(settings: Settings) -> tuple[str, ...]:
    flags = ["--load-mode", settings.load_mode]
    if settings.lazy_mode != "auto":
        flags += ["--lazy-mode", settings.lazy_mode]
    if not settings.repack:
        flags.append("--no-repack")
    return tuple(flags)


def _gpu(settings: Settings) -> tuple[str, ...]:
    layers = "all" if settings.gpu_layers < 0 else str(settings.gpu_layers)
    flags = ["--n-gpu-layers", layers, "--split-mode", settings.split_mode]
    if settings.tensor_split:
        flags += ["--tensor-split", ",".join(f"{share:g}" for share in settings.tensor_split)]
    if settings.split_mode == "none" or settings.main_gpu:
        flags += ["--main-gpu", str(settings.main_gpu)]
    if settings.tensor_overrides:
        # The first pattern that matches counts, so these stand before the experts.
        flags += ["--override-tensor", ",".join(f"{pattern}={name}" for pattern, name in settings.tensor_overrides)]
    if settings.cpu_moe_layers:
        flags += ["--cpu-moe"] if settings.cpu_moe_layers < 0 else ["--n-cpu-moe", str(settings.cpu_moe_layers)]
    if not settings.host_buffer:
        flags.append("--no-host")
    if not settings.kv_offload:
        flags.append("--no-kv-offload")
    if not settings.op_offload:
        flags.append("--no-op-offload")
    return tuple(flags)


def _speculation(settings: Settings, draft_file: str | None, *, offload: bool) -> tuple[str, ...]:
    if settings.speculation == "none":
        return ()
    flags = ["--spec-type", settings.speculation, "--spec-draft-n-max", str(settings.draft_tokens)]
    flags += ["--spec-draft-type-k", settings.draft_cache_type_k, "--spec-draft-type-v", settings.draft_cache_type_v]
    if settings.speculation == "draft-mtp":
        flags.append("--spec-draft-backend-sampling")
    else:
        if draft_file is None:
            raise ValueError("draft-simple needs the file of the model that drafts")
        flags += ["--spec-draft-model", draft_file]
        if offload:
            layers = "all" if settings.draft_gpu_layers < 0 else str(settings.draft_gpu_layers)
            flags += ["--spec-draft-ngl", layers]
    return tuple(flags)
