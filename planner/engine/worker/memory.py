"""Asks the engine what it would allocate: weights, cache and compute per buffer type, to the byte.

A model loaded with ``no_alloc`` and a context on it hold nothing, yet the engine has planned every buffer. Its own
``llama_get_memory_breakdown`` gives the sizes as integers where the log rounds to 0.01 MiB. That function returns a
C++ ``std::map``; :func:`_read_map` walks its tree, for libstdc++ and libc++, and every answer is checked against the
engine's log so that a changed ABI is noticed instead of believed.
"""

from __future__ import annotations

import ctypes
import re
import sys
from collections.abc import Callable
from typing import Any

from errors import Refused
from llama import Engine, engine, find_library
from untouched import untouched_state

__all__ = ["ask", "weights"]

Emit = Callable[[dict[str, Any]], None]

_BREAKDOWN = "_Z26llama_get_memory_breakdownPK13llama_context"
_MODEL_BREAKDOWN = "_ZNK11llama_model16memory_breakdownEv"
_GET_TENSOR = "_ZNK11llama_model10get_tensorEPKc"
_GRAPH_RESERVE = "_Z19llama_graph_reserveP13llama_contextjjj"
# Planning kernel work space needs a graph whose compute buffer is really reserved (address space, never touched).
# Above this size a smaller batch is asked and scaled: the work space is linear in the tokens of a batch.
_RESERVE_LIMIT_BYTES = 1 << 30


class _Map(ctypes.Structure):
    """Room for a returned std::map; larger than 16 bytes, so that both ABIs return it through memory."""

    _fields_ = [("word", ctypes.c_uint64 * 6)]


class _Plan(ctypes.Structure):
    """ggml_cplan: only ``work_size``, its first field, is read."""

    _fields_ = [("work_size", ctypes.c_size_t), ("rest", ctypes.c_uint64 * 8)]


def ask(args: dict[str, Any], _emit: Emit) -> dict[str, Any]:
    """Buffers of one model under several settings: ``{"path", "settings": [...]}`` → ``{"answers": [...]}``.

    All settings must share what belongs to the model (repack, GPU layers, split); contexts are made one after the
    other on one load. An answer has ``buffers`` (name, host, model/context/compute bytes), ``output_bytes`` and
    ``work_bytes`` (work space of the CPU kernels), or ``refused`` with the engine's reason.
    """
    eng = engine()
    settings = list(args["settings"])
    model = eng.load_model(args["path"], settings[0], no_alloc=True, devices=args.get("devices"))
    try:
        with untouched_state(eng):
            answers = [_answer(eng, model, each) for each in settings]
    finally:
        eng.api.llama_model_free(model)
    return {"answers": answers}


def _answer(eng: Engine, model: Any, settings: dict[str, Any]) -> dict[str, Any]:
    eng.take_lines()
    try:
        context = eng.make_context(model, settings)
    except Refused as refusal:
        return {"refused": str(refusal)}
    try:
        lines = eng.take_lines()
        buffers = [
            {
                "name": _name(eng, buft),
                "host": bool(eng.ggml.ggml_backend_buft_is_host(buft)),
                "model_bytes": sizes[0],
                "context_bytes": sizes[1],
                "compute_bytes": sizes[2],
            }
            for buft, sizes in _read_map(eng.llama, _BREAKDOWN, context, 3)
        ]
        _cross_check(buffers, lines)
        return {
            "buffers": buffers,
            "output_bytes": _output_bytes(eng, model, settings, lines),
            "work_bytes": _work_bytes(eng, context, settings, buffers),
            "log": [line.strip() for line in lines if " size = " in line],
        }
    finally:
        eng.api.llama_free(context)


