"""Asks the engine what it would allocate: weights, cache and compute per buffer type, to the byte.

A model loaded with ``no_alloc`` and a context on it hold nothing, yet the engine has planned every buffer and tells it
(see ``breakdown.py``). What it does not tell is asked of the same graphs (``reserve.py``): the buffers with another
number of outputs, and the work space of the CPU's kernels.
"""

from __future__ import annotations

import ctypes
import re
from collections.abc import Callable, Sequence
from typing import Any

from breakdown import MODEL_BREAKDOWN, breakdown, read_map
from drafting import drafting, drafts_itself, keep_hidden_states
from errors import Refused
from llama import Engine, engine
from loaded import Loaded, loaded
from reserve import Planned, Reserve
from structures import structures
from untouched import untouched_state

__all__ = ["ask", "weights"]

Emit = Callable[[dict[str, Any]], None]

# A GPU takes over products with weights in RAM from this many tokens on (offload_op of ggml's backends); a shorter
# batch is the CPU's, with its kernels' work space.
_OFFLOADED_TOKENS = 32
# Of these the engine plans a micro-batch of one sequence as well (llama_context::sched_reserve).
_ONE_SEQUENCE = ("kimi-linear", "minimax-01")
_APART = ("outputs_max", "threads", "threads_batch")  # settings that share a context

_planners: list[Reserve] = []


def ask(args: dict[str, Any], _emit: Emit) -> dict[str, Any]:
    """Buffers of one model under several settings: ``{"path", "key", "settings": [...]}`` → ``{"answers": [...]}``.

    All settings must share what belongs to the model (``MODEL_SETTINGS``). Those that differ in ``outputs_max`` alone
    share a context. An answer has ``buffers`` (name, host, model/context/compute bytes), ``output_bytes`` and
    ``work_bytes`` (work space of the CPU kernels), or ``refused`` with the engine's reason. With ``drafting`` the
    context is the second one, in which the model's own block drafts. ``{"unknown": true}`` asks for the file.
    """
    eng = engine()
    settings = list(args["settings"])
    with loaded(eng, args, settings[0]) as found, untouched_state(eng):
        if found is None:
            return {"unknown": True}
        if args.get("drafting"):
            return {"answers": [drafting(eng, found.model, each) for each in settings]}
        answers: dict[int, dict[str, Any]] = {}
        for places in _by_context(settings):
            for told in _answers(eng, found.model, [settings[place] for place in places]):
                answers[places.pop(0)] = told
        return {"answers": [answers[place] for place in range(len(settings))]}


def weights(args: dict[str, Any], _emit: Emit) -> dict[str, Any]:
    """Where each tensor of a model goes: ``{"path", "key", "settings"}`` → buffer types, and bytes per buffer type.

    ``tensors`` lists ``[name, bytes, buffer, offset]`` in file order. ``mapped`` gives per buffer type the span of
    the file that mmap holds (first tensor to last, everything between included), as the engine prints it.
    ``lazy_bytes`` are those of tables that stay in the file and are in none of the sums.
    ``loading`` is, per load mode, the most that is in RAM while they are read, and what stays free in the heap.
    ``parameters`` is the engine's own count of the numbers in the file. ``{"unknown": true}`` asks for the file.
    """
    eng = engine()
    with loaded(eng, args, args["settings"]) as found:
        if found is None:
            return {"unknown": True}
        spans: dict[str, list[int]] = {}
        for _, size, where, offset in found.rows:
            if where:
                span = spans.setdefault(where, [offset, offset + size])
                span[0], span[1] = min(span[0], offset), max(span[1], offset + size)
        per_buffer = {
            str(eng.ggml.ggml_backend_buft_name(buft).decode()): sizes[0]
            for buft, sizes in read_map(eng.llama, MODEL_BREAKDOWN, found.model, 1)
        }
        return {
            "buffers": {name: size - found.lazy.get(name, 0) for name, size in per_buffer.items()},
            "lazy_bytes": sum(found.lazy.values()),
            "tensors": found.rows,
            "mapped": {k: b - a - _within(found, a, b) for k, (a, b) in spans.items()},
            "loading": found.loading,
            "parameters": int(eng.api.llama_model_n_params(found.model)),
        }


def _within(found: Loaded, start: int, end: int) -> int:
    """Bytes of a span of the file that are read on demand: mapped with the rest, and not in memory."""
    if not found.lazy:
        return 0
    table = max(found.rows, key=lambda row: row[1] if not row[2] else 0)
    return table[1] if start < table[3] < end else 0


def _by_context(settings: Sequence[dict[str, Any]]) -> list[list[int]]:
    """The places of those settings that one context can answer for."""
    groups: dict[str, list[int]] = {}
    for place, each in enumerate(settings):
        shared = sorted((name, value) for name, value in each.items() if name not in _APART)
        groups.setdefault(repr(shared), []).append(place)
    return list(groups.values())


