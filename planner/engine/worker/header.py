"""Reads a GGUF header with ggml's own C parser, which survives what breaks the readers written in Python.

Copied out are scalars, texts and short arrays with their exact types; of what is long, and of the tokenizer's arrays,
only type and length are told, so a tokenizer of 262,000 words costs nothing here. A chat template is never rendered
and never travels: it is hashed.
"""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import json
import os
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from errors import Refused
from llama import Engine, engine

__all__ = ["parsed", "read", "verdicts"]

_SCALARS = {
    0: ("u8", "B"), 1: ("i8", "b"), 2: ("u16", "H"), 3: ("i16", "h"), 4: ("u32", "I"), 5: ("i32", "i"), 6: ("f32", "f"),
    7: ("bool", "?"), 10: ("u64", "Q"), 11: ("i64", "q"), 12: ("f64", "d"),
}  # fmt: skip
_STRING, _ARRAY = 8, 9
_TOKENIZER, _TEMPLATE = "tokenizer.", "tokenizer.chat_template"
_LONGEST_TEXT_BYTES = 4096
_LONGEST_ARRAY = 4096
_COPIED_BYTES = 1 << 20  # of all texts and arrays together: a reply has to fit into the parent's memory


class _Params(ctypes.Structure):
    _fields_ = [("no_alloc", ctypes.c_bool), ("ctx", ctypes.POINTER(ctypes.c_void_p))]


@contextlib.contextmanager
def parsed(path: str, pad_to: int = 0) -> Iterator[Any]:
    """The parsed header as a gguf_context pointer; raises :class:`Refused` with the parser's own words.

    A file that ends before ``pad_to``, between its tensor table and its data, counts as padded.
    """
    eng = engine()
    if not Path(path).is_file():
        raise Refused(f"no such file: {path}")
    eng.take_lines()
    if Path(path).stat().st_size < pad_to:
        context = _from_buffer(eng, Path(path).read_bytes().ljust(pad_to, b"\0"))
    else:
        function = eng.ggml.gguf_init_from_file
        function.restype, function.argtypes = ctypes.c_void_p, [ctypes.c_char_p, _Params]
        context = function(os.fsencode(path), _Params(True, None))
    if not context:
        raise Refused(f"not a GGUF that ggml can read: {eng.last_complaint()}")
    try:
        yield context
    finally:
        eng.ggml.gguf_free(context)


def _from_buffer(eng: Engine, data: bytes) -> Any:
    function = eng.ggml.gguf_init_from_buffer
    function.restype, function.argtypes = ctypes.c_void_p, [ctypes.c_char_p, ctypes.c_size_t, _Params]
    return function(data, len(data), _Params(True, None))


