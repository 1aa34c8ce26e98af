"""One plan as the parts of a report, in words and finished numbers: every format prints these and adds none.

The wording is that of ``planner plan``; the mistake it prevents is a page that says of a plan what its text does not.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from msgspec.structs import replace

from planner import units
from planner.render.bar import SEGMENTS, parts
from planner.render.llama_server import shell_lines
from planner.render.plan import ASK_FOR_LESS, answer, goal_words, quality_words, speed_rows, why
from planner.render.printable import printable
from planner.render.rejected import REASON_WORDS, by_reason
from planner.render.report.candidates import Mark, candidate_table, marks
from planner.render.report.samples import measured_table
from planner.render.report.sources import source_facts
from planner.render.report.tables import Fact, Table
from planner.render.style import PLAIN
from planner.render.text import gpu_words, machine_lines, settings_lines, speed_origin, speed_range
from planner.render.untrusted import cleaned
from planner.types.machine import Machine
from planner.types.plan import Candidate, Plan

__all__ = ["Command", "Lost", "Sheet", "sheets"]

_COMMAND_WIDTH = 88
_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """Something to copy: what it does, the text, and the language for highlighting."""

    title: str
    text: str
    language: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Lost:
    """The losers of one reason."""

    reason: str
    names: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sheet:
    """Everything that a report says of one plan.

    ``letter`` is the plan's among several, empty for one alone; ``name`` is the plan in a few words; ``anchor`` begins
    every id that belongs to it.
    """

    plan: Plan
    letter: str
    name: str
    anchor: str
    answer: str
    asked: str
    key_facts: tuple[Fact, ...]
    machine: tuple[str, ...]
    choice: tuple[str, ...]
    why: tuple[str, ...]
    trade_off: str
    memory: Table | None
    speed: Table | None
    marks: tuple[Mark, ...]
    candidates: Table | None
    measured: Table | None
    measured_notes: tuple[str, ...]
    lost: tuple[Lost, ...]
    warnings: tuple[str, ...]
    weights: str
    commands: tuple[Command, ...]
    ask_for_less: tuple[str, ...]
    sources: tuple[Fact, ...]


def sheets(plans: Sequence[Plan]) -> tuple[Sheet, ...]:
    """The plans, every stranger's word in them made printable, as parts of one report."""
    told = [_printable(plan) for plan in plans]
    machines = Counter(plan.machine.name for plan in told)
    several = len(told) > 1
    return tuple(
        _sheet(
            plan,
            letter=_letter(place) if several else "",
            name=_name(plan, repeated=machines[plan.machine.name] > 1),
            anchor=f"plan-{place + 1}",
        )
        for place, plan in enumerate(told)
    )


def _name(plan: Plan, *, repeated: bool) -> str:
    """The machine, and the choice where other plans are for the same machine."""
    if not repeated:
        return plan.machine.name
    return f"{plan.machine.name}, {plan.chosen.model if plan.chosen is not None else 'nothing chosen'}"


def _printable(plan: Plan) -> Plan:
    """The plan with every text printable on one line; the Python snippet alone keeps its lines."""
    told = cleaned(plan)
    if told.commands is None or plan.commands is None:
        return told
    snippet = "\n".join(printable(line) for line in plan.commands.llama_cpp_python.split("\n")).strip()
    return replace(told, commands=replace(told.commands, llama_cpp_python=snippet))


def _letter(place: int) -> str:
    """``A`` to ``Z``, then ``A2``, ``B2`` and on."""
    turn, letter = divmod(place, len(_LETTERS))
    return _LETTERS[letter] + (str(turn + 1) if turn else "")


def _sheet(plan: Plan, *, letter: str, name: str, anchor: str) -> Sheet:
    chosen = plan.chosen
    found = marks(plan)
    measured, notes = measured_table(plan)
    return Sheet(
        plan=plan,
        letter=letter,
        name=f"{letter}: {name}" if letter else name,
        anchor=anchor,
        answer=answer(plan),
        asked=f"Asked for: {goal_words(plan.goal)}.",
        key_facts=() if chosen is None else _key_facts(chosen),
        machine=(*machine_lines(plan.machine, PLAIN), f"{plan.machine.os}, {plan.machine.source}"),
        choice=() if chosen is None else _choice(chosen),
        why=tuple(why(plan)),
        trade_off=plan.trade_off,
        memory=None if chosen is None else _memory(chosen, plan.machine),
        speed=None if chosen is None else _speed(chosen),
        marks=found,
        candidates=candidate_table(found, anchor) if found else None,
        measured=measured,
        measured_notes=notes,
        lost=tuple(Lost(reason=REASON_WORDS[code], names=tuple(names)) for code, names in by_reason(plan.rejected)),
        warnings=plan.warnings,
        weights="" if plan.commands is None else plan.commands.weights_hint,
        commands=() if chosen is None else _commands(plan),
        ask_for_less=ASK_FOR_LESS if chosen is None else (),
        sources=source_facts(plan),
    )


