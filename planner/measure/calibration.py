"""Times the phantoms of a calibration within a budget, and keeps what they taught with all that it holds for.

What counts most stays open and has its turns, so that a mood of the machine hits alike what is compared. The
mistakes it prevents: costs of another build, other instruction sets or another number of threads that look like those
of this machine (a signature is checked before any use), and a calibration that overruns the time it was given.
"""

import math
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from statistics import median
from typing import Literal

from planner.estimate.costs import COUNTING, amounts
from planner.estimate.costs_attention import Near
from planner.estimate.costs_table import CostTable, Timing
from planner.measure.bench import Bench, Progress, no_progress
from planner.measure.calibration_design import REFERENCE, Probe
from planner.measure.calibration_rounds import GraphsOf, ProbeRun, Sitting
from planner.measure.conditions import Watch
from planner.measure.reference import Glance
from planner.measure.slices import weights_bytes
from planner.measure.statistics import robust_deviation
from planner.types import Report
from planner.types.measurement import Conditions, Reference, Test
from planner.types.settings import FlashAttention, Settings, Waiting

__all__ = [
    "FACT",
    "Calibration",
    "CalibrationTold",
    "Cost",
    "Signature",
    "calibrate_costs",
    "signature_of",
    "told",
]

FACT = "calibration"
"""The name under which a calibration is kept beside the measurements of its machine and engine build."""

_GROUP_BYTES = 900 << 20
_OPENED_AT_ONCE, _PASSING_AT_ONCE = 2, 6
"""Phantoms that are opened before the clock is looked at again, and that are open together while they pass by."""
_STAYS_UP_TO = 2
"""Phantoms up to this rank stay open for the whole calibration."""
_PASSING_S = 3.0
"""What a group that passes by takes, before the first one did."""
_LEAST_DOUBT = 0.02
"""Relative: what a time is off by at least, however often it was taken."""
_TOLERANCE = 0.5
"""Of what a measurement bears from others: a calibration taken while a test suite used 16 % of one CPU, well within
that, was off by 13 % in decode, and it would be believed for months."""


class Signature(Report, frozen=True, kw_only=True):
    """All that costs depend on besides the work: they are used only where every one of these is the same."""

    machine_key: str
    cpu: str
    instruction_sets: tuple[str, ...]
    engine_build: str
    backend: str
    threads: int
    threads_batch: int
    repack: bool
    flash_attention: FlashAttention
    counting: int

    def differs(self, other: "Signature") -> str | None:
        """The first difference in words, ``None`` where there is none."""
        for name in self.__struct_fields__:
            mine, theirs = getattr(self, name), getattr(other, name)
            if mine != theirs:
                return f"{name.replace('_', ' ')}: calibrated with {mine}, asked for {theirs}"
        return None


class Calibration(Report, frozen=True, kw_only=True):
    """Costs with their signature, when and how they were taken, and what was left out for want of time.

    ``reference`` is what the reference phantom takes at the pace that the costs are of.
    """

    schema: str = "planner/kept-calibration/1"
    signature: Signature
    openmp_wait: Waiting
    effort: Literal["quick", "full"]
    taken_at: str
    seconds: float
    conditions: Conditions
    table: CostTable
    unsteadiness: float = 0.0
    reference: Reference | None = None
    notes: tuple[str, ...] = ()


class Cost(Report, frozen=True, kw_only=True):
    """What a unit of one kind of work takes, with its standard error, in nanoseconds."""

    kind: str
    ns: float
    doubt_ns: float


class CalibrationTold(Report, frozen=True, kw_only=True):
    """A calibration as it is printed.

    ``timings`` is how many samples it rests on, ``unsteadiness`` the relative scatter of single runs of one thing.
    """

    schema: str = "planner/calibration/1"
    signature: Signature
    openmp_wait: Waiting
    effort: Literal["quick", "full"]
    taken_at: str
    seconds: float
    conditions: Conditions
    model_doubt: float
    timings: int
    unsteadiness: float = 0.0
    costs: tuple[Cost, ...]
    notes: tuple[str, ...] = ()


