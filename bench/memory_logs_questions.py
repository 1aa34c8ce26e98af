"""From a published log to the question for the engine: its settings and its devices, as far as the log tells them.

The mistake it prevents is a guess that fits: what the log does not print is llama.cpp's default of that time, or stands
with its source in ``data/memory_logs_settings.toml``, or the record is not compared, and its reason is kept.
"""

import re
from collections.abc import Mapping
from typing import NamedTuple

from memory_logs_records import Log

from planner.engine.devices import PhantomDevice

__all__ = ["NotAskedError", "Question", "question", "split_as_told"]

_MIB = 1 << 20
_BACKENDS = {"CUDA": "cuda", "ROCm": "rocm", "Vulkan": "vulkan", "Metal": "metal", "MTL": "metal", "RPC": "cuda"}
"""Buffer names to backends; a remote device is asked as a CUDA one, and its compute buffer is not compared."""
_NO_RULES = ("OpenCL", "SYCL", "Meta")
_HOST = ("CPU", "AMX")
_DEVICE = re.compile(r"^(CUDA|ROCm|Vulkan|Metal|MTL|RPC|OpenCL|SYCL|Meta)(\d*)")
_FREE = re.compile(r"(\w+?)(\d*) \(.*- (\d+) MiB free")
_CAPABILITIES = {
    "P100": "6.0", "T4": "7.5", "RTX 30": "8.6", "A6000": "8.6", "RTX 40": "8.9", "RTX 50": "12.0", "PRO 6000": "12.0",
    "GB10": "12.1",
}  # fmt: skip
_FLASH = {"1": "on", "enabled": "on", "on": "on", "0": "off", "disabled": "off", "off": "off", "auto": "auto"}
_UNIFIED_BEFORE = 2025  # one cache for all sequences was the only kind until the autumn of that year
_FUSED_SINCE = "2026-08"  # builds before keep no memory for joined operations
_DEFAULT_FREE_MIB = 24_000


class NotAskedError(Exception):
    """The log tells too little, or something that the engine here has no rules for; the text says what."""


class Question(NamedTuple):
    """What the engine is asked: settings, devices, and the log's name of each of them."""

    settings: dict[str, object]
    devices: tuple[PhantomDevice, ...]
    names: tuple[str, ...]


def question(log: Log, told: Mapping[str, object]) -> Question:
    """The question about ``log``; ``told`` is what stands beside it. Raises :class:`NotAskedError`."""
    if told.get("unasked"):
        raise NotAskedError(str(told["unasked"]))
    names = _device_names(log)
    context = told.get("context") or log.n_ctx or log.n_ctx_seq
    if context is None:
        raise NotAskedError("the excerpt does not tell the context")
    sequences = log.n_seq_max or _sequences(log) or 1
    settings = {
        "context_tokens": context,
        "parallel": sequences,
        "kv_unified": _unified(log, sequences),
        "cache_type_k": log.type_k or "f16",
        "cache_type_v": log.type_v or "f16",
        "flash_attention": _flash(log),
        "batch": told.get("batch") or log.n_batch or 2048,
        "ubatch": told.get("ubatch") or log.n_ubatch or 512,
        "gpu_layers": _gpu_layers(log, told),
        "split_mode": told.get("split_mode") or "layer",
        "tensor_split": told.get("tensor_split") or (),
        "cpu_moe_layers": told.get("cpu_moe") or 0,
        "tensor_overrides": _overrides(log, told, names),
        "kv_offload": told.get("kv_offload", True),
        "repack": log.backend == "CPU",
    }
    return Question(settings, tuple(_device(log, name) for name in names), names)


def split_as_told(log: Log, asked: Question, layers: int) -> Question | None:
    """The question with the split that the log's own cache shows; ``None`` where it shows none.

    Only for several cards that hold all layers: the output lies on the last of them, and counts as a layer.
    """
    told = [(log.kv_buffers or {}).get(name, 0.0) for name in asked.names]
    if len(told) < 2 or not all(told) or asked.settings["tensor_split"] or asked.settings["gpu_layers"] != -1:
        return None
    counts = [float(round(size / sum(told) * layers)) for size in told]
    counts[-1] += 1
    return asked._replace(settings={**asked.settings, "tensor_split": counts})