def _key_facts(chosen: Candidate) -> tuple[Fact, ...]:
    speeds, index = chosen.speed, chosen.index
    found = [Fact(label="model", value=chosen.model, note=f"quantization {chosen.quantization}")]
    if index is not None:
        interval = f"{index.low:.0f}{PLAIN.dash}{index.high:.0f} four times out of five"
        found.append(Fact(label=f"{index.group} index", value=f"{index.value:.0f} of 100", note=interval))
    for label, speed in (("writes", speeds.generate), ("reads a prompt", speeds.prompt)):
        if speed is not None:
            spread = speed_range(speed, PLAIN)
            note = f"{spread}, {speed.origin}" if spread else speed.origin
            found.append(Fact(label=label, value=f"{units.rate(speed.tokens_per_s)} tokens/s", note=note))
    if speeds.first_token_s is not None:
        wait = f"{speeds.first_token_s:.1f} s" if speeds.first_token_s < 10 else units.duration(speeds.first_token_s)
        found.append(Fact(label="first token", value=wait, note="after a prompt of half the context"))
    if chosen.answer_seconds is not None:
        mode = "thinking included" if chosen.thinking else "without thinking"
        found.append(Fact(label="typical answer", value=f"about {units.duration(chosen.answer_seconds)}", note=mode))
    total = sum(device.total_bytes for device in chosen.memory)
    weights = f"{units.gib(sum(device.weights_bytes for device in chosen.memory))} of it weights"
    return (*found, Fact(label="memory", value=units.gib(total), note=weights))


def _choice(chosen: Candidate) -> tuple[str, ...]:
    what = f"{chosen.model}, quantization {chosen.quantization}, {units.gib(chosen.file_bytes)} of weights"
    threads = f"{chosen.settings.threads} threads to write, {chosen.settings.threads_batch} to read"
    return (what, *quality_words(chosen, PLAIN), *settings_lines(chosen.settings, PLAIN), threads)


def _memory(chosen: Candidate, machine: Machine) -> Table:
    """Bytes by device and purpose; a device that the machine names has its name beside it."""
    names = [_device_name(device.device, machine) for device in chosen.memory]
    header = ("", *names)
    rows = [
        (segment.name, *(units.gib(parts(device)[place]) if parts(device)[place] else "" for device in chosen.memory))
        for place, segment in enumerate(SEGMENTS)
    ]
    rows = [row for row in rows if any(row[1:])]
    rows.append(("needed", *(units.gib(device.total_bytes) for device in chosen.memory)))
    rows.append(("available", *(units.gib(device.available_bytes) for device in chosen.memory)))
    right = tuple(range(1, len(header)))
    return Table(caption="Memory by device and purpose", header=header, rows=tuple(rows), right=right)


def _device_name(device: str, machine: Machine) -> str:
    if device == "CPU":
        return "CPU (RAM)"
    for gpu in machine.gpus:
        if gpu.engine_device == device:
            return f"{device} ({gpu_words(gpu)})"
    return device


def _speed(chosen: Candidate) -> Table:
    return Table(
        caption="Speed of the choice",
        header=("", "tokens/s", "range", "where the number comes from"),
        rows=tuple(
            (name, units.rate(speed.tokens_per_s if speed else None), speed_range(speed, PLAIN), speed_origin(speed))
            for name, speed in speed_rows(chosen)
        ),
        right=(1, 2),
    )


def _commands(plan: Plan) -> tuple[Command, ...]:
    told = plan.commands
    if told is None:
        return ()
    shell = "\n".join(shell_lines(told.llama_server, told.environment, width=_COMMAND_WIDTH, indent=""))
    server = Command(title="Start the server; it answers on http://127.0.0.1:8080", text=shell, language="sh")
    python = Command(title="Or run it in Python, with llama-cpp-python", text=told.llama_cpp_python, language="python")
    return (server, python) if told.llama_cpp_python else (server,)
