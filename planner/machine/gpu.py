"""Builds a :class:`Gpu` fact by fact; prevents a field that has neither a value with a source nor a reason why not."""

from typing import TYPE_CHECKING

import msgspec

from planner.machine.evidence import Evidence
from planner.types.machine import Gpu

if TYPE_CHECKING:
    from planner.types.machine import Backend, Memory

__all__ = ["Draft", "Found"]

Found = tuple[tuple[Gpu, ...], tuple[str, ...]]
"""GPUs of one vendor and remarks about what went wrong."""

_COMMON_GAPS = {
    "gtt_total_bytes": "only AMD has one",
    "engine_device": "the engine was not asked",
}


class Draft:
    """A GPU being described; what nobody told by the end is noted as not reported."""

    def __init__(self, vendor: str, backend: "Backend", source: str) -> None:
        self._evidence = Evidence()
        self._values: dict[str, object] = {}
        self.put("vendor", vendor, source).put("backend", backend, f"{vendor} device")

    def put(self, field: str, value: object, source: str, missing: str = "not reported") -> "Draft":
        """Set a field from ``source``; ``None`` is noted with ``missing``."""
        if self._evidence.take(field, value, source, missing) is not None:
            self._values[field] = value
        return self

    def gap(self, fields: str, why: str) -> "Draft":
        """Say why some fields (names separated by blanks) cannot be known."""
        for field in fields.split():
            self._evidence.notes.setdefault(field, why)
        return self

    def ram(self, memory: "Memory") -> "Draft":
        """Say that this GPU computes in system RAM."""
        source = "system RAM: this GPU computes in it"
        self.put("memory_total_bytes", memory.total_bytes, source)
        return self.put("memory_free_bytes", memory.usable_bytes, source)

    def build(self, index: int) -> Gpu:
        """The finished struct."""
        self.put("index", index, "order of detection")
        notes = self._evidence.notes
        for field in Gpu.__struct_fields__:
            if field not in self._values and field not in ("sources", "notes"):
                notes.setdefault(field, _COMMON_GAPS.get(field, "not reported"))
        required = {"name": None, "memory_total_bytes": None, "memory_free_bytes": None}
        return msgspec.convert({**required, **self._values, "sources": self._evidence.sources, "notes": notes}, Gpu)
