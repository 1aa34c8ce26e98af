"""Settings as the configuration file of llama-cpp-python's server, and what of a plan that server cannot do.

Left alone it keeps the logits of the whole context (2.4 GB for 4,096 tokens of a large vocabulary), cuts off one
answer as soon as another is asked for, and decodes with half the cores. Names and defaults:
``llama_cpp/server/settings.py`` of llama-cpp-python 0.3.36, which a test checks against the installed package.
"""

from collections.abc import Mapping

from planner.gguf.ggml_types import TYPES
from planner.types.settings import Settings

__all__ = ["server_config", "server_differences"]

_SPLIT_MODES = {"none": 0, "layer": 1, "row": 2}  # llama_split_mode in llama.h


def server_config(
    settings: Settings,
    *,
    weights_file: str,
    name: str,
    host: str,
    port: int,
    offload: bool,
    yarn: tuple[int, int] | None = None,
    thinking: bool | None = None,
    api_key: str | None = None,
) -> dict[str, object]:
    """The document for ``python -m llama_cpp.server --config_file``; ``yarn`` and ``thinking`` as for llama-server."""
    model: dict[str, object] = {
        "model": weights_file,
        "model_alias": name,
        # One sequence is served: its context is one user's share.
        "n_ctx": settings.context_tokens // settings.parallel,
        "n_batch": settings.batch,
        "n_ubatch": settings.ubatch,
        "n_threads": settings.threads,
        "n_threads_batch": settings.threads_batch,
        "type_k": TYPES[settings.cache_type_k.upper()].number,
        "type_v": TYPES[settings.cache_type_v.upper()].number,
        "flash_attn": settings.flash_attention != "off",
        "use_mmap": "mmap" in settings.load_mode,
        "use_mlock": "mlock" in settings.load_mode,
        "n_gpu_layers": settings.gpu_layers if offload else 0,
        "logits_all": False,
        "cache": False,
        "verbose": False,
        **(_gpu(settings) if offload else {}),
        **_stretched(yarn),
    }
    if thinking is not None:
        model["chat_template_kwargs"] = {"enable_thinking": thinking}
    whole: dict[str, object] = {"host": host, "port": port, "interrupt_requests": False, "models": [model]}
    return whole if api_key is None else {**whole, "api_key": api_key}


def server_differences(settings: Settings, *, offload: bool) -> tuple[str, ...]:
    """What the plan says and this server cannot do, each as one sentence; empty when it does all of it."""
    checks = (
        (settings.parallel > 1, f"it answers one request at a time, the plan wants {settings.parallel}"),
        (settings.load_mode == "dio", "it reads the file the ordinary way, not by direct I/O"),
        (not settings.repack, "it repacks weights, the plan does not"),
        (settings.swa_full, "it keeps only the window where layers look back through one"),
        (bool(settings.cache_ram_mib or settings.checkpoints), "it keeps no earlier prompts beside the current one"),
        (settings.speculation != "none", "it does not draft"),
        (offload and bool(settings.cpu_moe_layers or settings.tensor_overrides), "it cannot place single tensors"),
        (offload and not settings.host_buffer, "it pins the memory of weights that stay in RAM"),
        (settings.lazy_mode != "auto", f"its lazy mode is auto, not {settings.lazy_mode}"),
    )
    return tuple(sentence for holds, sentence in checks if holds)


def _gpu(settings: Settings) -> Mapping[str, object]:
    given: dict[str, object] = {
        "main_gpu": settings.main_gpu,
        "split_mode": _SPLIT_MODES[settings.split_mode],
        "offload_kqv": settings.kv_offload,
    }
    return {**given, "tensor_split": list(settings.tensor_split)} if settings.tensor_split else given


def _stretched(yarn: tuple[int, int] | None) -> Mapping[str, object]:
    if yarn is None:
        return {}
    scale, original = yarn
    # 2 is LLAMA_ROPE_SCALING_TYPE_YARN; the scale is the inverse of llama-server's --rope-scale.
    return {"rope_scaling_type": 2, "rope_freq_scale": 1 / scale, "yarn_orig_ctx": original}
