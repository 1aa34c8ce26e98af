"""Times the phantoms of a calibration within a budget, and keeps what they taught with all that it holds for.

Groups of phantoms are open at once and run in turns, so that a drift of the machine hits alike what is compared. The
mistakes it prevents: costs of another build, other instruction sets or another number of threads that look like those
of this machine (a signature is checked before any use), and a calibration that overruns the time it was given.
"""

import math
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from statistics import median
from typing import Literal, NamedTuple

import msgspec

from planner.engine.graphs import Graph
from planner.errors import EngineError
from planner.estimate.costs import COUNTING, Near, amounts
from planner.estimate.costs_table import CostTable, Timing
from planner.measure.bench import Bench, Progress, no_progress
from planner.measure.calibration_design import REFERENCE, Probe
from planner.measure.calibration_rounds import ProbeRun, timed_rounds
from planner.measure.conditions import Watch
from planner.measure.pace import AS_IT_WAS, pace
from planner.measure.reference import Glance, ReferenceRuns
from planner.measure.slices import weights_bytes
from planner.measure.statistics import robust_deviation
from planner.types import Report
from planner.types.measurement import Conditions, Reference
from planner.types.settings import FlashAttention, Settings, Waiting

__all__ = [
    "FACT",
    "Calibration",
    "CalibrationTold",
    "Cost",
    "Signature",
    "calibrate_costs",
    "probe_settings",
    "signature_of",
    "told",
]

FACT = "calibration"
"""The name under which a calibration is kept beside the measurements of its machine and engine build."""

_GROUP_BYTES = 900 << 20
_GROUP_PROBES = 6
_AT_LEAST = 2
_TWICE_UP_TO, _THRICE_UP_TO = 2, 0
"""Groups up to these ranks are visited twice and three times, spread over the whole: a neighbour on the host keeps a
machine slow for seconds, which is as long as one visit. What is told of a full context is four times as deep as what
was timed, and its errors grow with it."""
_LEAST_DOUBT, _ONE_DOUBT = 0.02, 0.05
"""Relative: what a time of a few repetitions is off by at least, and one repetition, however well they agree."""
_TOLERANCE = 0.5
"""Of what a measurement bears from others: a calibration taken while a test suite used 16 % of one CPU, well within
that, was off by 13 % in decode, and it would be believed for months."""

GraphsOf = Callable[[Probe, Settings], Sequence[Graph]]
"""Asks the engine for the graph of one micro-batch of each test of a probe."""


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

    ``reference`` is what the reference phantom took meanwhile, and so the pace that the costs are of.
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


class _Turn(NamedTuple):
    """One of the visits that a group gets, of how many, and what share of the time it has."""

    group: Sequence[Probe]
    weight: float
    of: int
    again: bool = False


class _Visit(NamedTuple):
    runs: list[ProbeRun]
    graphs: list[Graph]
    glances: list[Glance]


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