def _answers(eng: Engine, model: Any, settings: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Answers for settings that share a context; where this build plans no further graphs each gets its own."""
    eng.take_lines()
    try:
        if settings[0].get("speculation") == "draft-mtp":
            drafts_itself(eng, model)
        context = eng.make_context(model, settings[0])
    except Refused as refusal:
        first = {"refused": str(refusal)}
        return [first, *(_answers(eng, model, settings[1:]) if settings[1:] else [])]
    try:
        lines = eng.take_lines()
        rows = breakdown(eng, context, lines)
        output = _output_bytes(eng, model, settings[0], lines)
        if settings[0].get("speculation") == "draft-mtp":
            output = keep_hidden_states(eng, context, settings[0])
        log = [line.strip() for line in lines if " size = " in line]
        beside = structures(eng, model, context, lines)
        answers: list[dict[str, Any]] = []
        for place, each in enumerate(settings):
            alone = not place and _on_devices_alone(each, rows)
            planned = None if alone else _plan(eng, context, each, rows)
            if planned is None and place:
                return answers + _answers(eng, model, settings[place:])
            own = rows if planned is None else _with_compute(rows, planned, at_least=not place)
            work = 0 if alone else None if planned is None else planned.work_bytes
            answers.append({"buffers": own, "output_bytes": output, "work_bytes": work, "log": log, **beside})
        return answers
    finally:
        eng.api.llama_free(context)


def _plan(eng: Engine, context: Any, settings: dict[str, Any], rows: Sequence[dict[str, Any]]) -> Planned | None:
    """Compute and work space under ``settings``: the largest of the graphs that the engine plans for a context."""
    if not _planners:
        _planners.append(Reserve(eng))
    outputs = int(settings.get("outputs_max", 0))
    threads = max(int(settings.get("threads", 1)), int(settings.get("threads_batch", 1)))
    graphs = [_planners[0].plan(context, threads, outputs=outputs)]
    sequences = int(settings.get("parallel", 1))
    if _shared(rows):
        # Of weights in RAM a GPU computes long batches and the CPU short ones: two graphs, of different buffers.
        graphs += [_planners[0].plan(context, threads, outputs=sequences, tokens=sequences)]
        short = _planners[0].plan(context, threads, outputs=sequences, tokens=max(sequences, _OFFLOADED_TOKENS - 1))
        graphs += [short._replace(compute={}) if short else None]
    if sequences > 1 and _architecture(eng, context) in _ONE_SEQUENCE:
        graphs.append(_planners[0].plan(context, threads, outputs=outputs, sequences=1))
    found = [each for each in graphs if each is not None]
    if not found:
        return None
    compute: dict[str, int] = {}
    for each in found:
        for name, size in each.compute.items():
            compute[name] = max(size, compute.get(name, 0))
    work = [each.work_bytes for each in found if each.work_bytes is not None]
    return Planned(compute, max(work) if work else None)


def _on_devices_alone(settings: dict[str, Any], rows: Sequence[dict[str, Any]]) -> bool:
    """Whether GPUs compute everything but the look-up of tokens: the context's own plan is then the whole answer."""
    moved = (
        settings.get("cpu_moe_layers", 0) or settings.get("tensor_overrides") or not settings.get("kv_offload", True)
    )
    whole = settings.get("gpu_layers", -1) == -1 and settings.get("speculation", "none") == "none" and not moved
    return whole and any(not row["host"] and row["model_bytes"] for row in rows if row["name"] != "CPU_REPACK")


def _shared(rows: Sequence[dict[str, Any]]) -> bool:
    """Whether a GPU and the CPU share the layers: some of the weights, or of the cache, lie in RAM."""
    on_device = any(not row["host"] and row["model_bytes"] for row in rows if row["name"] != "CPU_REPACK")
    return on_device and any(row["host"] and (row["model_bytes"] or row["context_bytes"]) for row in rows)


def _with_compute(rows: Sequence[dict[str, Any]], planned: Planned, *, at_least: bool) -> list[dict[str, Any]]:
    """The rows with the compute bytes that were planned; ``at_least`` those that they have."""
    left = dict(planned.compute)
    changed = []
    for row in rows:
        size = left.pop(row["name"], 0) if row["compute_bytes"] else 0
        changed.append({**row, "compute_bytes": max(size, row["compute_bytes"] if at_least else 0)})
    return changed


def _architecture(eng: Engine, context: Any) -> str:
    text = ctypes.create_string_buffer(64)
    eng.api.llama_model_meta_val_str(eng.api.llama_get_model(context), b"general.architecture", text, 64)
    return text.value.decode()


def _output_bytes(eng: Engine, model: Any, settings: dict[str, Any], lines: Sequence[str]) -> int:
    """The logits of one output per sequence, which the breakdown leaves out; the log has it rounded to 0.01 MiB."""
    found = [re.search(r"output buffer size = +([\d.]+) MiB", line) for line in lines]
    told = sum(float(match[1]) for match in found if match)
    vocabulary = eng.api.llama_vocab_n_tokens(eng.api.llama_model_get_vocab(model))
    exact = 4 * int(vocabulary) * int(settings.get("parallel", 1))
    return exact if abs(exact / (1 << 20) - told) <= 0.0051 else round(told * (1 << 20))