def weights(args: dict[str, Any], _emit: Emit) -> dict[str, Any]:
    """Where each tensor of a model goes: ``{"path", "settings"}`` → buffer type names, and bytes per buffer type.

    ``tensors`` lists ``[name, bytes, buffer, offset]`` in file order. ``mapped`` gives per buffer type the span of
    the file that mmap holds (first tensor to last, everything between included), as the engine prints it.
    ``parameters`` is the engine's own count of the numbers in the file.
    """
    eng = engine()
    model = eng.load_model(args["path"], args["settings"], no_alloc=True, devices=args.get("devices"))
    try:
        per_buffer = {_name(eng, buft): sizes[0] for buft, sizes in _read_map(eng.llama, _MODEL_BREAKDOWN, model, 1)}
        get_tensor = getattr(eng.llama, _GET_TENSOR)
        get_tensor.restype, get_tensor.argtypes = ctypes.c_void_p, [ctypes.c_void_p, ctypes.c_char_p]
        rows: list[list[Any]] = []
        spans: dict[str, list[int]] = {}
        for name, offset, size in _file_tensors(eng, args["path"]):
            tensor = get_tensor(model, name)
            # struct ggml_tensor { enum ggml_type type; struct ggml_backend_buffer * buffer; … }: stable since 2023.
            buffer = ctypes.c_void_p.from_address(tensor + 8).value if tensor else None
            where = _name(eng, eng.ggml.ggml_backend_buffer_get_type(buffer)) if buffer else ""
            rows.append([name.decode(), size, where, offset])
            if where:
                span = spans.setdefault(where, [offset, offset + size])
                span[0], span[1] = min(span[0], offset), max(span[1], offset + size)
        return {
            "buffers": per_buffer,
            "tensors": rows,
            "mapped": {k: b - a for k, (a, b) in spans.items()},
            "parameters": int(eng.api.llama_model_n_params(model)),
        }
    finally:
        eng.api.llama_model_free(model)


def _name(eng: Engine, buft: Any) -> str:
    return str(eng.ggml.ggml_backend_buft_name(buft).decode())


def _file_tensors(eng: Engine, path: str) -> list[tuple[bytes, int, int]]:
    import header

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


def _read_map(library: Any, symbol: str, owner: Any, values: int) -> list[tuple[int, list[int]]]:
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


def _cross_check(buffers: list[dict[str, Any]], lines: list[str]) -> None:
    """Compare with the log: compute sizes stand there rounded, so a misread map cannot pass unseen."""
    for line in lines:
        match = re.search(r"(\S+) compute buffer size = +([\d.]+) MiB", line)
        if match is None:
            continue
        told = sum(b["compute_bytes"] for b in buffers if b["name"] == match[1]) / (1 << 20)
        if abs(told - float(match[2])) > 0.011:
            raise Refused(f"the engine contradicts itself: {match[1]} compute {told:.2f} MiB, its log says {match[2]}")


def _output_bytes(eng: Engine, model: Any, settings: dict[str, Any], lines: list[str]) -> int:
    """The logits of one output per sequence, which the breakdown leaves out; the log has it rounded to 0.01 MiB."""
    found = [re.search(r"output buffer size = +([\d.]+) MiB", line) for line in lines]
    told = sum(float(match[1]) for match in found if match)
    vocabulary = eng.api.llama_vocab_n_tokens(eng.api.llama_model_get_vocab(model))
    exact = 4 * int(vocabulary) * int(settings.get("parallel", 1))
    return exact if abs(exact / (1 << 20) - told) <= 0.0051 else round(told * (1 << 20))


def _work_bytes(eng: Engine, context: Any, settings: dict[str, Any], buffers: list[dict[str, Any]]) -> int | None:
    """Work space that the CPU kernels take beside the compute buffer, as ``ggml_graph_plan`` says; None if untold."""
    if any(not buffer["host"] and buffer["name"] != "CPU_REPACK" for buffer in buffers):
        return None
    try:
        reserve = getattr(eng.llama, _GRAPH_RESERVE)
        library = ctypes.CDLL(str(find_library(eng.folder, "ggml-cpu")))
        plan = library.ggml_graph_plan
    except (AttributeError, OSError, Refused):
        return None
    reserve.restype, reserve.argtypes = ctypes.c_void_p, [ctypes.c_void_p] + [ctypes.c_uint32] * 3
    plan.restype, plan.argtypes = _Plan, [ctypes.c_void_p, ctypes.c_int, ctypes.c_void_p]
    sequences = int(settings.get("parallel", 1))
    tokens = min(int(settings.get("ubatch", 512)), int(settings["context_tokens"]))
    scale = 1
    while sum(b["compute_bytes"] for b in buffers) // scale > _RESERVE_LIMIT_BYTES and tokens // (scale * 2) >= 16:
        scale *= 2
    graph = reserve(context, max(sequences, tokens // scale), sequences, sequences)
    if not graph:
        return None
    threads = max(int(settings.get("threads", 1)), int(settings.get("threads_batch", 1)))
    return int(plan(graph, threads, None).work_size) * scale