def read(args: dict[str, Any], _emit: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
    """Header of ``args["path"]``: metadata, the tensor table and where the data begin. Works on a file cut behind it.

    ``metadata`` gives for each key ``[type, value]``; a value that is not copied is ``[type, null, length]`` and, for
    text, its SHA-256 as well. ``tensors`` lists ``[name, [dims], type name, bytes, offset]`` in file order; with
    ``args["digest"]`` it is empty, and ``digest`` alone tells the table: the SHA-256 over one JSON line for each.
    """
    ggml = _declared()
    with parsed(args["path"], args.get("pad_to", 0)) as gguf:
        metadata, left = {}, _COPIED_BYTES
        for index in range(ggml.gguf_get_n_kv(gguf)):
            key = ggml.gguf_get_key(gguf, index).decode("utf-8", "replace")
            metadata[key], cost = _value(ggml, gguf, index, key, left)
            left -= cost
        tensors, digest = [], hashlib.sha256()
        for index in range(ggml.gguf_get_n_tensors(gguf)):
            row = _tensor(ggml, gguf, index)
            digest.update(json.dumps(row).encode() + b"\n")
            if not args.get("digest"):
                tensors.append(row)
        return {
            "metadata": metadata,
            "tensors": tensors,
            "digest": digest.hexdigest(),
            "alignment": ggml.gguf_get_alignment(gguf),
            "data_offset": ggml.gguf_get_data_offset(gguf),
        }


def _tensor(ggml: Any, gguf: Any, index: int) -> list[Any]:
    shape = ggml.gguf_get_tensor_ne(gguf, index)[:4]
    while len(shape) > 1 and shape[-1] == 1:
        shape.pop()
    return [
        ggml.gguf_get_tensor_name(gguf, index).decode("utf-8", "replace"),
        shape,
        ggml.ggml_type_name(ggml.gguf_get_tensor_type(gguf, index)).decode().lower(),
        ggml.gguf_get_tensor_size(gguf, index),
        ggml.gguf_get_tensor_offset(gguf, index),
    ]


def verdicts(args: dict[str, Any], _emit: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
    """What ggml's parser says of many headers at once: of the stretches of ``lengths`` bytes in the file ``path``.

    ``complaints`` has one entry each: the parser's words, or ``null`` for a header that it accepts.
    """
    eng = engine()
    complaints: list[str | None] = []
    with Path(args["path"]).open("rb") as file:
        for length in args["lengths"]:
            data = file.read(length)
            eng.take_lines()
            context = _from_buffer(eng, data)
            if context:
                eng.ggml.gguf_free(context)
            complaints.append(None if context else eng.last_complaint())
    return {"complaints": complaints}


def _declared() -> Any:
    """The library with the functions declared that only this module needs."""
    ggml = engine().ggml
    for name, result in (
        ("gguf_get_tensor_ne", ctypes.POINTER(ctypes.c_int64)),
        ("gguf_get_arr_data", ctypes.c_void_p),
        ("gguf_get_arr_str", ctypes.c_char_p),
    ):
        function = getattr(ggml, name)
        function.restype = result
        function.argtypes = [ctypes.c_void_p, ctypes.c_int64] + [ctypes.c_size_t] * (name == "gguf_get_arr_str")
    return ggml


def _value(ggml: Any, gguf: Any, index: int, key: str, left: int) -> tuple[list[Any], int]:
    """One value as it travels, and about how many bytes of ``left`` it takes."""
    kind = ggml.gguf_get_kv_type(gguf, index)
    if kind == _STRING:
        return _text(ggml.gguf_get_val_str(gguf, index), key, left)
    if kind == _ARRAY:
        return _array(ggml, gguf, index, key, left)
    name, code = _SCALARS[kind]
    data = ctypes.string_at(ggml.gguf_get_val_data(gguf, index), struct.calcsize("<" + code))
    return [name, _number(struct.unpack("<" + code, data)[0])], 0


def _text(data: bytes, key: str, left: int) -> tuple[list[Any], int]:
    if key.startswith(_TEMPLATE) or len(data) > min(_LONGEST_TEXT_BYTES, left):
        return ["str", None, len(data), hashlib.sha256(data).hexdigest()], 0
    return ["str", data.decode("utf-8", "replace")], len(data)


def _array(ggml: Any, gguf: Any, index: int, key: str, left: int) -> tuple[list[Any], int]:
    kind, length = ggml.gguf_get_arr_type(gguf, index), ggml.gguf_get_arr_n(gguf, index)
    name, code = ("str", "") if kind == _STRING else _SCALARS[kind]
    told = [f"[{name}]", None, length]
    if key.startswith(_TOKENIZER) or length > min(_LONGEST_ARRAY, left // 8):
        return told, 0
    if kind == _STRING:
        texts = [ggml.gguf_get_arr_str(gguf, index, at) for at in range(length)]
        cost = sum(map(len, texts)) + 8 * length
        return ([f"[{name}]", [text.decode("utf-8", "replace") for text in texts]], cost) if cost <= left else (told, 0)
    form = f"<{length}{code}"
    data = ctypes.string_at(ggml.gguf_get_arr_data(gguf, index), struct.calcsize(form)) if length else b""
    return [f"[{name}]", [_number(value) for value in struct.unpack(form, data)]], 8 * length


def _number(value: Any) -> Any:
    # JSON has no NaN or infinity; their spelling is kept so that a strange header is seen, not lost.
    return value if not isinstance(value, float) or value - value == 0 else str(value)
