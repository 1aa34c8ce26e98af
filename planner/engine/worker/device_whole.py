"""A device that computes everything, so that a graph is shown to it whole.

No such card exists. The CPU's own backend sees a graph only when it computes it; where the work space of its kernels is
to be planned before, this device stands in for it. The mistake to prevent is planning for the parts of a graph that
another backend's rules would leave.
"""

from __future__ import annotations

from typing import Any

from devices import Caps, Rules
from tensors import Tensors  # noqa: TC002 - plain files import each other by bare name, at run time

__all__ = ["rules"]

_ALIGNMENT_BYTES = 32  # TENSOR_ALIGNMENT: the CPU's


def rules(_tensors: Tensors, _spec: dict[str, Any]) -> Rules:
    """The rules of the stand-in: all is computed, nothing is wanted from host memory."""
    return Rules(
        prefix="Whole",
        host=None,
        alignment=_ALIGNMENT_BYTES,
        caps=Caps(True, host_buffer=False, buffer_from_host_pointer=False, events=False),
        supports=lambda _op: True,
        offloads=lambda _op: False,
    )