def _device_names(log: Log) -> tuple[str, ...]:
    """The devices that hold something, by number; their names as the log has them (``CUDA0``, ``Metal``)."""
    found: dict[str, tuple[str, int]] = {}
    for buffers in (log.model_buffers, log.kv_buffers, log.compute_buffers, log.recurrent_buffers, _rows(log)):
        for name in buffers or {}:
            match = _DEVICE.match(name)
            if match is None or name.endswith(("_Host", "CUDA_Split", "ROCm_Split")):
                continue
            if match[1] in _NO_RULES and match[1] != "Meta":
                raise NotAskedError(f"no rules are known for devices of {match[1]}")
            found[match[0]] = (match[1], int(match[2] or 0))
    if found.keys() == {"Meta"}:
        return ("CUDA0",)
    return tuple(sorted(found, key=lambda name: found[name]))


def _rows(log: Log) -> dict[str, float]:
    return {match[1]: 0.0 for line in log.breakdown or () if (match := re.match(r"\|\s+- (\w+)", line))}


def _device(log: Log, name: str) -> PhantomDevice:
    match = _DEVICE.match(name)
    assert match is not None
    label = next((gpu for gpu in log.gpus or () if gpu.startswith((f"{name} ", f"{name}:"))), " ".join(log.gpus or ()))
    free = _FREE.search(label)
    free_mib = int(free[3]) if free else _DEFAULT_FREE_MIB
    return PhantomDevice(
        backend=_BACKENDS[match[1]],  # type: ignore[arg-type]  # the table's values are backends
        free_bytes=free_mib * _MIB,
        total_bytes=free_mib * _MIB,
        integrated=match[1] in {"Metal", "MTL"} or "8060S" in label or "GB10" in label,
        # Only CUDA's source changed what it keeps; the others' order of a graph is older than any log here.
        fusion=_recent(log) or match[1] not in {"CUDA", "ROCm"},
        attention_scratch=_recent(log),
        compute_capability=next((value for part, value in _CAPABILITIES.items() if part in label), None),
    )


def _recent(log: Log) -> bool:
    return (log.date or "") >= _FUSED_SINCE


def _sequences(log: Log) -> int | None:
    """Sequences as the line of the recurrent state counts them."""
    for line in log.recurrent_summary or ():
        if isinstance(line.seqs, int):
            return line.seqs
    return None


def _unified(log: Log, sequences: int) -> bool:
    if log.kv_unified is None:
        return sequences > 1 and (log.year or _UNIFIED_BEFORE) <= _UNIFIED_BEFORE
    return log.kv_unified in {True, "true"}


def _flash(log: Log) -> str:
    if log.flash_attn is not None:
        if str(log.flash_attn) not in _FLASH:
            raise NotAskedError(f"flash attention is told as {log.flash_attn!r}")
        return _FLASH[str(log.flash_attn)]
    return "auto" if (log.year or 2026) >= 2026 else "off"


def _gpu_layers(log: Log, told: Mapping[str, object]) -> int:
    asked = told.get("gpu_layers")
    if isinstance(asked, int):
        return asked
    if log.offloaded:
        layers, _, all_layers = log.offloaded.partition("/")
        return -1 if layers == all_layers else int(layers)
    return -1 if log.ngl is None else log.ngl


def _overrides(log: Log, told: Mapping[str, object], names: tuple[str, ...]) -> list[tuple[str, str]]:
    """Overrides in terms of the devices asked, which are numbered from 0 in the order of ``names``."""
    listed = told.get("overrides") or log.overrides or []
    assert isinstance(listed, list)
    renamed = []
    for each in ",".join(str(text) for text in listed).split(","):
        pattern, _, buffer = each.rpartition("=")
        if not pattern:
            continue
        renamed.append((pattern, buffer if buffer == "CPU" else _asked_name(names, buffer)))
    return renamed


def _asked_name(names: tuple[str, ...], name: str) -> str:
    match = _DEVICE.match(name)
    alike = [each for each in names if match is not None and each.startswith(match[1])]
    if match is None or name not in alike:
        raise NotAskedError(f"an override names {name}, which holds nothing in the log")
    return f"{match[1]}{alike.index(name)}"
