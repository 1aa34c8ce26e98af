"""Tells the caches of a context apart: full attention, sliding window, recurrent state, indexer, each by buffer type.

The engine's breakdown sums a context's memory per buffer type, and its log rounds. But every cache object can be asked
for its own breakdown, and every object that holds several has a getter for each. Which class an object is of says its
virtual table. The mistake this prevents is a formula for each kind of cache, wrong with the next architecture: a class
that is not known here, or parts that do not add up to the whole, are told as ``None``.

Source of the class and getter names: ``src/llama-kv-cache*.h``, ``src/llama-memory-*.h`` of llama.cpp, commit
0c1e57098. Names are mangled as the Itanium ABI has it (Linux, macOS).
"""

from __future__ import annotations

import ctypes
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from breakdown import read_map
from llama import Engine  # noqa: TC002 - plain files import each other by bare name, at run time

__all__ = ["caches"]

_KV, _ISWA, _RECURRENT = "llama_kv_cache", "llama_kv_cache_iswa", "llama_memory_recurrent"
_DSA, _MSA, _DSV4, _STATE = "llama_kv_cache_dsa", "llama_kv_cache_msa", "llama_kv_cache_dsv4", "llama_dsv4_comp_state"
_HYBRID, _HYBRID_ISWA, _HYBRID_INDEXED = "llama_memory_hybrid", "llama_memory_hybrid_iswa", "llama_memory_hybrid_idx"


class _Part(NamedTuple):
    """A getter of a class: the class that declares it, its name, the class it returns, what that keeps."""

    owner: str
    getter: str
    returns: str
    kind: str


# A part without a kind of its own has the kind of the whole that it is in.
_PARTS: dict[str, tuple[_Part, ...]] = {
    _ISWA: (_Part(_ISWA, "get_base", _KV, ""), _Part(_ISWA, "get_swa", _KV, "window")),
    _DSA: (_Part(_DSA, "get_mla", _KV, ""), _Part(_DSA, "get_lid", _KV, "indexer")),
    _MSA: (_Part(_MSA, "get_base", _KV, ""), _Part(_MSA, "get_idx", _KV, "indexer")),
    "llama_kv_cache_dsa_iswa": (
        _Part("llama_kv_cache_dsa_iswa", "get_dsa", _DSA, ""),
        _Part("llama_kv_cache_dsa_iswa", "get_swa", _KV, "window"),
    ),
    _DSV4: (
        _Part(_DSV4, "get_raw", _ISWA, ""),
        _Part(_DSV4, "get_csa", _KV, "compressed"),
        _Part(_DSV4, "get_hca", _KV, "compressed"),
        _Part(_DSV4, "get_lid", _KV, "indexer"),
        _Part(_DSV4, "get_csa_state", _STATE, "compressor"),
        _Part(_DSV4, "get_hca_state", _STATE, "compressor"),
        _Part(_DSV4, "get_lid_state", _STATE, "compressor"),
    ),
    _HYBRID: (_Part(_HYBRID, "get_mem_attn", _KV, ""), _Part(_HYBRID, "get_mem_recr", _RECURRENT, "recurrent")),
    _HYBRID_ISWA: (
        _Part(_HYBRID_ISWA, "get_mem_attn", _ISWA, ""),
        _Part(_HYBRID_ISWA, "get_mem_recr", _RECURRENT, "recurrent"),
    ),
    _HYBRID_INDEXED: (
        _Part(_HYBRID, "get_mem_attn", _KV, ""),
        _Part(_HYBRID, "get_mem_recr", _RECURRENT, "recurrent"),
        _Part(_HYBRID_INDEXED, "get_mem_idx", _KV, "indexer"),
    ),
}
_CLASSES = (_KV, _RECURRENT, *_PARTS)


class _Vector(ctypes.Structure):
    """A returned std::vector<uint32_t>: begin, end, end of the room."""

    _fields_ = [("begin", ctypes.c_void_p), ("end", ctypes.c_void_p), ("room", ctypes.c_void_p)]


class _Cache(NamedTuple):
    """One cache that is no bundle of others."""

    kind: str
    of_class: str
    address: int


