"""Tells which tables the engine leaves in the file and reads row by row, whatever the load mode.

The mistake it prevents: counting a lookup table of 51 billion numbers as held, where a token reads a few rows of it and
the system may drop their pages again. Under ``no_alloc`` the engine decides as it would otherwise and says nothing of
it, but such a table gets a buffer of its own (``llama_model_loader::lazy_read`` of llama.cpp at commit 0c1e57098). It
may lie alone for another reason, so it counts only where the settings and every device allow it.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterable
from typing import Any

from llama import Engine  # noqa: TC002 - plain files import each other by bare name, at run time
from phantom_structs import Props

__all__ = ["lazy_tensors"]

_TABLES = frozenset(("per_layer_token_embd.weight",))  # marked TENSOR_READ_LAZY in src/models
_MAPPING = 4  # of a device's capabilities: whether files may be mapped
_COUNT, _DEVICE = "_Z21llama_model_n_devicesPK11llama_model", "_Z22llama_model_get_devicePK11llama_modeli"


def lazy_tensors(
    eng: Engine, model: Any, settings: dict[str, Any], buffers: Iterable[tuple[str, int]]
) -> frozenset[str]:
    """Names of the tensors that are read on demand; ``buffers`` has the address of each tensor's buffer, 0 for none."""
    mode = settings.get("lazy_mode", "auto")
    held: dict[int, set[str]] = {}
    for name, buffer in buffers:
        held.setdefault(buffer, set()).add(name)
    alone = frozenset(name for buffer, names in held.items() if buffer and names <= _TABLES for name in names)
    if not alone or mode == "off":
        return frozenset()
    return alone if mode == "on" or _may_map(eng, model) else frozenset()


def _may_map(eng: Engine, model: Any) -> bool:
    """Whether every device of the model takes mapped files; one that does not switches lazy reading off."""
    try:
        count, get = getattr(eng.llama, _COUNT), getattr(eng.llama, _DEVICE)
        tell = eng.ggml.ggml_backend_dev_get_props
    except AttributeError:
        return False  # what cannot be told counts as held
    count.restype, count.argtypes = ctypes.c_int, [ctypes.c_void_p]
    get.restype, get.argtypes = ctypes.c_void_p, [ctypes.c_void_p, ctypes.c_int]
    tell.restype, tell.argtypes = None, [ctypes.c_void_p, ctypes.c_void_p]
    props = Props()
    for index in range(count(model)):
        tell(get(model, index), ctypes.byref(props))
        if not props.caps[_MAPPING]:
            return False
    return True
