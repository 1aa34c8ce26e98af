"""Settings as a Python snippet for ``llama_cpp.Llama``, with a comment for each setting that the class cannot express.

``Llama()`` on its own decodes with half the cores, a context of 512 and no flash attention; every argument that
matters is therefore written out. Argument names: the signature of ``llama_cpp.Llama`` in llama-cpp-python 0.3.36,
which a test checks against the installed package.
"""

from planner.types.settings import CacheType, Settings

__all__ = ["arguments", "snippet"]


def arguments(settings: Settings, *, offload: bool) -> dict[str, str]:
    """Keyword arguments of ``Llama`` and their values as Python source."""
    given = {
        # The class serves one sequence: its context is one user's share.
        "n_ctx": str(settings.context_tokens // settings.parallel),
        "n_batch": str(settings.batch),
        "n_ubatch": str(settings.ubatch),
        "n_threads": str(settings.threads),
        "n_threads_batch": str(settings.threads_batch),
        "type_k": _ggml_type(settings.cache_type_k),
        "type_v": _ggml_type(settings.cache_type_v),
        "flash_attn": str(settings.flash_attention != "off"),
        "use_mmap": str("mmap" in settings.load_mode),
        "use_mlock": str("mlock" in settings.load_mode),
        # Only where layers look back through a window: without this their cache holds the whole context.
        "swa_full": str(settings.swa_full),
        "n_gpu_layers": str(settings.gpu_layers) if offload else "0",
    }
    if offload:
        given["main_gpu"] = str(settings.main_gpu)
        given["split_mode"] = f"llama_cpp.LLAMA_SPLIT_MODE_{settings.split_mode.upper()}"
        given["offload_kqv"] = str(settings.kv_offload)
        given["op_offload"] = str(settings.op_offload)
        if settings.tensor_split:
            given["tensor_split"] = repr(list(settings.tensor_split))
    return given


def _ggml_type(cache_type: CacheType) -> str:
    """The constant of a cache type; the binding has no name for BF16, which is 30 in ``ggml.h``."""
    return "30" if cache_type == "bf16" else f"llama_cpp.GGML_TYPE_{cache_type.upper()}"


def snippet(settings: Settings, *, weights_file: str, offload: bool, yarn: tuple[int, int] | None = None) -> str:
    """A complete Python program that loads the weights with these settings and asks one question."""
    given = arguments(settings, offload=offload)
    if yarn is not None:
        scale, original = yarn
        given["rope_scaling_type"] = "llama_cpp.LLAMA_ROPE_SCALING_TYPE_YARN"
        # The class takes the inverse of llama-server's --rope-scale.
        given["rope_freq_scale"] = f"1 / {scale}"
        given["yarn_orig_ctx"] = str(original)
    waits = f'os.environ["OMP_WAIT_POLICY"] = "{settings.openmp_wait}"  # read when llama_cpp is imported'
    return "\n".join(
        [
            *(() if settings.openmp_wait == "default" else ("import os", "", waits)),
            "import llama_cpp",
            "",
            *(f"# {line}" for line in _differences(settings, offload=offload)),
            "llm = llama_cpp.Llama(",
            f"    model_path={weights_file!r},",
            *(f"    {name}={value}," for name, value in given.items()),
            ")",
            'answer = llm.create_chat_completion(messages=[{"role": "user", "content": "Hello!"}])',
            'print(answer["choices"][0]["message"]["content"])',
            "",
        ]
    )


def _differences(settings: Settings, *, offload: bool) -> list[str]:
    """What the plan says and ``Llama`` cannot do, each as one sentence."""
    checks = (
        (settings.parallel > 1, f"One sequence here; the plan's {settings.parallel} at a time need llama-server."),
        ("bf16" in (settings.cache_type_k, settings.cache_type_v), "Type 30 is BF16, which llama_cpp has no name for."),
        (settings.load_mode == "dio", "Direct I/O is not offered here; the file is read the ordinary way."),
        (not settings.repack, "Repacking cannot be switched off here: expect a second copy of some weights."),
        (
            offload and settings.cpu_moe_layers != 0,
            "Experts cannot be kept on the CPU here: with this many layers on the GPU use llama-server.",
        ),
        (
            offload and bool(settings.tensor_overrides),
            "Single tensors cannot be placed here: for the planned placement use llama-server.",
        ),
        (
            offload and not settings.host_buffer,
            "Pinned memory for weights in RAM cannot be switched off here: the planned repacking needs llama-server.",
        ),
        (settings.lazy_mode != "auto", f"Lazy mode {settings.lazy_mode} is not offered here: it is auto."),
        (settings.speculation != "none", "Drafting by a model is not offered here: it needs llama-server."),
    )
    return [sentence for holds, sentence in checks if holds]
