"""Judges the comparison: what agrees, whether the safe bound held, and a cause for every miss.

The mistake it prevents is an average that hides a device: a card that runs out of memory is not helped by another that
has room, so every device of every record must lie below the bound, and a miss without a cause is a fault, as is a cause
beside a record that agrees.
"""

import tomllib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import msgspec
from memory_logs_answers import HOST, Answer, Pair
from memory_logs_questions import Question
from memory_logs_records import DATA

from planner.estimate.bound import compute_bound_bytes, host_logits_bytes
from planner.types.settings import Settings

__all__ = [
    "EXACT",
    "LINE",
    "Cause",
    "Row",
    "Summary",
    "bound_mib",
    "faults",
    "judge",
    "misses",
    "read_causes",
    "summarize",
]

EXACT, LINE = 0.01, 0.10
"""Weights and cache agree within the first, compute within the second."""
_MIB = 1 << 20


class Cause(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Why records miss in some part; ``seen`` is what shows it."""

    parts: list[str]
    cause: str
    seen: str | None = None
    ids: list[str]


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One record, judged. A verdict is ``None`` where the record tells nothing; ``unasked`` is why it was not asked."""

    id: str
    model: str
    build: str | None
    year: int | None
    backend: str | None
    types: str | None = None
    pairs: list[tuple[str, str, float, float]] = []
    weights: bool | None = None
    cache: bool | None = None
    compute: bool | None = None
    compute_lines: bool | None = None
    compute_deviation: float | None = None
    above_bound: list[str] = []
    compute_above_bound: list[str] = []
    unasked: str | None = None


class Summary(msgspec.Struct, frozen=True, kw_only=True):
    """The claims in numbers, over all records that tell the part (unasked ones count as missed in ``*_of_all``)."""

    records: int
    asked: int
    weights_compared: int
    weights_agree: int
    cache_compared: int
    cache_agree: int
    weights_and_cache_share: float
    compute_compared: int
    compute_agree: int
    compute_share: float
    compute_lines_compared: int
    compute_lines_agree: int
    compute_median_deviation_percent: float
    bound_compared: int
    bound_exceeded: int
    compute_bound_exceeded: int
    misses: int
    misses_unknown: int
    held: bool


def bound_mib(compute_mib: float, asked: Question, *, host_head_tokens: int = 0) -> float:
    """The planner's own bound of a compute buffer that is ``compute_mib`` with the engine of today.

    ``host_head_tokens`` is given for a host beside cards, where the head lies in RAM.
    """
    settings = msgspec.convert(asked.settings, Settings)
    bound = compute_bound_bytes(round(compute_mib * _MIB), settings, devices=len(asked.devices))
    return (bound + host_logits_bytes(host_head_tokens, settings)) / _MIB


def judge(row: Row, found: Sequence[Pair], asked: Question, answer: Answer) -> Row:
    """``row`` with its numbers and verdicts."""
    compute = [each for each in found if each.part == "compute"]
    told, answered = sum(each.told for each in compute), sum(each.found for each in compute)
    return msgspec.structs.replace(
        row,
        pairs=[(each.part, each.device, round(each.told, 2), round(each.found, 2)) for each in found],
        weights=_agree(found, "weights"),
        cache=_agree(found, "cache"),
        compute=Pair("compute", "all", told, answered).within(LINE) if compute else None,
        compute_lines=all(each.within(LINE) for each in compute) if compute else None,
        compute_deviation=answered / told - 1 if told else None,
        above_bound=sorted(set(_above(found, asked, answer))),
        compute_above_bound=sorted({each.device for each in compute if each.told > _bound(each, asked, answer)}),
    )


def _agree(found: Iterable[Pair], part: str) -> bool | None:
    those = [each for each in found if each.part == part]
    return all(each.within(EXACT) for each in those) if those else None


def _bound(compute: Pair, asked: Question, answer: Answer) -> float:
    tokens = answer.host_head_tokens if asked.devices and compute.device == HOST else 0
    return bound_mib(compute.found, asked, host_head_tokens=tokens)


def _above(found: Sequence[Pair], asked: Question, answer: Answer) -> Iterator[str]:
    """Devices that hold more than the bound: in compute alone, or in all that was compared."""
    for device in {each.device for each in found}:
        those = [each for each in found if each.device == device]
        compute = [each for each in those if each.part == "compute"]
        if any(each.told > _bound(each, asked, answer) for each in compute):
            yield device
        told = sum(each.told for each in those)
        exact = sum(each.found for each in those if each.part != "compute") * (1 + EXACT)
        if told > exact + sum(_bound(each, asked, answer) for each in compute) + 0.02 * len(those):
            yield device


def misses(row: Row) -> list[str]:
    """The parts in which a record misses: ``weights``, ``cache``, ``compute``, ``buffers``, ``bound``, ``unasked``."""
    if row.unasked is not None:
        return ["unasked"]
    missed = [part for part in ("weights", "cache", "compute") if getattr(row, part) is False]
    # A buffer may be off where the sum is not.
    missed += ["buffers"] if row.compute_lines is False and row.compute is True else []
    return missed + (["bound"] if row.above_bound else [])


def read_causes(path: Path = DATA / "memory_log_misses.toml") -> list[Cause]:
    """The causes that are written down."""
    return msgspec.convert(tomllib.loads(path.read_text(encoding="utf-8"))["cause"], list[Cause])


def faults(rows: Iterable[Row], causes: Iterable[Cause]) -> list[str]:
    """Misses that have no cause, causes beside what agrees, and records that have two causes for one miss."""
    explained: dict[tuple[str, str], int] = {}
    for cause in causes:
        for key in ((name, part) for name in cause.ids for part in cause.parts):
            explained[key] = explained.get(key, 0) + 1
    found, ids = [], set()
    for row in rows:
        ids.add(row.id)
        missed = misses(row)
        for part in missed:
            count = explained.pop((row.id, part), 0)
            if count != 1:
                found.append(f"{row.id} {row.model}: {part} missed, {count} causes")
    found += [f"{name}: a cause for {part}, which agrees" for name, part in explained if name in ids]
    return found


def summarize(rows: Sequence[Row], causes: Sequence[Cause]) -> Summary:
    """The claims in numbers; ``held`` is the verdict."""
    unknown = {
        (name, part) for each in causes if each.cause.startswith("unknown") for name in each.ids for part in each.parts
    }
    both = [row for row in rows if row.weights is not None or row.cache is not None]
    agree = sum(row.weights is not False and row.cache is not False for row in both)
    compute = [row for row in rows if row.compute is not None]
    lines = [Pair(*pair) for row in rows for pair in row.pairs if pair[0] == "compute"]
    deviations = sorted(abs(row.compute_deviation) for row in compute if row.compute_deviation is not None)
    compute_agree = sum(bool(row.compute) for row in compute)
    exceeded = [row for row in rows if row.above_bound]
    shares = (agree / len(both), compute_agree / len(compute)) if both and compute else (0.0, 0.0)
    return Summary(
        records=len(rows),
        asked=sum(row.unasked is None for row in rows),
        weights_compared=sum(row.weights is not None for row in rows),
        weights_agree=sum(bool(row.weights) for row in rows),
        cache_compared=sum(row.cache is not None for row in rows),
        cache_agree=sum(bool(row.cache) for row in rows),
        weights_and_cache_share=round(shares[0], 4),
        compute_compared=len(compute),
        compute_agree=compute_agree,
        compute_share=round(shares[1], 4),
        compute_lines_compared=len(lines),
        compute_lines_agree=sum(each.within(LINE) for each in lines),
        compute_median_deviation_percent=round(100 * deviations[len(deviations) // 2], 2) if deviations else 0.0,
        bound_compared=sum(bool(row.pairs) for row in rows),
        bound_exceeded=len(exceeded),
        compute_bound_exceeded=sum(bool(row.compute_above_bound) for row in rows),
        misses=sum(len(misses(row)) for row in rows),
        misses_unknown=sum((row.id, part) in unknown for row in rows for part in misses(row)),
        held=shares[0] >= 0.95
        and shares[1] >= 0.80
        and not any(row.compute_above_bound for row in rows)
        and not faults(rows, causes),
    )
