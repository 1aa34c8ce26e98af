"""Asks the engine for what a log shows, and puts both side by side: weights, cache and compute of each device.

The engine's buffers are summed under the log's names of the devices; whatever lies in host memory, pinned or not, is
``host``. The mistake it prevents: what a log prints for a mapped file is no allocation but a stretch of addresses, with
whatever lies between its ends, so it is compared only where all tensors lie there.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import msgspec
from memory_logs_models import File
from memory_logs_questions import Question
from memory_logs_records import Bytes, Log

from planner.engine import devices
from planner.engine.answers import weights_from_rows
from planner.engine.child import EngineChild
from planner.engine.phantom import write_phantom
from planner.errors import EngineError
from planner.files import phantom_folder

__all__ = ["ALL", "HOST", "Answer", "Pair", "ask", "by_device", "pairs", "side_by_side", "told_by_device"]

_MIB = 1 << 20
HOST, ALL = "host", "all"
_ENGINE_DEVICE = re.compile(r"^(CUDA|ROCm|Vulkan|Metal|MTL)(\d*)(_Split|_Mapped|_Private)?$")
_FOUND_UNTOLD_MIB = 1.0


class _Buffer(msgspec.Struct, frozen=True):
    name: str
    context_bytes: int
    compute_bytes: int


class _Answered(msgspec.Struct, frozen=True):
    buffers: list[_Buffer] = []
    vocabulary_tokens: int = 0
    refused: str | None = None


class _Weighed(msgspec.Struct, frozen=True):
    tensors: list[tuple[str, int, str, int]]
    buffers: dict[str, int]
    mapped: dict[str, int]


class Answer(NamedTuple):
    """MiB by device, as the engine's own sums; ``host_head_tokens`` is the vocabulary where the head lies in RAM."""

    weights: Bytes
    cache: Bytes
    compute: Bytes
    host_head_tokens: int


class Pair(NamedTuple):
    """One number of the log beside the engine's, MiB; ``part`` is ``weights``, ``cache`` or ``compute``."""

    part: str
    device: str
    told: float
    found: float

    def within(self, share: float) -> bool:
        """Whether they agree within ``share``, or within what two decimals can hide."""
        return abs(self.found - self.told) <= max(share * self.told, 0.02)


def ask(child: EngineChild, file: File, asked: Question) -> Answer:
    """What the engine plans. Raises :class:`EngineError` where it refuses."""
    with phantom_folder() as folder:
        path = Path(folder) / "phantom.gguf"
        write_phantom(path, file.layout)
        place = {"path": str(path), "devices": msgspec.to_builtins(asked.devices)}
        weighed = msgspec.convert(child.ask("weights", {**place, "settings": asked.settings}), _Weighed)
        answers = child.ask("buffers", {**place, "settings": [asked.settings]})["answers"]
    (answered,) = msgspec.convert(answers, list[_Answered])
    if answered.refused:
        raise EngineError(answered.refused, hint="the record says why in memory_log_misses.toml")
    head = weights_from_rows(weighed.tensors, weighed.buffers, weighed.mapped).head_buffer
    return Answer(
        weights=by_device(weighed.buffers, asked),
        cache=by_device({each.name: each.context_bytes for each in answered.buffers}, asked),
        compute=by_device({each.name: each.compute_bytes for each in answered.buffers}, asked),
        host_head_tokens=answered.vocabulary_tokens if devices.device_of(head) == devices.HOST else 0,
    )


def by_device(sizes: dict[str, int], asked: Question) -> Bytes:
    """MiB by the log's names of the devices, from the engine's bytes by buffer; host buffers together."""
    found: Bytes = {}
    for name, size in sizes.items():
        match = _ENGINE_DEVICE.match(name)
        where = HOST if match is None else asked.names[_place(asked, match[1], int(match[2] or 0))]
        found[where] = found.get(where, 0.0) + size / _MIB
    return found


def _place(asked: Question, prefix: str, index: int) -> int:
    """Which of the devices asked the engine's device ``prefix`` + ``index`` is."""
    backend = {"CUDA": "cuda", "ROCm": "rocm", "Vulkan": "vulkan"}.get(prefix, "metal")
    return [place for place, device in enumerate(asked.devices) if device.backend == backend][index]


def pairs(log: Log, file: File, asked: Question, answer: Answer) -> Iterator[Pair]:
    """Every number of the log that can be compared, beside the engine's."""
    yield from _weights(log, file, asked, answer)
    yield from _cache(log, asked, answer)
    if log.compute_buffers:
        yield from side_by_side("compute", told_by_device(log.compute_buffers, asked), answer.compute)


def _weights(log: Log, file: File, asked: Question, answer: Answer) -> Iterator[Pair]:
    if not log.model_buffers or not file.total_known:
        return
    told, found = told_by_device(log.model_buffers, asked), dict(answer.weights)
    if told.keys() != {HOST} and any("Mapped" in name and name.startswith("CPU") for name in log.model_buffers):
        # The extent of a mapping, with what lies between its ends: no allocation, and not the sum of the tensors.
        told.pop(HOST, None)
        found.pop(HOST, None)
    if file.weights_known:
        yield from side_by_side("weights", told, found)
    else:
        yield Pair("weights", ALL, sum(told.values()), sum(found.values()))


def _cache(log: Log, asked: Question, answer: Answer) -> Iterator[Pair]:
    """The cache and the recurrent state of each device; in total where the log tells no more."""
    lines = [*(log.kv_summary or ()), *(log.recurrent_summary or ())]
    totals = sum((log.kv_by_cache_mib or {}).values()) or sum(each.size_mib for each in lines)
    if "Meta()" in (log.recurrent_buffers or {}):
        recurrent = sum(each.size_mib for each in log.recurrent_summary or ())
        yield Pair("cache", "state", recurrent, answer.cache.get(ALL, recurrent))
        return
    whole = (log.kv_buffers is not None) and (log.recurrent_buffers is not None or not log.recurrent_summary)
    if whole:
        told = told_by_device(log.kv_buffers or {}, asked)
        for name, size in told_by_device(log.recurrent_buffers or {}, asked).items():
            told[name] = told.get(name, 0.0) + size
        yield from side_by_side("cache", told, answer.cache)
    elif totals:
        yield Pair("cache", ALL, totals, sum(answer.cache.values()))
    elif log.breakdown:
        column = _contexts(log.breakdown)
        if column:
            yield Pair("cache", ALL, column, sum(answer.cache.values()))


def _contexts(lines: list[str]) -> float | None:
    """The column "context" of an exit table, summed over its devices (whole MiB)."""
    found = [re.search(r"\( *\d+ = +\d+ \+ +(\d+) \+", line) for line in lines if "Host" not in line]
    sizes = [float(match[1]) for match in found if match]
    return sum(sizes) if sizes else None


def told_by_device(buffers: Bytes, asked: Question) -> Bytes:
    """The log's buffers by device, host buffers together."""
    found: Bytes = {}
    for name, size in buffers.items():
        base = re.sub(r"_(Split|Mapped|Private)$", "", name)
        where = base if base in asked.names else HOST
        found[where] = found.get(where, 0.0) + size
    return found


def side_by_side(part: str, told: Bytes, found: Bytes) -> Iterator[Pair]:
    """What the log tells of each device beside the engine's answer; what the engine alone has counts as well."""
    for name, size in told.items():
        yield Pair(part, name, size, found.get(name, 0.0))
    for name, size in found.items():
        if name not in told and size > _FOUND_UNTOLD_MIB:
            yield Pair(part, name, 0.0, size)
