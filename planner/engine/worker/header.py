"""Reads a GGUF header with ggml's own C parser, which survives what breaks the readers written in Python.

Only scalars and strings are copied out; of an array only type and length are told, so a tokenizer of 262,000 words
costs nothing here.
"""

from __future__ import annotations

import contextlib
import ctypes
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from errors import Refused
from llama import engine

__all__ = ["parsed", "read"]

_SCALARS = {0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?", 10: "<Q", 11: "<q", 12: "<d"}
_STRING, _ARRAY = 8, 9
_LONGEST_STRING = 1 << 16


class _Params(ctypes.Structure):
    _fields_ = [("no_alloc", ctypes.c_bool), ("ctx", ctypes.POINTER(ctypes.c_void_p))]


@contextlib.contextmanager
def parsed(path: str) -> Iterator[Any]:
    """The parsed header as a gguf_context pointer; raises :class:`Refused` with the parser's own words."""
    eng = engine()
    if not Path(path).is_file():
        raise Refused(f"no such file: {path}")
    eng.take_lines()
    function = eng.ggml.gguf_init_from_file
    function.restype, function.argtypes = ctypes.c_void_p, [ctypes.c_char_p, _Params]
    context = function(path.encode(), _Params(True, None))
    if not context:
        raise Refused(f"not a GGUF that ggml can read: {eng.last_complaint()}")
    try:
        yield context
    finally:
        eng.ggml.gguf_free(context)


def read(args: dict[str, Any], _emit: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
    """Header of ``args["path"]``: metadata (scalars, strings; arrays as type and length) and the tensor table.

    ``tensors`` lists ``[name, [dims], type name, bytes, offset]`` in file order, dims in ggml order.
    """
    ggml = engine().ggml
    with parsed(args["path"]) as gguf:
        metadata = {}
        for index in range(ggml.gguf_get_n_kv(gguf)):
            metadata[ggml.gguf_get_key(gguf, index).decode("utf-8", "replace")] = _value(ggml, gguf, index)
        dims = ggml.gguf_get_tensor_ne
        dims.restype, dims.argtypes = ctypes.POINTER(ctypes.c_int64), [ctypes.c_void_p, ctypes.c_int64]
        tensors = []
        for index in range(ggml.gguf_get_n_tensors(gguf)):
            shape = dims(gguf, index)[:4]
            while len(shape) > 1 and shape[-1] == 1:
                shape.pop()
            tensors.append(
                [
                    ggml.gguf_get_tensor_name(gguf, index).decode("utf-8", "replace"),
                    shape,
                    ggml.ggml_type_name(ggml.gguf_get_tensor_type(gguf, index)).decode(),
                    ggml.gguf_get_tensor_size(gguf, index),
                    ggml.gguf_get_tensor_offset(gguf, index),
                ]
            )
        return {"metadata": metadata, "tensors": tensors, "data_offset": ggml.gguf_get_data_offset(gguf)}


def _value(ggml: Any, gguf: Any, index: int) -> Any:
    kind = ggml.gguf_get_kv_type(gguf, index)
    if kind == _STRING:
        return ggml.gguf_get_val_str(gguf, index)[:_LONGEST_STRING].decode("utf-8", "replace")
    if kind == _ARRAY:
        return {"array": ggml.gguf_get_arr_type(gguf, index), "length": ggml.gguf_get_arr_n(gguf, index)}
    form = _SCALARS[kind]
    data = ctypes.string_at(ggml.gguf_get_val_data(gguf, index), struct.calcsize(form))
    value = struct.unpack(form, data)[0]
    # JSON has no NaN or infinity; their spelling is kept so that a strange header is seen, not lost.
    return value if not isinstance(value, float) or value - value == 0 else str(value)
