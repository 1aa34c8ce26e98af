"""Every candidate of a plan once, in one order, numbered: the chart and the table beside it speak of the same ones.

A plan names some of them twice, as a runner-up and among those that nothing beats; the mistake it prevents is a chart
with two marks for one candidate, or with a number that the table gives to another.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from planner import units
from planner.render.report.tables import Table
from planner.render.style import PLAIN
from planner.render.text import speed_range, tokens
from planner.types.plan import Candidate, Plan, Speed

__all__ = ["Mark", "candidate_table", "mark_words", "marks"]

_APPROXIMATELY = "≈"
_VERDICTS = {
    "fits": "fits",
    "tight": "fits, little to spare",
    "too-big": "too big",
    "too-slow": "too slow",
    "unsupported": "the engine refuses it",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """One candidate with its number in chart and table, and what it is in the plan."""

    number: int
    candidate: Candidate
    chosen: bool
    unbeaten: bool

    @property
    def name(self) -> str:
        """Model and quantization, as every command takes them."""
        return f"{self.candidate.model}:{self.candidate.quantization}"

    @property
    def standing(self) -> str:
        """What the candidate is in the plan, in words."""
        if self.chosen:
            return "the choice"
        return "unbeaten" if self.unbeaten else "runner-up"


def marks(plan: Plan) -> tuple[Mark, ...]:
    """The choice, what nothing else beats, and the runners-up, each once, the best index first."""
    unbeaten = {_identity(each) for each in plan.pareto}
    found: dict[object, Candidate] = {}
    for each in (plan.chosen, *plan.pareto, *plan.alternatives):
        if each is not None:
            found.setdefault(_identity(each), each)
    chosen = None if plan.chosen is None else _identity(plan.chosen)
    ordered = sorted(found.items(), key=lambda item: (item[0] != chosen, -_index(item[1]), -item[1].score))
    return tuple(
        Mark(number=number, candidate=each, chosen=key == chosen, unbeaten=key in unbeaten)
        for number, (key, each) in enumerate(ordered, start=1)
    )


def _identity(candidate: Candidate) -> object:
    """What makes two candidates one to a reader: the same model that does the same at the same cost.

    How the file is loaded and what a server keeps in memory that is left do not count.
    """
    settings = candidate.settings
    return (
        candidate.model,
        candidate.quantization,
        candidate.thinking,
        settings.context_tokens,
        settings.parallel,
        settings.cache_type_k,
        settings.cache_type_v,
        settings.speculation,
        candidate.speed.generate,
        sum(device.total_bytes - device.server_bytes for device in candidate.memory),
    )


def _index(candidate: Candidate) -> float:
    return -1.0 if candidate.index is None else candidate.index.value


def mark_words(mark: Mark) -> str:
    """All that the chart shows of one candidate, in one sentence: for its detail line and for those who hear it."""
    candidate = mark.candidate
    index, speed = candidate.index, candidate.speed.generate
    index_words = (
        "index unknown"
        if index is None
        else f"{index.group} index {index.value:.0f} of 100 ({index.low:.0f}{PLAIN.dash}{index.high:.0f})"
    )
    speed_words = "speed unknown" if speed is None else f"{_speed(speed)} tokens/s, {speed.origin}"
    parts = (index_words, speed_words, _answer(candidate), f"{_memory(candidate)} of memory", _settings(candidate))
    return f"{mark.number}. {mark.name}: {'; '.join((*parts, *_standing(mark)))}"


def candidate_table(found: tuple[Mark, ...], anchor: str) -> Table:
    """The marks as a table; row ``N`` has the id that mark ``N`` of the chart links to."""
    return Table(
        caption=f"All candidates, the choice first, then the best index. {_APPROXIMATELY} marks a speed that was not "
        "timed; unbeaten: no other is at least as good in quality, speed and memory at once.",
        header=("candidate", "index", "tokens/s", "answer", "memory", "context", "standing"),
        rows=tuple(_row(mark) for mark in found),
        right=(1, 2, 3, 4, 5),
        row_ids=tuple(f"{anchor}-candidate-{mark.number}" for mark in found),
        marked=next((place for place, mark in enumerate(found) if mark.chosen), None),
    )


def _row(mark: Mark) -> tuple[str, ...]:
    candidate = mark.candidate
    index, speed = candidate.index, candidate.speed.generate
    return (
        f"{mark.number}. {candidate.model}\n{candidate.quantization}",
        "unknown" if index is None else f"{index.value:.0f}\n{index.low:.0f}{PLAIN.dash}{index.high:.0f}",
        _speed_cell(speed),
        "" if candidate.answer_seconds is None else units.duration(candidate.answer_seconds),
        _memory(candidate),
        tokens(candidate.settings.context_tokens),
        "; ".join(_standing(mark)),
    )


def _speed_cell(speed: Speed | None) -> str:
    """The speed, marked where it was not timed, and its interval on a second line."""
    if speed is None:
        return "unknown"
    sign = "" if speed.origin == "measured" else _APPROXIMATELY
    return "\n".join(part for part in (f"{sign}{units.rate(speed.tokens_per_s)}", speed_range(speed, PLAIN)) if part)


def _standing(mark: Mark) -> Iterator[str]:
    """What the candidate is, that it is tight where it is, and the first reason the plan gives for its place."""
    candidate = mark.candidate
    yield mark.standing
    if candidate.verdict != "fits":
        yield _VERDICTS[candidate.verdict]
    if candidate.reasons and not mark.chosen:
        yield candidate.reasons[0].text


def _speed(speed: Speed | None) -> str:
    return "unknown" if speed is None else f"{units.rate(speed.tokens_per_s)}{_in_brackets(speed_range(speed, PLAIN))}"


def _memory(candidate: Candidate) -> str:
    return units.gib(sum(memory.total_bytes for memory in candidate.memory))


def _answer(candidate: Candidate) -> str:
    mode = "thinking before it answers" if candidate.thinking else "answers without thinking"
    wait = candidate.answer_seconds
    return mode if wait is None else f"{mode}, a typical answer in about {units.duration(wait)}"


def _settings(candidate: Candidate) -> str:
    settings = candidate.settings
    thinking = ", thinking" if candidate.thinking else ""
    return f"{tokens(settings.context_tokens)} tokens, cache {settings.cache_type_k}, {settings.load_mode}{thinking}"


def _in_brackets(text: str) -> str:
    return f" ({text})" if text else ""