def caches(eng: Engine, context: Any, lines: Sequence[str], expected: dict[str, int]) -> list[dict[str, Any]] | None:
    """The caches of a context; ``None`` where this build does not say or contradicts itself.

    Each is ``{"kind", "buffers", "cells", "streams", "layers", "key_bytes", "value_bytes"}``: bytes per buffer type,
    cells of each stream, the layers' numbers. A recurrent state has no layer numbers and its cells come from the
    engine's log (``lines``); what is not known is ``None``. ``expected`` are the bytes of the whole per buffer type.
    """
    try:
        top = _top(eng, context)
        found = [] if top is None else [_told(eng, each, lines) for each in _leaves(eng, top)]
    except (AttributeError, ValueError):
        return None  # a symbol or a class that this build does not have
    total: Counter[str] = Counter()
    for each in found:
        total.update(each["buffers"])
    if +total != +Counter(expected):
        return None
    return [each for each in found if any(each["buffers"].values())]


def _top(eng: Engine, context: Any) -> _Cache | None:
    get = eng.llama.llama_get_memory
    get.restype, get.argtypes = ctypes.c_void_p, [ctypes.c_void_p]
    address = get(context)
    if not address:
        return None
    table = ctypes.c_void_p.from_address(address).value
    for name in _CLASSES:
        # Behind the offset to the top and the type's description the virtual functions begin.
        start = ctypes.addressof(ctypes.c_char.in_dll(eng.llama, f"_ZTV{len(name)}{name}")) + 16
        if table == start:
            return _Cache("recurrent" if name == _RECURRENT else "attention", name, address)
    raise ValueError("a cache of a class that is not known here")


def _leaves(eng: Engine, whole: _Cache) -> Iterator[_Cache]:
    if whole.of_class not in _PARTS:
        yield whole
        return
    for part in _PARTS[whole.of_class]:
        address = _method(eng, part.owner, part.getter, ctypes.c_void_p)(whole.address)
        if address:
            yield from _leaves(eng, _Cache(part.kind or whole.kind, part.returns, address))


def _told(eng: Engine, cache: _Cache, lines: Sequence[str]) -> dict[str, Any]:
    symbol = _symbol(cache.of_class, "memory_breakdown")
    buffers: Counter[str] = Counter()
    for buft, sizes in read_map(eng.llama, symbol, cache.address, 1):
        buffers[str(eng.ggml.ggml_backend_buft_name(buft).decode())] += sizes[0]
    told: dict[str, Any] = {"kind": cache.kind, "buffers": dict(buffers), "cells": None, "streams": None}
    told.update(layers=None, key_bytes=None, value_bytes=None)
    if cache.of_class == _KV:
        told["cells"] = _method(eng, _KV, "get_size", ctypes.c_uint32)(cache.address)
        told["streams"] = _method(eng, _KV, "get_n_stream", ctypes.c_uint32)(cache.address)
        told["key_bytes"] = _method(eng, _KV, "size_k_bytes", ctypes.c_size_t)(cache.address)
        told["value_bytes"] = _method(eng, _KV, "size_v_bytes", ctypes.c_size_t)(cache.address)
        told["layers"] = _layers(eng, cache.address)
    elif cache.of_class == _RECURRENT:
        cells = [
            match[1] for line in lines if (match := re.search(r"memory_recurrent: size = .*\( *(\d+) cells", line))
        ]
        told["cells"], told["streams"] = (int(cells[-1]), 1) if cells else (None, None)
    return told


def _layers(eng: Engine, address: int) -> list[int]:
    # Larger than 16 bytes and with a destructor: returned through memory by either rule.
    vector = _method(eng, _KV, "get_layer_ids", _Vector)(address)
    count = ((vector.end or 0) - (vector.begin or 0)) // ctypes.sizeof(ctypes.c_uint32)
    return list((ctypes.c_uint32 * count).from_address(vector.begin)) if count else []


def _method(eng: Engine, owner: str, name: str, result: Any) -> Any:
    function = eng.llama[_symbol(owner, name)]
    function.restype, function.argtypes = result, [ctypes.c_void_p]
    return function


def _symbol(owner: str, name: str) -> str:
    """The mangled name of a const method without arguments."""
    return f"_ZNK{len(owner)}{owner}{len(name)}{name}Ev"
