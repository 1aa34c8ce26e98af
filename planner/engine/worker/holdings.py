"""Lists every tensor that the engine holds and every cache of a context: what a table of the memory is made of.

The mistakes it prevents: one row for a matrix that lies in two buffers (a tied head beside a GPU), and tensors that
seem loaded although they stay in the file. So not the file's tensors are listed but the engine's own, each with what
its buffer type takes for it, padding included; what the file has beside them is told as not loaded.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable, Iterator
from typing import Any

import header
from breakdown import BREAKDOWN, read_map
from caches import caches
from errors import Refused
from lazy import lazy_tensors
from llama import Engine, engine
from untouched import untouched_state

__all__ = ["ask"]

# const std::vector<std::pair<std::string, ggml_tensor *>> &; the tag is that of libstdc++'s strings.
_TENSOR_MAPS = (
    "_Z29llama_internal_get_tensor_mapB5cxx11PK11llama_model",
    "_Z29llama_internal_get_tensor_mapPK11llama_model",
)
_BUFFER = 8  # struct ggml_tensor { enum ggml_type type; struct ggml_backend_buffer * buffer; … }


def ask(args: dict[str, Any], _emit: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
    """What one model under one setting holds: ``{"path", "settings"}`` → ``{"tensors", "caches"}``.

    ``tensors`` lists ``[name, type, bytes, held bytes, buffer type, offset]`` for each tensor that the engine made, and
    with an empty buffer type and nothing held for those that it leaves in the file, tables that it reads row by row
    among them. ``caches`` is as in ``caches.py``.
    Raises :class:`Refused` with the engine's words.
    """
    eng = engine()
    settings = args["settings"]
    model = eng.load_model(args["path"], settings, no_alloc=True, devices=args.get("devices"))
    try:
        rows = _in_the_file(eng, args["path"])
        tensors = [(name, tensor, _buffer(tensor)) for name, tensor in _tensors(eng, model)]
        lazy = lazy_tensors(eng, model, settings, [(name, buffer) for name, _, buffer in tensors])
        made = [
            _row(eng, name, tensor, rows) if buffer and name not in lazy else rows[name]
            for name, tensor, buffer in tensors
        ]
        known = {row[0] for row in made}
        left = [row for name, row in rows.items() if name not in known]
        with untouched_state(eng):
            return {"tensors": made + left, "caches": _caches(eng, model, settings)}
    finally:
        eng.api.llama_model_free(model)


def _caches(eng: Engine, model: Any, settings: dict[str, Any]) -> list[dict[str, Any]] | None:
    eng.take_lines()
    context = eng.make_context(model, settings)
    try:
        whole: dict[str, int] = {}
        for buft, sizes in read_map(eng.llama, BREAKDOWN, context, 3):
            name = str(eng.ggml.ggml_backend_buft_name(buft).decode())
            whole[name] = whole.get(name, 0) + sizes[1]
        return caches(eng, context, eng.take_lines(), whole)
    finally:
        eng.api.llama_free(context)


def _row(eng: Engine, name: str, tensor: int, file_rows: dict[str, list[Any]]) -> list[Any]:
    if name not in file_rows:
        raise Refused(f"the engine holds {name}, which the file does not have")
    _, kind, size, _, _, offset = file_rows[name]
    buft = eng.ggml.ggml_backend_buffer_get_type(_buffer(tensor))
    return [name, kind, size, _held(eng, buft, tensor), str(eng.ggml.ggml_backend_buft_name(buft).decode()), offset]


def _buffer(tensor: int) -> int:
    """The address of a tensor's buffer, 0 for none."""
    return int(ctypes.c_void_p.from_address(tensor + _BUFFER).value or 0)


def _held(eng: Engine, buft: int, tensor: int) -> int:
    """What a buffer of that type takes for a tensor: what the backend asks for, up to its alignment."""
    size, alignment = eng.ggml.ggml_backend_buft_get_alloc_size, eng.ggml.ggml_backend_buft_get_alignment
    size.restype, size.argtypes = ctypes.c_size_t, [ctypes.c_void_p, ctypes.c_void_p]
    alignment.restype, alignment.argtypes = ctypes.c_size_t, [ctypes.c_void_p]
    step = int(alignment(buft))
    return -(-int(size(buft, tensor)) // step) * step


def _tensors(eng: Engine, model: Any) -> Iterator[tuple[str, int]]:
    """Name and address of every tensor of a model; one that lies in two buffers comes twice."""
    symbol = next((name for name in _TENSOR_MAPS if hasattr(eng.llama, name)), None)
    if symbol is None:
        raise Refused("this llama.cpp build does not list its tensors; use llama-cpp-python 0.3.36 or newer")
    function = eng.llama[symbol]
    function.restype, function.argtypes = ctypes.c_void_p, [ctypes.c_void_p]
    name = eng.ggml.ggml_get_name
    name.restype, name.argtypes = ctypes.c_char_p, [ctypes.c_void_p]
    begin, end = (ctypes.c_uint64 * 2).from_address(function(model))
    # A string of libc++ takes 24 bytes and one of libstdc++ 32; the pointer stands behind it.
    text = 24 if sys.platform == "darwin" else 32
    for at in range(begin, end, text + 8):
        tensor = ctypes.c_uint64.from_address(at + text).value
        yield str(name(tensor).decode()), tensor


def _in_the_file(eng: Engine, path: str) -> dict[str, list[Any]]:
    """The rows of the file's tensor table as of tensors that are not loaded, by name, in file order."""
    rows: dict[str, list[Any]] = {}
    with header.parsed(path) as gguf:
        for index in range(eng.ggml.gguf_get_n_tensors(gguf)):
            name = str(eng.ggml.gguf_get_tensor_name(gguf, index).decode())
            kind = str(eng.ggml.ggml_type_name(eng.ggml.gguf_get_tensor_type(gguf, index)).decode())
            size = int(eng.ggml.gguf_get_tensor_size(gguf, index))
            rows[name] = [name, kind, size, 0, "", int(eng.ggml.gguf_get_tensor_offset(gguf, index))]
    return rows
