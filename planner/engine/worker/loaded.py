"""Keeps the last models that were loaded without memory, so that many questions about one cost one load.

A load takes as long as two or three answers and its file must be written anew for it, so questions name what they are
about (``key``: the content of the file) and the file comes along only when it is asked for. The mistake to prevent is
an answer about another model: a key without a model is said to be unknown, and a model counts only with the very
settings and devices that it was loaded with.

A loaded model has one flaw: its repacked tensors do not know their kernels, which then tell the work space of others.
:func:`_tell_kernels` makes up for it.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import sys
from collections import OrderedDict
from collections.abc import Iterator
from typing import Any, NamedTuple

import header
from devices import device_list
from lazy import lazy_tensors
from llama import MODEL_SETTINGS, Engine
from staging import Read, loading

__all__ = ["Loaded", "loaded"]

_MOST = 2
_GET_TENSOR = "_ZNK11llama_model10get_tensorEPKc"
_BUFFER = 8  # struct ggml_tensor { enum ggml_type type; struct ggml_backend_buffer * buffer; … }: stable since 2023


class Loaded(NamedTuple):
    """A model without memory, and its tensors in the order of the file: name, bytes, buffer type (or none), offset.

    ``lazy`` are bytes, by buffer type, that stay in the file and have none in the rows.
    ``loading`` is the most that would be in RAM while they are read and what stays free in the heap, per load mode.
    """

    model: Any
    rows: list[tuple[str, int, str, int]]
    lazy: dict[str, int]
    loading: dict[str, tuple[int, int, int]]


_kept: OrderedDict[str, Loaded] = OrderedDict()


@contextlib.contextmanager
def loaded(eng: Engine, args: dict[str, Any], settings: dict[str, Any]) -> Iterator[Loaded | None]:
    """The model that a question is about: ``key`` names it, ``path`` is its file; ``None`` when that must be sent.

    Without a ``key`` the file is loaded for this question alone. Raises :class:`Refused` in the engine's words.
    """
    path, key, devices = args.get("path"), args.get("key"), args.get("devices")
    if key is None:
        found = _load(eng, str(path), settings, devices)
        try:
            yield found
        finally:
            eng.api.llama_model_free(found.model)
        return
    name = json.dumps([key, [settings.get(each) for each in MODEL_SETTINGS], devices])
    known = _kept.get(name)
    if known is not None:
        _kept.move_to_end(name)
        if devices is not None:
            device_list(eng, devices)  # another question may have lent these devices other properties
    elif path is not None:
        known = _kept[name] = _load(eng, str(path), settings, devices)
        while len(_kept) > _MOST:
            eng.api.llama_model_free(_kept.popitem(last=False)[1].model)
            _give_back()
    yield known


def _give_back() -> None:
    """Hand freed memory back to the system, where the C library can: contexts of all sizes leave gaps between them."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
    if trim is not None:
        trim(ctypes.c_size_t(0))


def _load(eng: Engine, path: str, settings: dict[str, Any], devices: list[dict[str, Any]] | None) -> Loaded:
    model = eng.load_model(path, settings, no_alloc=True, devices=devices)
    get_tensor = getattr(eng.llama, _GET_TENSOR)
    get_tensor.restype, get_tensor.argtypes = ctypes.c_void_p, [ctypes.c_void_p, ctypes.c_char_p]
    found = [(*each, int(get_tensor(model, each[0]) or 0)) for each in _file_tensors(eng, path)]
    buffers = {name.decode(): _buffer(tensor) for name, _, _, tensor in found}
    lazy = lazy_tensors(eng, model, settings, buffers.items())
    rows: list[tuple[str, int, str, int]] = []
    lazy_bytes: dict[str, int] = {}
    by_type: dict[int, list[int]] = {}
    read: list[Read] = []
    for label, offset, size, tensor in found:
        name = label.decode()
        kind = int(eng.ggml.ggml_backend_buffer_get_type(buffers[name])) if buffers[name] else 0
        if name in lazy:
            lazy_bytes[_name(eng, kind)] = lazy_bytes.get(_name(eng, kind), 0) + size
            kind = 0
        by_type.setdefault(kind, []).append(tensor)
        rows.append((name, size, _name(eng, kind) if kind else "", offset))
        host = bool(kind) and bool(eng.ggml.ggml_backend_buft_is_host(kind))
        if host or (kind and _of_the_cpu(eng, kind)):
            # Tensors are made one behind the other in memory: their addresses tell their order.
            read.append(Read(tensor, size, host))
    for kind, tensors in by_type.items():
        if kind and not eng.ggml.ggml_backend_buft_is_host(kind) and _of_the_cpu(eng, kind):
            _tell_kernels(eng, kind, tensors)
    return Loaded(
        model, rows, lazy_bytes, loading(read, sum(size for _, _, size, _ in found) - sum(lazy_bytes.values()))
    )


def _buffer(tensor: int) -> int:
    """The address of a tensor's buffer, 0 for none."""
    return int(ctypes.c_void_p.from_address(tensor + _BUFFER).value or 0) if tensor else 0


def _tell_kernels(eng: Engine, kind: int, tensors: list[int]) -> None:
    """Let the buffer type choose the kernels of its tensors, as it does where they are really allocated."""
    allocate, choose = (
        eng.ggml.ggml_backend_buft_alloc_buffer,
        getattr(eng.ggml, "ggml_backend_buffer_init_tensor", None),
    )
    if choose is None:
        return
    allocate.restype, allocate.argtypes = ctypes.c_void_p, [ctypes.c_void_p, ctypes.c_size_t]
    choose.restype, choose.argtypes = ctypes.c_int, [ctypes.c_void_p, ctypes.c_void_p]
    free = eng.ggml.ggml_backend_buffer_free
    free.restype, free.argtypes = None, [ctypes.c_void_p]
    buffer = allocate(kind, 64)
    if buffer:
        for tensor in tensors:
            choose(buffer, tensor)
        free(buffer)


def _of_the_cpu(eng: Engine, kind: int) -> bool:
    """Whether a buffer type belongs to the CPU's device; phantoms' own need no kernels."""
    device = eng.ggml.ggml_backend_buft_get_device(kind)
    return bool(device) and int(eng.ggml.ggml_backend_dev_type(device)) == 0


def _file_tensors(eng: Engine, path: str) -> list[tuple[bytes, int, int]]:
    with header.parsed(path) as gguf:
        count = eng.ggml.gguf_get_n_tensors(gguf)
        return [
            (
                eng.ggml.gguf_get_tensor_name(gguf, index),
                eng.ggml.gguf_get_tensor_offset(gguf, index),
                eng.ggml.gguf_get_tensor_size(gguf, index),
            )
            for index in range(count)
        ]


def _name(eng: Engine, kind: int) -> str:
    return str(eng.ggml.ggml_backend_buft_name(kind).decode())
