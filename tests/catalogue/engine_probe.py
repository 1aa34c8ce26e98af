"""Asks llama.cpp itself about phantoms; a program, so that an abort in native code cannot take pytest along.

Standard input: a JSON list of ``{"path": …}`` (load it without allocating), ``{"path": …, "check": true}`` (load it for
real and validate every block), ``{"path": …, "ftype": 15, "imatrix": true}`` (a dry run of quantizing) or
``{"types": true}`` (number, block length and block bytes of every tensor type) or ``{"path": …, "number": 12,
"offset": …, "count": …}`` (mean, spread and number of different values of dequantized data). Standard output: one JSON
list of answers. It shares no code with planner's own engine room: two readings of the same engine.
"""

import ctypes
import json
import math
import re
import sys
from pathlib import Path

import llama_cpp.llama_cpp as api

_LOG = []
_TOTAL = re.compile(r"quant size\s*=\s*([\d.]+) MiB")
_ROW = re.compile(r"\[ *\d+/ *\d+\] (\S+) .*type = +(\w+), size = +[\d.]+ MiB(?: -> +[\d.]+ MiB \((\w+)\))?")


@api.llama_log_callback
def _keep(_level, text, _data):
    _LOG.append(text.decode("utf-8", "replace"))


class _Traits(ctypes.Structure):
    _fields_ = (
        ("type_name", ctypes.c_char_p),
        ("blck_size", ctypes.c_int64),
        ("blck_size_interleave", ctypes.c_int64),
        ("type_size", ctypes.c_size_t),
        ("is_quantized", ctypes.c_bool),
        ("to_float", ctypes.CFUNCTYPE(None, ctypes.c_char_p, ctypes.POINTER(ctypes.c_float), ctypes.c_int64)),
    )


def _ggml():
    return ctypes.CDLL(str(next((Path(api.__file__).parent / "lib").glob("*ggml-base.*"))))


def dequantize(path, number, offset, count):
    """Mean, spread and number of different values of ``count`` values of type ``number``, by ggml's own kernel."""
    ggml = _ggml()
    ggml.ggml_get_type_traits.restype = ctypes.POINTER(_Traits)
    values = (ctypes.c_float * count)()
    with Path(path).open("rb") as file:
        file.seek(offset)
        data = file.read()
    traits = ggml.ggml_get_type_traits(number).contents
    if traits.to_float:
        traits.to_float(data, values, count)
    else:
        ctypes.memmove(values, data, ctypes.sizeof(values))
    finite = all(math.isfinite(value) for value in values)
    mean = math.fsum(values) / count if finite else math.nan
    spread = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / count)
    return {"mean": mean, "spread": spread, "different": len(set(values))}


def types():
    """Number, values and bytes per block of every type that the engine's ggml has, by upper-case name."""
    ggml = _ggml()
    ggml.ggml_type_name.restype = ctypes.c_char_p
    ggml.ggml_blck_size.restype = ctypes.c_int64
    ggml.ggml_type_size.restype = ctypes.c_size_t
    names = {number: ggml.ggml_type_name(number) for number in range(43)}
    return {
        name.decode().upper(): [number, ggml.ggml_blck_size(number), ggml.ggml_type_size(number)]
        for number, name in names.items()
        if name and ggml.ggml_type_size(number)
    }


def load(path, *, check):
    """``n_params`` and the size of all tensors as the engine counts them, or its complaint."""
    params = api.llama_model_default_params()
    params.n_gpu_layers = 0
    params.vocab_only = False
    params.load_mode = 0  # neither mmap nor direct I/O: the engine asserts it under no_alloc
    params.no_alloc = not check
    # The default mode maps the file and populates the map: 1.3 TB of holes for DeepSeek-R1.
    params.load_mode = api.LLAMA_LOAD_MODE_MMAP if check else api.LLAMA_LOAD_MODE_NONE
    params.check_tensors = check
    model = api.llama_model_load_from_file(path.encode(), params)
    if not model:
        return {"error": next((line for line in _LOG if "error" in line), "refused")}
    answer = {"n_params": api.llama_model_n_params(model), "size_bytes": api.llama_model_size(model)}
    api.llama_model_free(model)
    return answer


def quantize(path, ftype, *, imatrix):
    """The size of a quantization in MiB, how many tensors get which type, whether it needs an importance matrix."""
    params = api.llama_model_quantize_default_params()
    params.dry_run, params.ftype, params.nthread = True, ftype, 1
    matrix = (api.llama_model_imatrix_data * 2)()
    if imatrix:
        # Published low-bit files were made with one; a dry run only looks whether there is one.
        one = (ctypes.c_float * 1)(1.0)
        matrix[0].name, matrix[0].data, matrix[0].size = b"none", one, 1
        params.imatrix = ctypes.cast(matrix, type(params.imatrix))
    if api.llama_model_quantize(path.encode(), b"", params) != 0:
        return {"error": next((line for line in _LOG if "fail" in line), "refused")}
    log = "".join(_LOG)
    counts = {}
    for row in _ROW.finditer(log):
        kind = (row[3] or row[2]).lower()
        counts[kind] = counts.get(kind, 0) + 1
    return {"mib": float(_TOTAL.search(log)[1]), "counts": counts, "needs_imatrix": "require an imatrix" in log}


def main():
    """Answer everything on standard input."""
    api.llama_log_set(_keep, None)
    api.llama_backend_init()
    answers = []
    for question in json.load(sys.stdin):
        _LOG.clear()
        if "types" in question:
            answers.append(types())
        elif "number" in question:
            answers.append(dequantize(**question))
        elif "ftype" in question:
            answers.append(quantize(question["path"], question["ftype"], imatrix=question["imatrix"]))
        else:
            answers.append(load(question["path"], check=question.get("check", False)))
    json.dump(answers, sys.stdout)


if __name__ == "__main__":
    main()