def signature_of(settings: Settings, *, machine_key: str, cpu: str, isa: Sequence[str], engine_build: str) -> Signature:
    """The signature of speeds on this machine under ``settings``."""
    return Signature(
        machine_key=machine_key,
        cpu=cpu,
        instruction_sets=tuple(isa),
        engine_build=engine_build,
        backend="cpu",
        threads=settings.threads,
        threads_batch=settings.threads_batch,
        repack=settings.repack,
        flash_attention=settings.flash_attention,
        counting=COUNTING,
    )


def calibrate_costs(
    bench: Bench,
    probes: Sequence[Probe],
    settings: Settings,
    graphs_of: GraphsOf,
    *,
    signature: Signature,
    budget_s: float,
    near_bytes: int = 0,
    room_bytes: int = _GROUP_BYTES,
    effort: Literal["quick", "full"] = "full",
    progress: Progress = no_progress,
) -> Calibration:
    """Time ``probes``, the important ones first, within ``budget_s``, and solve for the costs.

    ``near_bytes`` is the second-level cache of one core (0: unknown).

    A probe that the engine refuses, or for which no time is left, is named in ``notes``. Raises
    :class:`EngineDiedError` when the child dies, :class:`MeasurementInvalidError` when a depth cannot be reached.
    """
    from planner.estimate.costs_learning import learn_costs  # noqa: PLC0415 - numpy, which only a calibration needs

    begin = time.monotonic()
    near = Near(near_bytes, settings.threads)
    known = next((each for each in probes if each.label == REFERENCE), probes[0])
    sitting = Sitting(bench, settings, graphs_of, known.layout)
    watch = Watch(bench.pids, threads=settings.threads, tolerance=_TOLERANCE)
    try:
        left_out = _sit(sitting, probes, room_bytes, begin, budget_s, progress)
    finally:
        sitting.end()
    unsteadiness = _unsteadiness([each.answer_ns for each in sitting.glances])
    timings, reference = _solved(sitting.runs, sitting.glances, near)
    return Calibration(
        signature=signature,
        openmp_wait=settings.openmp_wait,
        effort=effort,
        taken_at=datetime.now(UTC).isoformat(timespec="seconds"),
        seconds=round(time.monotonic() - begin, 1),
        conditions=watch.finish(),
        table=learn_costs(timings, near=near, unsteadiness=unsteadiness),
        unsteadiness=round(unsteadiness, 4),
        reference=reference,
        notes=(*sitting.notes, *(f"{label}: no time was left" for label in left_out)),
    )


def _unsteadiness(reference_ns: Sequence[float]) -> float:
    """Relative scatter of single runs of the reference over the whole calibration."""
    return robust_deviation(reference_ns) / median(reference_ns) if reference_ns else 0.0


def _sit(
    sitting: Sitting, probes: Sequence[Probe], room_bytes: int, begin_s: float, budget_s: float, progress: Progress
) -> list[str]:
    """Open and time ``probes`` within the budget; the labels of those for which no time was left.

    First all that stays, the important ones first; then its turns and a few of the others take turns.
    """
    staying, passing = _stays(probes, room_bytes)
    until_s = begin_s + budget_s
    left_out: list[Probe] = []

    def begins(group: Sequence[Probe]) -> bool:
        now = time.monotonic()
        if now > until_s:
            left_out.extend(group)
            return False
        progress(f"timing {group[0].label}", (now - begin_s) / budget_s, budget_s)
        return True

    for group in _groups(staying, _OPENED_AT_ONCE):
        if begins(group):
            sitting.keep_open(group)
    groups = _groups(passing, _PASSING_AT_ONCE)
    passed_s: list[float] = []
    for place, group in enumerate(groups):
        now = time.monotonic()
        sitting.go_on(now + _turn_s(until_s - now, len(groups) - place, passed_s))
        opened_s = time.monotonic()
        if begins(group):
            sitting.pass_by(group, until_s)
            passed_s.append(time.monotonic() - opened_s)
    sitting.go_on(until_s)
    return [each.label for each in left_out]


