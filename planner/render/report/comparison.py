"""Several plans in one table, a column for each: what was asked, what was chosen, and what it costs.

The mistake it prevents is to compare two machines by plans that were asked different things: the goals stand first.
"""

from collections.abc import Callable, Sequence

from planner import units
from planner.render.plan import goal_words
from planner.render.report.sheet import Sheet
from planner.render.report.tables import Table
from planner.render.style import PLAIN
from planner.render.text import gpus_words, speed_range, tokens
from planner.types.plan import Candidate, Plan, Speed

__all__ = ["comparison_table"]


def comparison_table(told: Sequence[Sheet]) -> Table:
    """A row for each question, a column for each plan."""
    plans = [sheet.plan for sheet in told]
    rows = [
        ("asked for", *(goal_words(plan.goal) for plan in plans)),
        *(_row(name, ask, plans) for name, ask in _OF_PLANS),
    ]
    rows += [(name, *(_of_choice(plan, ask) for plan in plans)) for name, ask in _OF_CHOICES]
    header = ("", *(sheet.name for sheet in told))
    return Table(caption="The plans side by side", header=header, rows=tuple(rows))


def _row(name: str, ask: Callable[[Plan], str], plans: Sequence[Plan]) -> tuple[str, ...]:
    return (name, *(ask(plan) for plan in plans))


def _of_choice(plan: Plan, ask: Callable[[Candidate], str]) -> str:
    return "nothing was chosen" if plan.chosen is None else ask(plan.chosen)


def _processor(plan: Plan) -> str:
    cpu = plan.machine.cpu
    return f"{cpu.model or plan.machine.architecture}, {cpu.usable_threads} threads"


def _gpus(plan: Plan) -> str:
    return gpus_words(plan.machine, PLAIN)


def _index(chosen: Candidate) -> str:
    index = chosen.index
    if index is None:
        return "unknown"
    return f"{index.group} {index.value:.0f} of 100 ({index.low:.0f}{PLAIN.dash}{index.high:.0f})"


def _speed(speed: Speed | None) -> str:
    if speed is None:
        return "unknown"
    spread = speed_range(speed, PLAIN)
    return f"{units.rate(speed.tokens_per_s)} tokens/s{f' ({spread})' if spread else ''}, {speed.origin}"


def _memory(chosen: Candidate) -> str:
    return "; ".join(
        f"{device.device} {units.gib(device.total_bytes)} of {units.gib(device.available_bytes)}"
        for device in chosen.memory
    )


def _answer(chosen: Candidate) -> str:
    return "unknown" if chosen.answer_seconds is None else f"about {units.duration(chosen.answer_seconds)}"


_OF_PLANS: tuple[tuple[str, Callable[[Plan], str]], ...] = (
    ("processor", _processor),
    ("GPU", _gpus),
    ("RAM usable", lambda plan: units.gib(plan.machine.memory.usable_bytes)),
)
_OF_CHOICES: tuple[tuple[str, Callable[[Candidate], str]], ...] = (
    ("model", lambda chosen: chosen.model),
    ("quantization", lambda chosen: f"{chosen.quantization}, {units.gib(chosen.file_bytes)}"),
    ("thinking", lambda chosen: "thinks before it answers" if chosen.thinking else "answers without thinking"),
    ("index", _index),
    ("writes", lambda chosen: _speed(chosen.speed.generate)),
    ("at depth", lambda chosen: _speed(chosen.speed.generate_at_depth)),
    ("reads a prompt", lambda chosen: _speed(chosen.speed.prompt)),
    ("typical answer", _answer),
    (
        "context",
        lambda chosen: f"{tokens(chosen.settings.context_tokens)} tokens for {chosen.settings.parallel} at once",
    ),
    ("memory", _memory),
)
