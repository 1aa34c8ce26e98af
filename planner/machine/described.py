"""Machines described in TOML, each number with its source beside it; prevents a guess from posing as a record.

A fact is ``{ is = 16, source = "…" }``, for sizes ``{ gib = 24, source = "…" }`` (also ``kib``, ``mib``, and decimal
``gb`` for bandwidths), or ``{ unknown = "why" }``. A plain value is accepted too; its source is then the file itself.
What can be worked out (logical CPUs, usable threads, usable RAM) need not be stated.
"""

import difflib
import math
import tomllib
from typing import TYPE_CHECKING

from planner.errors import BadInputError
from planner.types.machine import Cpu, Disk, Gpu, Machine, Memory, Power

if TYPE_CHECKING:
    from collections.abc import Mapping

    import msgspec

__all__ = ["parse"]

_UNITS = {"is": 1, "kib": 1 << 10, "mib": 1 << 20, "gib": 1 << 30, "gb": 10**9}
_SECTIONS: "dict[str, type[msgspec.Struct]]" = {"cpu": Cpu, "memory": Memory, "disk": Disk, "power": Power}
_FACTS = frozenset({*_UNITS, "source", "unknown"})
_MOST_EQUAL_GPUS = 64
Table = dict[str, object]


def parse(text: str, label: str) -> Table:
    """The plain document (as ``detect --json`` would print it) of a description; ``label`` names the file in errors."""
    try:
        document: Table = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise BadInputError(f"{label}: not TOML: {error}", hint="see profiles/machines for examples") from error
    known = {*Machine.__struct_fields__}
    for key in document:
        if key not in known:
            raise _unknown(label, key, known)
    built = dict(document)
    for name, kind in _SECTIONS.items():
        if name in document:
            built[name] = _section(document[name], kind, f"{label}: {name}")
    built["gpus"] = [gpu for item in _tables(document.get("gpus", []), f"{label}: gpus") for gpu in _gpus(item, label)]
    _derive(built)
    return {"kernel": None, "disk": None, "source": f"described in {label}", "kind": "described", **_index(built)}


def _section(value: object, kind: "type[msgspec.Struct]", where: str) -> Table:
    """One struct: facts become values with sources, unknowns become notes."""
    table = _table(value, where)
    sources: dict[str, str] = {}
    notes: dict[str, str] = {}
    result: Table = {"sources": sources, "notes": notes}
    for field, fact in table.items():
        if field not in kind.__struct_fields__:
            raise _unknown(where, field, set(kind.__struct_fields__))
        if field in ("sources", "notes"):
            result[field] = fact
        elif isinstance(fact, dict) and _FACTS & fact.keys():
            result[field] = _fact(fact, f"{where}.{field}", field, sources, notes)
        else:
            result[field] = fact
    return result


def _fact(
    fact: "Mapping[str, object]", where: str, field: str, sources: dict[str, str], notes: dict[str, str]
) -> object:
    if "unknown" in fact:
        notes[field] = str(fact["unknown"])
        return None
    units = [unit for unit in _UNITS if unit in fact]
    if len(units) != 1 or not isinstance(fact.get("source"), str) or fact.keys() - _FACTS:
        raise BadInputError(
            f"{where}: a fact has exactly one of {', '.join(_UNITS)} and a source",
            hint=f'write for example {field} = {{ is = …, source = "where it was read" }}',
        )
    sources[field] = str(fact["source"])
    value = fact[units[0]]
    if units[0] == "is":
        return value
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise BadInputError(f"{where}.{units[0]}: not a number", hint="write a number without quotes")
    return round(value * _UNITS[units[0]])


def _gpus(item: Table, label: str) -> list[Table]:
    """One GPU, or ``count`` equal ones."""
    count = item.pop("count", 1)
    if not isinstance(count, int) or isinstance(count, bool) or not 1 <= count <= _MOST_EQUAL_GPUS:
        raise BadInputError(f"{label}: gpus.count must be 1 to {_MOST_EQUAL_GPUS}", hint="leave it out for one GPU")
    return [_section(item, Gpu, f"{label}: gpus") for _ in range(count)]


def _index(built: Table) -> Table:
    gpus = [
        {"name": None, "memory_total_bytes": None, "memory_free_bytes": None, **gpu, "index": index}
        for index, gpu in enumerate(_tables(built["gpus"], "gpus"))
    ]
    for gpu in gpus:
        _sources(gpu).setdefault("index", "order in the description")
    return {**built, "gpus": gpus}


def _derive(built: Table) -> None:
    """Work out what follows from what is stated; what is missing beyond that, the type check names."""
    cpu, memory = built.get("cpu"), built.get("memory")
    if isinstance(cpu, dict):
        _default(cpu, "logical_cpus", cpu.get("physical_cores"), "as many as physical cores, for want of a statement")
        for field in ("model", "vendor", "sockets", "physical_cores", "affinity_cpus", "quota_cpus"):
            cpu.setdefault(field, None)
        bounds = [cpu.get("physical_cores"), cpu.get("affinity_cpus"), cpu.get("quota_cpus"), cpu.get("logical_cpus")]
        numbers = [math.ceil(bound) for bound in bounds if isinstance(bound, int | float) and math.isfinite(bound)]
        _default(cpu, "usable_threads", min(numbers, default=None), "minimum of cores, affinity and quota")
    if isinstance(memory, dict):
        _default(memory, "usable_bytes", memory.get("available_bytes"), "what is available; limits would lower it")
        for field in ("swap_total_bytes", "swap_free_bytes"):
            memory.setdefault(field, None)
    built.setdefault("power", {"on_battery": None, "battery_percent": None})


def _default(table: Table, field: str, value: object, source: str) -> None:
    if table.get(field) is None and value is not None:
        table[field] = value
        _sources(table)[field] = source


def _sources(table: Table) -> dict[str, str]:
    sources = table.get("sources")
    return sources if isinstance(sources, dict) else {}


def _table(value: object, where: str) -> Table:
    if not isinstance(value, dict):
        raise BadInputError(f"{where}: expected a table", hint="see profiles/machines for examples")
    return dict(value)


def _tables(value: object, where: str) -> list[Table]:
    if not isinstance(value, list):
        raise BadInputError(f"{where}: expected a list of tables", hint="write [[gpus]] for each GPU")
    return [_table(item, where) for item in value]


def _unknown(where: str, key: str, known: set[str]) -> BadInputError:
    close = difflib.get_close_matches(key, known, n=1)
    hint = f"did you mean {close[0]}?" if close else f"known are: {', '.join(sorted(known))}"
    return BadInputError(f"{where}: there is no field called {key!r}", hint=hint)
