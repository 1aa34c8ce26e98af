"""The llama.cpp settings of one deployment: the same struct goes to the estimator, the child, the plan and the command.

Keeping one struct prevents the classic drift: a memory estimate for one set of flags and a command line with another.
"""

from typing import Literal

from planner.types import Report

__all__ = ["CACHE_TYPES", "CacheType", "FlashAttention", "LoadMode", "Settings", "SplitMode"]

CacheType = Literal["f16", "bf16", "q8_0", "q5_1", "q5_0", "q4_1", "q4_0", "iq4_nl", "f32"]
CACHE_TYPES: tuple[CacheType, ...] = ("f16", "bf16", "q8_0", "q5_1", "q5_0", "q4_1", "q4_0", "iq4_nl", "f32")
FlashAttention = Literal["auto", "on", "off"]
LoadMode = Literal["none", "mmap", "mlock", "mmap+mlock", "dio"]
SplitMode = Literal["none", "layer", "row"]


class Settings(Report, frozen=True, kw_only=True):
    """Everything that changes what the engine allocates or how fast it runs.

    ``context_tokens`` is the whole context shared by ``parallel`` sequences (llama-server's ``--ctx-size``).
    ``outputs_max`` 0 means the engine's default (one per batch token), as ``llama_cpp.Llama`` uses it.
    ``gpu_layers`` −1 offloads all layers and the output; it means nothing where there is no GPU.
    ``threads`` decode, ``threads_batch`` process prompts. ``openmp_wait`` is exported as ``OMP_WAIT_POLICY``.
    """

    context_tokens: int
    parallel: int = 1
    kv_unified: bool = False
    cache_type_k: CacheType = "f16"
    cache_type_v: CacheType = "f16"
    flash_attention: FlashAttention = "auto"
    batch: int = 2048
    ubatch: int = 512
    outputs_max: int = 0
    load_mode: LoadMode = "mmap"
    repack: bool = True
    gpu_layers: int = -1
    split_mode: SplitMode = "layer"
    tensor_split: tuple[float, ...] = ()
    cpu_moe_layers: int = 0
    kv_offload: bool = True
    op_offload: bool = True
    threads: int = 1
    threads_batch: int = 1
    openmp_wait: Literal["active", "passive"] = "passive"
