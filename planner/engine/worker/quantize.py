"""Asks the engine which type each tensor gets in a quantization: ``llama_model_quantize`` as a dry run.

Re-deriving the rules ("the first and last eighth of ffn_down in Q6_K, …") is where every other tool drifts from
llama.cpp; here they are never written down. Published files of the low-bit types were made with an importance
matrix, which changes a few types: ``imatrix`` says so to the engine with an empty one.
"""

from __future__ import annotations

import ctypes
import re
from collections.abc import Callable
from typing import Any

from errors import Refused
from llama import Engine, engine

__all__ = ["types"]

_NAME = re.compile(
    r"\[ *\d+/ *\d+\] (\S+) +- \[[^\]]*\], type = +(\w+), size = +[\d.]+ MiB(?: -> +[\d.]+ MiB \((\w+)\))?"
)


def types(args: dict[str, Any], _emit: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
    """Types of all tensors: ``{"path", "recipes": [{"ftype", "imatrix"}]}`` → ``{"names", "types": [[…]…]}``.

    ``names`` is the order in which llama-quantize writes the file; ``types[i]`` belongs to ``recipes[i]``.
    """
    eng = engine()
    names: list[str] = []
    found: list[list[str]] = []
    for recipe in args["recipes"]:
        rows = _dry_run(eng, args["path"], int(recipe["ftype"]), imatrix=bool(recipe.get("imatrix")))
        names = [name for name, _ in rows]
        found.append([kind for _, kind in rows])
    return {"names": names, "types": found}


def _dry_run(eng: Engine, path: str, ftype: int, *, imatrix: bool) -> list[tuple[str, str]]:
    api = eng.api
    params = api.llama_model_quantize_default_params()
    params.dry_run = True
    params.ftype = ftype
    params.nthread = 1
    if imatrix:
        # One entry of one value: "an importance matrix exists"; a dry run reads no values.
        one = (ctypes.c_float * 1)(1.0)
        matrix = (api.llama_model_imatrix_data * 2)()
        matrix[0].name, matrix[0].data, matrix[0].size = b"none", one, 1
        params.imatrix = ctypes.cast(matrix, type(params.imatrix))
    eng.take_lines()
    if api.llama_model_quantize(path.encode(), b"", params) != 0:
        raise Refused(f"the engine cannot quantize this to type {ftype}: {eng.last_complaint()}")
    rows = [(m[1], m[3] or m[2]) for line in eng.take_lines() if (m := _NAME.search(line))]
    if not rows:
        raise Refused("the engine's dry run printed no tensors; its log format has changed")
    return rows
