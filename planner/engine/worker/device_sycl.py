"""What the sycl backend says of itself, as far as memory depends on it."""

from __future__ import annotations

from typing import Any

from device_cuda import batch_size
from devices import Caps, Rules
from tensors import Tensors  # noqa: TC002 - plain files import each other by bare name, at run time

__all__ = ["rules"]


def rules(tensors: Tensors, spec: dict[str, Any]) -> Rules:
    """The rules of one device."""
    integrated = bool(spec.get("integrated"))
    batch = batch_size(tensors)
    return Rules(
        prefix="SYCL",
        host="SYCL_Host",
        alignment=128,
        caps=Caps(True, host_buffer=True, buffer_from_host_pointer=False, events=False, mmap=not integrated),
        supports=lambda _op: True,
        offloads=lambda op: batch(op) >= 32,
    )
