"""Tells what this engine is: versions, a fingerprint of its libraries, its devices and what it costs to be alive."""

from __future__ import annotations

import ctypes
import hashlib
import os
import sys
from collections.abc import Callable
from typing import Any

import resident
from llama import Engine, engine

__all__ = ["describe"]

_WHOLE_LIMIT_BYTES = 16 << 20
_KINDS = {0: "cpu", 1: "gpu", 2: "igpu", 3: "accel"}


def describe(_args: dict[str, Any], _emit: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
    """Versions, build fingerprint, system info, devices, and this process's own resident bytes."""
    eng = engine()
    idle = resident.resident_bytes()  # before the libraries are read through for their fingerprint
    return {
        "package_version": eng.package_version,
        "build": _fingerprint(eng),
        "llama_cpp": _text(eng, "ggml_commit"),
        "ggml": _text(eng, "ggml_version"),
        "system_info": eng.api.llama_print_system_info().decode().strip(),
        "gpu_offload": bool(eng.api.llama_supports_gpu_offload()),
        "devices": _devices(eng),
        "python": sys.version.split()[0],
        "process_bytes": idle,
    }


def _text(eng: Engine, name: str) -> str | None:
    try:
        return str(getattr(eng.ggml, name)().decode())
    except AttributeError:
        return None


def _fingerprint(eng: Engine) -> str:
    """Hash of the shared libraries; of a very large one (a CUDA build) only its length and both ends are read."""
    digest = hashlib.sha256(eng.package_version.encode())
    for path in sorted(eng.folder.iterdir()):
        if path.is_symlink() or not path.name.startswith("lib"):
            continue
        with path.open("rb") as file:
            length = os.fstat(file.fileno()).st_size
            digest.update(f"{path.name}:{length}".encode())
            if length <= _WHOLE_LIMIT_BYTES:
                digest.update(file.read())
            else:
                digest.update(file.read(_WHOLE_LIMIT_BYTES // 8))
                file.seek(-_WHOLE_LIMIT_BYTES // 8, os.SEEK_END)
                digest.update(file.read())
    return digest.hexdigest()[:16]


def _devices(eng: Engine) -> list[dict[str, Any]]:
    devices = []
    for index in range(eng.backends.ggml_backend_dev_count()):
        device = eng.backends.ggml_backend_dev_get(index)
        free, total = ctypes.c_size_t(), ctypes.c_size_t()
        eng.ggml.ggml_backend_dev_memory(device, ctypes.byref(free), ctypes.byref(total))
        kind = _KINDS.get(eng.ggml.ggml_backend_dev_type(device), "other")
        devices.append(
            {
                "name": eng.ggml.ggml_backend_dev_name(device).decode("utf-8", "replace"),
                "description": eng.ggml.ggml_backend_dev_description(device).decode("utf-8", "replace").strip(),
                "kind": kind,
                "memory_total_bytes": total.value or None,
                # ggml reports the CPU's free memory as its total (its own source says so): that is no fact.
                "memory_free_bytes": None if kind == "cpu" else min(free.value, total.value),
            }
        )
    return devices
