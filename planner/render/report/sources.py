"""Where each number of a report comes from: one row for every fact of the machine, the engine, the model and the plan.

The mistake it prevents is a figure that nobody can check; what is unknown stands there too, with the reason.
"""

from collections.abc import Iterator, Mapping

import msgspec

from planner import units
from planner.render.report.tables import Fact
from planner.types.machine import Machine
from planner.types.plan import Candidate, Plan

__all__ = ["source_facts"]

_INDEX = {
    "measured": "published scores of this model",
    "related": "its other published scores, or its siblings'",
    "inferred": "inferred from its size, age and mode",
}
_MEMORY = {
    "engine": "llama.cpp was asked with this very device",
    "phantom": "llama.cpp was asked with a device that has the published properties of this one",
    "model": "interpolated between llama.cpp's answers",
}
_LONGEST = 120


def source_facts(plan: Plan) -> tuple[Fact, ...]:
    """The plan itself, the choice, then the machine field by field."""
    return (*_of_the_plan(plan), *_of_the_choice(plan.chosen), *_of_the_model(plan), *_of_the_machine(plan.machine))


def _of_the_plan(plan: Plan) -> Iterator[Fact]:
    yield Fact(label="plan", value=f"{plan.schema}, written {plan.created_at}", note=plan.created_by)
    yield Fact(label="engine build", value=plan.engine_build, note="a hash of llama.cpp's shared library")
    yield Fact(label="machine", value=f"{plan.machine.name} ({plan.machine.kind})", note=plan.machine.source)
    for note in plan.machine.notes:
        yield Fact(label="machine, note", value=note)


def _of_the_choice(chosen: Candidate | None) -> Iterator[Fact]:
    if chosen is None:
        return
    if chosen.index is not None:
        index = chosen.index
        yield Fact(
            label="index",
            value=f"{index.value:.0f}: {index.capability:.0f} before quantization, {index.retention:.0%} of it kept",
            note=_INDEX[index.origin],
        )
    for device in chosen.memory:
        yield Fact(label=f"memory on {device.device}", value=units.gib(device.total_bytes), note=_MEMORY[device.origin])
    artifact = chosen.artifact
    if artifact is not None:
        where = f"{artifact.repo or artifact.name}{f' at {artifact.commit}' if artifact.commit else ''}"
        for part in artifact.parts:
            yield Fact(label="file", value=f"{part.path}, {units.gib(part.size_bytes)}", note=part.url or where)


def _of_the_model(plan: Plan) -> Iterator[Fact]:
    model = plan.model
    if model is None:
        return
    size = f"{units.count(model.parameters)} parameters, {units.count(model.parameters_active)} active"
    yield Fact(label="model", value=f"{model.name} ({model.vendor}), {size}", note="; ".join(model.sources))
    allows = {True: "allows commercial use", False: "no commercial use", None: "commercial use not confirmed"}
    licence = f"{model.license}: {allows[model.license_commercial]}"
    yield Fact(label="licence", value=licence, note=model.license_source or "")


def _of_the_machine(machine: Machine) -> Iterator[Fact]:
    yield from _fields("processor", machine.cpu, machine.cpu.sources, machine.cpu.notes)
    yield from _fields("memory", machine.memory, machine.memory.sources, machine.memory.notes)
    if machine.disk is not None:
        yield from _fields("disk", machine.disk, machine.disk.sources, machine.disk.notes)
    yield from _fields("power", machine.power, machine.power.sources, machine.power.notes)
    for gpu in machine.gpus:
        yield from _fields(f"GPU {gpu.index}", gpu, gpu.sources, gpu.notes)
    if machine.engine is not None:
        yield Fact(label="engine", value=machine.engine.system_info, note=f"llama.cpp {machine.engine.llama_cpp}")


def _fields(part: str, struct: msgspec.Struct, sources: Mapping[str, str], notes: Mapping[str, str]) -> Iterator[Fact]:
    """A row for each field that has a source or a reason for having no value, as the struct's law has it."""
    for field in struct.__struct_fields__:
        if field in {"sources", "notes"} or not (field in sources or field in notes):
            continue
        value = getattr(struct, field)
        label = f"{part}, {field.removesuffix('_bytes').removesuffix('_bytes_per_s').replace('_', ' ')}"
        yield Fact(label=label, value=_value(field, value), note=sources.get(field) or notes.get(field, ""))


def _value(field: str, value: object) -> str:
    """A field of a machine in words; the unit is the one in the field's name."""
    if value is None or isinstance(value, bool):
        return {None: "unknown", True: "yes", False: "no"}[value]
    if isinstance(value, int) and field.endswith("_bytes_per_s"):
        return f"{value / 1e9:.0f} GB/s"
    if isinstance(value, int) and field.endswith("_bytes"):
        return units.gib(value)
    if isinstance(value, tuple):
        return _several(value)
    if isinstance(value, float):
        return f"{value:g}"
    return str(value)


def _several(values: tuple[object, ...]) -> str:
    """A list in words: plain values side by side, structs by their number alone."""
    words = [str(value) for value in values if not isinstance(value, msgspec.Struct)]
    if not words:
        return f"{len(values)} listed"
    told = ", ".join(words)
    return told if len(told) <= _LONGEST else f"{told[: _LONGEST - 1]}…"