def probe_settings(probe: Probe, settings: Settings) -> Settings:
    """``settings`` as a phantom of the calibration is opened with them."""
    return msgspec.structs.replace(
        settings,
        context_tokens=probe.context_tokens,
        parallel=probe.parallel,
        # One cache for all: a graph of fewer sequences than the context was made for can be asked for.
        kv_unified=probe.parallel > 1,
        cache_type_k=probe.cache_type,
        cache_type_v=probe.cache_type,
        batch=512,
        ubatch=512,
        load_mode="mmap",
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
    watch: Watch | None = None
    seen: list[_Visit] = []
    notes: list[str] = []
    turns = _turns(_groups(probes))
    # Timed beside every group: it tells how unsteady the machine is, and later how fast it was.
    known = next((each for each in probes if each.label == REFERENCE), None)
    reference: ReferenceRuns | None = None
    for place, turn in enumerate(turns):
        spent_s = time.monotonic() - begin
        share_s = (budget_s - spent_s) * turn.weight / sum(each.weight for each in turns[place:])
        if spent_s > budget_s or share_s <= 0:
            notes += [f"{each.label}: no time was left" for each in turn.group if not turn.again]
            continue
        progress(f"timing {turn.group[0].label}", spent_s / budget_s, budget_s)
        if watch is None:
            watch = _watch(bench, turn.group[0], settings)
            if known is not None:
                reference = ReferenceRuns(bench, known.layout, settings)
        seen.append(_visit(bench, reference, turn, settings, graphs_of, share_s, notes))
    glances = [each for visit in seen for each in visit.glances]
    unsteadiness = _unsteadiness([each.answer_ns for each in glances])
    return Calibration(
        signature=signature,
        openmp_wait=settings.openmp_wait,
        effort=effort,
        taken_at=datetime.now(UTC).isoformat(timespec="seconds"),
        seconds=round(time.monotonic() - begin, 1),
        conditions=(watch or Watch(bench.pids, threads=settings.threads, tolerance=_TOLERANCE)).finish(),
        table=learn_costs(_timings(seen, near), near=near, unsteadiness=unsteadiness),
        unsteadiness=round(unsteadiness, 4),
        reference=_told(glances),
        notes=tuple(notes),
    )


def _told(glances: Sequence[Glance]) -> Reference | None:
    if not glances:
        return None
    return Reference(
        generate_ns=tuple(each.answer_ns for each in glances), prompt_ns=tuple(each.prompt_ns for each in glances)
    )


def _unsteadiness(reference_ns: Sequence[float]) -> float:
    """Relative scatter of single runs of the reference over the whole calibration."""
    return robust_deviation(reference_ns) / median(reference_ns) if reference_ns else 0.0


def _timings(visits: Sequence[_Visit], near: Near) -> list[Timing]:
    """Each test with its runs of all visits, as they would have been at the pace of the whole calibration."""
    usual = _told([each for visit in visits for each in visit.glances])
    found: dict[str, tuple[ProbeRun, Graph]] = {}
    for visit in visits:
        then = _told(visit.glances)
        was = AS_IT_WAS if usual is None or then is None else pace(then, usual)
        for run, graph in zip(visit.runs, visit.graphs, strict=True):
            known, _ = found.setdefault(f"{run.probe.label} {run.test.label}", (run._replace(took_ns=[]), graph))
            slower = was.prompt if run.test.kind == "prompt" else was.generate
            known.took_ns.extend(ns / slower for ns in run.took_ns)
    return [_timing(run, graph, near) for run, graph in found.values()]


def _watch(bench: Bench, probe: Probe, settings: Settings) -> Watch:
    """A watch over the machine that knows our own child, which starts with the first phantom."""
    bench.open(probe.layout, probe_settings(probe, settings), probe.label)
    bench.close([probe.label])
    return Watch(bench.pids, threads=settings.threads, tolerance=_TOLERANCE)


def _groups(probes: Sequence[Probe]) -> list[list[Probe]]:
    """Probes in their order, a few at a time that are open together."""
    groups: list[list[Probe]] = []
    size = 0
    for probe in probes:
        more = weights_bytes(probe.layout)
        if not groups or size + more > _GROUP_BYTES or len(groups[-1]) == _GROUP_PROBES:
            groups.append([])
            size = 0
        groups[-1].append(probe)
        size += more
    return groups


def _turns(groups: Sequence[Sequence[Probe]]) -> list[_Turn]:
    """A visit to every group, then others to the important ones, which share their time among all of theirs."""
    turns: list[_Turn] = []
    for group in groups:
        rank = group[0].rank
        visits = 3 if rank <= _THRICE_UP_TO else 2 if rank <= _TWICE_UP_TO else 1
        turns.append(_Turn(group, _weight(group) / visits, visits))
    thrice = [turn._replace(again=True) for turn in turns if turn.of == 3]
    twice = [turn._replace(again=True) for turn in turns if turn.of >= 2]
    middle = next((place for place, turn in enumerate(turns) if turn.of == 1), len(turns))
    return [*turns[:middle], *thrice, *turns[middle:], *twice]


def _weight(group: Sequence[Probe]) -> float:
    """What share of the time a group gets: the important ones more of it."""
    return sum(1.0 / (1 + probe.rank) for probe in group)


def _visit(
    bench: Bench,
    reference: ReferenceRuns | None,
    turn: _Turn,
    settings: Settings,
    graphs_of: GraphsOf,
    share_s: float,
    notes: list[str],
) -> _Visit:
    """The runs of one group, and what the reference took meanwhile."""
    begin = time.monotonic()
    opened: list[Probe] = []
    try:
        for probe in turn.group:
            try:
                bench.open(probe.layout, probe_settings(probe, settings), probe.label)
                opened.append(probe)
            except EngineError as error:
                if not turn.again:
                    notes.append(f"{probe.label}: {error.message}")
        graphs = [graph for probe in opened for graph in graphs_of(probe, probe_settings(probe, settings))]
        runs = [ProbeRun(probe, test, []) for probe in opened for test in probe.tests]
        glances = timed_rounds(bench, reference, runs, begin + share_s, at_least=max(1, _AT_LEAST // turn.of))
        return _Visit(runs, graphs, glances)
    finally:
        bench.close([probe.label for probe in opened])


def _timing(run: ProbeRun, graph: Graph, near: Near) -> Timing:
    samples = run.took_ns
    typical = median(samples)
    # A few repetitions agree by chance more often than a machine is as steady as that.
    spread = max(_ONE_DOUBT, robust_deviation(samples) / typical if len(samples) > _AT_LEAST else 0.0)
    written = (run.test.tokens - 1) / 2 if run.test.kind == "generate" else 0.0
    return Timing(
        label=f"{run.probe.label} {run.test.label}",
        amounts=amounts(graph, filled=run.test.depth + written, near=near),
        took_ns=typical,
        doubt=math.hypot(_LEAST_DOUBT, spread / len(samples) ** 0.5),
    )


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