def _stays(probes: Sequence[Probe], room_bytes: int) -> tuple[list[Probe], list[Probe]]:
    """What stays open, as far as there is room for it in the order of importance, and what passes by."""
    staying: list[Probe] = []
    passing: list[Probe] = []
    for probe in probes:
        size = weights_bytes(probe.layout)
        stays = probe.rank <= _STAYS_UP_TO and size <= room_bytes
        (staying if stays else passing).append(probe)
        room_bytes -= size if stays else 0
    return staying, passing


def _turn_s(left_s: float, groups: int, passed_s: Sequence[float]) -> float:
    """How long what stays has its turns before the next of ``groups``, all of which will take as long as those before.

    A third of the time is for them in any case: they count most.
    """
    passing_s = groups * (sum(passed_s) / len(passed_s) if passed_s else _PASSING_S)
    return max(left_s - passing_s, left_s / 3) / (groups + 1)


def _solved(runs: Sequence[ProbeRun], glances: Sequence[Glance], near: Near) -> tuple[list[Timing], Reference | None]:
    """Each test, and the reference, with what it takes at the usual pace of this calibration.

    All of them together, so that both are of one and the same pace.
    """
    from planner.measure.moments import taken  # noqa: PLC0415 - numpy, which only a calibration needs

    tests = [list(zip(run.ended_s, run.took_ns, strict=True)) for run in runs]
    beside = [
        [(each.ended_s, each.answer_ns) for each in glances],
        [(each.ended_s, each.prompt_ns) for each in glances],
    ]
    found = taken([*tests, *(beside if glances else ())])
    timings = [
        Timing(
            label=f"{run.probe.label} {run.test.label}",
            amounts=amounts(run.graph, filled=run.test.depth + _written(run.test), near=near),
            took_ns=each.typical,
            doubt=math.hypot(_LEAST_DOUBT, each.doubt),
        )
        for run, each in zip(runs, found[: len(runs)], strict=True)
    ]
    if not glances:
        return timings, None
    *_, answer, prompt = found
    return timings, Reference(generate_ns=(answer.typical,), prompt_ns=(prompt.typical,))


def _written(test: Test) -> float:
    """Tokens of an answer that are in the cache on average while it is timed."""
    return (test.tokens - 1) / 2 if test.kind == "generate" else 0.0


def _groups(probes: Sequence[Probe], most: int) -> list[list[Probe]]:
    """Probes in their order, at most so many at a time that are opened together."""
    groups: list[list[Probe]] = []
    size = 0
    for probe in probes:
        more = weights_bytes(probe.layout)
        if not groups or size + more > _GROUP_BYTES or len(groups[-1]) == most:
            groups.append([])
            size = 0
        groups[-1].append(probe)
        size += more
    return groups


def told(calibration: Calibration) -> CalibrationTold:
    """A calibration for readers: each cost with its doubt, without the covariance that only a prediction needs."""
    table = calibration.table
    return CalibrationTold(
        signature=calibration.signature,
        openmp_wait=calibration.openmp_wait,
        effort=calibration.effort,
        taken_at=calibration.taken_at,
        seconds=calibration.seconds,
        conditions=calibration.conditions,
        model_doubt=table.model_doubt,
        timings=len(table.timings),
        unsteadiness=calibration.unsteadiness,
        costs=tuple(
            Cost(kind=name, ns=cost, doubt_ns=max(table.covariance[place][place], 0.0) ** 0.5)
            for place, (name, cost) in enumerate(zip(table.names, table.costs, strict=True))
        ),
        notes=calibration.notes,
    )
