"""Reads the engine's own account of its memory: bytes of weights, cache and compute for each buffer type.

``llama_get_memory_breakdown`` gives the sizes as integers where the log rounds to 0.01 MiB. It returns a C++
``std::map``; :func:`read_map` walks its tree, for libstdc++ and libc++, and what a context answers is checked against
its log, so that a changed ABI is noticed instead of believed.
"""

from __future__ import annotations

import ctypes
import re
import sys
from collections.abc import Sequence
from typing import Any

from errors import Refused
from llama import Engine  # noqa: TC002 - plain files import each other by bare name, at run time

__all__ = ["BREAKDOWN", "MODEL_BREAKDOWN", "breakdown", "read_map"]

BREAKDOWN = "_Z26llama_get_memory_breakdownPK13llama_context"
MODEL_BREAKDOWN = "_ZNK11llama_model16memory_breakdownEv"


class _Map(ctypes.Structure):
    """Room for a returned std::map; larger than 16 bytes, so that both ABIs return it through memory."""

    _fields_ = [("word", ctypes.c_uint64 * 6)]


def breakdown(eng: Engine, context: Any, lines: Sequence[str]) -> list[dict[str, Any]]:
    """Buffer types of a context with their bytes of model, context and compute; ``lines`` is what it logged."""
    buffers = [
        {
            "name": str(eng.ggml.ggml_backend_buft_name(buft).decode()),
            "host": bool(eng.ggml.ggml_backend_buft_is_host(buft)),
            "model_bytes": sizes[0],
            "context_bytes": sizes[1],
            "compute_bytes": sizes[2],
        }
        for buft, sizes in read_map(eng.llama, BREAKDOWN, context, 3)
    ]
    _cross_check(buffers, lines)
    return buffers


def read_map(library: Any, symbol: str, owner: Any, values: int) -> list[tuple[int, list[int]]]:
    """Call ``symbol(owner)`` and read the returned std::map of pointer → ``values`` size_t.

    libstdc++: {pad, color, root, leftmost, rightmost, count}, node {color, parent, left, right, pair};
    libc++: {begin, root, count}, node {left, right, parent, color, pair}. Both put the pair at byte 32.
    """
    try:
        function = getattr(library, symbol)
    except AttributeError:
        raise Refused("this llama.cpp build does not tell its memory; use llama-cpp-python 0.3.36 or newer") from None
    function.restype, function.argtypes = _Map, [ctypes.c_void_p]
    returned = function(owner)
    apple = sys.platform == "darwin"
    root, expected = (returned.word[1], returned.word[2]) if apple else (returned.word[2], returned.word[5])
    left, right = (0, 1) if apple else (2, 3)
    found: list[tuple[int, list[int]]] = []
    pending = [root] if root else []
    while pending:
        node = (ctypes.c_uint64 * (5 + values)).from_address(pending.pop())
        found.append((node[4], list(node[5 : 5 + values])))
        pending.extend(child for child in (node[left], node[right]) if child)
        if len(found) > expected:
            raise Refused("the engine's memory answer has an unknown layout; use llama-cpp-python 0.3.36 or newer")
    return sorted(found)


def _cross_check(buffers: Sequence[dict[str, Any]], lines: Sequence[str]) -> None:
    """Compare with the log: compute sizes stand there rounded, so a misread map cannot pass unseen."""
    told = {match[1]: float(match[2]) for line in lines if (match := _COMPUTE.search(line))}
    for name, logged in told.items():
        read = sum(each["compute_bytes"] for each in buffers if each["name"] == name) / (1 << 20)
        if abs(read - logged) > 0.011:
            raise Refused(f"the engine contradicts itself: {name} compute {read:.2f} MiB, its log says {logged}")


_COMPUTE = re.compile(r"(\S+) compute buffer size = +([\d.]+) MiB")
