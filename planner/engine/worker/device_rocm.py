"""What ROCm says of itself: CUDA's source built for AMD (``ggml-hip``), of llama.cpp at commit 0c1e57098.

The mistake it prevents: believing that AMD's cards have rules of their own. They have CUDA's; other names, a limit on
what is sorted, and another choice of attention kernel are all that differs.
"""

from __future__ import annotations

import re
from typing import Any

from cuda_attention import Card
from device_cuda import rules_of_source
from devices import Rules  # noqa: TC002 - plain files import each other by bare name, at run time
from tensors import Tensors  # noqa: TC002 - as above

__all__ = ["rules"]

_MATRIX_CORES = (
    (re.compile(r"gfx(908|90a|94\w|95\w)"), "mfma"),  # CDNA
    (re.compile(r"gfx1[12]\w\w"), "wmma"),  # RDNA3, RDNA4
)


def rules(tensors: Tensors, spec: dict[str, Any]) -> Rules:
    """The rules of one card; ``spec`` may hold its architecture (``gfx1100``) as its ``compute_capability``."""
    told = str(spec.get("compute_capability") or "")
    cores = next((name for pattern, name in _MATRIX_CORES if pattern.match(told)), None)
    return rules_of_source(tensors, Card(0, cores), prefix="ROCm", spec=spec, hip=True)
