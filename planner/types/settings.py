"""The llama.cpp settings of one deployment: the same struct goes to the estimator, the child, the plan and the command.

Keeping one struct prevents the classic drift: a memory estimate for one set of flags and a command line with another.
"""

from typing import Literal

from planner.types import Report

__all__ = [
    "CACHE_TYPES",
    "CacheType",
    "FlashAttention",
    "LazyMode",
    "LoadMode",
    "Settings",
    "Speculation",
    "SplitMode",
    "TensorOverride",
    "Waiting",
]

CacheType = Literal["f16", "bf16", "q8_0", "q5_1", "q5_0", "q4_1", "q4_0", "iq4_nl", "f32"]
CACHE_TYPES: tuple[CacheType, ...] = ("f16", "bf16", "q8_0", "q5_1", "q5_0", "q4_1", "q4_0", "iq4_nl", "f32")
FlashAttention = Literal["auto", "on", "off"]
LoadMode = Literal["none", "mmap", "mlock", "mmap+mlock", "dio"]
SplitMode = Literal["none", "layer", "row"]
LazyMode = Literal["auto", "on", "off"]
Waiting = Literal["passive", "default", "active"]
"""How OpenMP threads wait for one another: they sleep, they do as the runtime does by itself (GNU's spins a few
milliseconds, then sleeps), or they spin for minutes."""
Speculation = Literal["none", "draft-mtp", "draft-simple"]
TensorOverride = tuple[str, str]
"""A regular expression over tensor names and the buffer type for what it matches, as ``--override-tensor`` has them."""


class Settings(Report, frozen=True, kw_only=True):
    """Everything that changes what the engine allocates or how fast it runs.

    ``context_tokens`` is the whole context shared by ``parallel`` sequences (llama-server's ``--ctx-size``).
    ``swa_full`` keeps the whole context in layers that look back through a window only.
    ``outputs_max`` 0 means the engine's default (one per batch token), as ``llama_cpp.Llama`` uses it.
    ``lazy_mode`` leaves lookup tables in the file, read row by row: ``auto`` those over 4 GiB.
    ``gpu_layers`` −1 offloads all layers and the output; it means nothing where there is no GPU.
    ``main_gpu`` is the only one used when ``split_mode`` is ``none``. ``host_buffer`` lets weights that stay in RAM lie
    in memory pinned for the GPU. ``tensor_overrides`` go before ``cpu_moe_layers`` (−1: all), the first match counts.
    ``threads`` decode, ``threads_batch`` process prompts. ``openmp_wait`` is exported as
    ``OMP_WAIT_POLICY``, and not at all where the runtime is left alone.

    ``speculation`` drafts ``draft_tokens`` at a time: ``draft-mtp`` by the model's own block for it, ``draft-simple``
    by a second, small model. Either takes a context of its own, with the cache types and layers named ``draft_…``.

    ``cache_ram_mib`` and ``checkpoints`` (for each sequence) are what llama-server may keep beside its slots: saved
    prompts and states to go back to. The default is none, where llama-server's own is 8192 MiB and 32.
    """

    context_tokens: int
    parallel: int = 1
    kv_unified: bool = False
    swa_full: bool = False
    cache_type_k: CacheType = "f16"
    cache_type_v: CacheType = "f16"
    flash_attention: FlashAttention = "auto"
    batch: int = 2048
    ubatch: int = 512
    outputs_max: int = 0
    load_mode: LoadMode = "mmap"
    lazy_mode: LazyMode = "auto"
    repack: bool = True
    host_buffer: bool = True
    gpu_layers: int = -1
    split_mode: SplitMode = "layer"
    main_gpu: int = 0
    tensor_split: tuple[float, ...] = ()
    tensor_overrides: tuple[TensorOverride, ...] = ()
    cpu_moe_layers: int = 0
    kv_offload: bool = True
    op_offload: bool = True
    speculation: Speculation = "none"
    draft_tokens: int = 3
    draft_cache_type_k: CacheType = "f16"
    draft_cache_type_v: CacheType = "f16"
    draft_gpu_layers: int = -1
    cache_ram_mib: int = 0
    checkpoints: int = 0
    threads: int = 1
    threads_batch: int = 1
    openmp_wait: Waiting = "passive"
