"""The GPUs of a machine that is not here, as the engine's child is told of them.

The mistake it prevents: answering for somebody else's machine with this engine's own devices.
"""

import hashlib
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from planner.types import Report
from planner.types.machine import Backend, Gpu

__all__ = ["HOST", "PhantomDevice", "device_names", "device_of", "phantom_devices", "rules_mark"]

_WORKER = Path(__file__).parent / "worker"

HOST = "CPU"
"""The device that holds what is in RAM."""
_SECOND_COPIES = ("AMX",)
_PREFIXES: dict[Backend, str] = {"cuda": "CUDA", "rocm": "ROCm", "vulkan": "Vulkan", "sycl": "SYCL", "metal": "MTL"}
"""What llama.cpp calls the devices of a backend, numbered from 0."""


class PhantomDevice(Report, frozen=True, kw_only=True):
    """One device for the engine to plan with; ``free_bytes`` decides how layers are split where nobody says.

    ``integrated`` devices use the host's memory. ``compute_capability`` (CUDA) decides which attention kernel runs.
    Without ``fusion`` the backend joins no operations (``GGML_CUDA_DISABLE_FUSION=1``, or a build before August 2026)
    and keeps no memory for that. Without ``attention_scratch`` the f16 copies of a quantized cache are not part of the
    compute buffer: builds before June 2026 took them from a pool as they went, on top of it.
    """

    backend: Backend
    free_bytes: int
    total_bytes: int
    integrated: bool = False
    compute_capability: str | None = None
    fusion: bool = True
    attention_scratch: bool = True


def phantom_devices(gpus: Sequence[Gpu]) -> tuple[PhantomDevice, ...]:
    """The devices of ``gpus``, in their order; memory that is unknown counts as nothing free."""
    return tuple(
        PhantomDevice(
            backend=gpu.backend,
            free_bytes=gpu.memory_free_bytes or gpu.memory_total_bytes or 0,
            total_bytes=gpu.memory_total_bytes or 0,
            integrated=gpu.unified_memory,
            compute_capability=gpu.compute_capability,
        )
        for gpu in gpus
    )


def device_names(gpus: Sequence[Gpu]) -> tuple[str, ...]:
    """What the engine calls each of ``gpus``: as it listed them, else by backend and order."""
    counts: dict[str, int] = {}
    names = []
    for gpu in gpus:
        prefix = _PREFIXES.get(gpu.backend, gpu.backend.upper())
        names.append(gpu.engine_device or f"{prefix}{counts.get(prefix, 0)}")
        counts[prefix] = counts.get(prefix, 0) + 1
    return tuple(names)


def device_of(buffer: str) -> str:
    """The device that holds a buffer type of the engine: pinned and repacked memory is the host's.

    ``CUDA_Host`` and ``CPU_REPACK`` → ``CPU``, ``MTL0_Mapped`` → ``MTL0``.
    """
    if buffer.startswith(HOST) or buffer.endswith("_Host") or buffer in _SECOND_COPIES:
        return HOST
    return buffer.removesuffix("_Mapped")


@cache
def rules_mark() -> str:
    """What tells one set of the backends' rules from another: an answer kept under older rules is asked again."""
    digest = hashlib.sha256()
    for path in sorted(_WORKER.glob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:8]
