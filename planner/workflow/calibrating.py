"""Calibrates this machine's CPU once and keeps what it found, with all that it holds for.

The mistake it prevents: a calibration taken while another measurement runs, or kept although something disturbed it.
"""

import hashlib
import time
from collections.abc import Mapping
from typing import Literal

import msgspec

from planner import catalogue
from planner.engine.child import EngineChild
from planner.engine.graphs import Graph, GraphQuestion, Graphs
from planner.errors import UsageError
from planner.measure.bench import Bench
from planner.measure.calibration import FACT, Calibration, calibrate_costs
from planner.measure.calibration_design import Probe, probes
from planner.measure.lock import measurement_lock
from planner.measure.store import MeasurementStore
from planner.measure.threads import choose_threads, kept_choice
from planner.types.measurement import Test
from planner.types.model import Quantization
from planner.types.settings import Settings
from planner.workflow.costing import signature_here
from planner.workflow.session import Session, open_session, remembered
from planner.workflow.timing import Progress, core_cache_bytes, last_level_cache_bytes, trial_of

__all__ = ["calibrate", "calibrate_session", "graph_of", "kept"]

_BUDGETS_S: dict[Literal["quick", "full"], float] = {"quick": 12.0, "full": 55.0}
"""With the trial of threads; with the engine's start and the last test a calibration ends within 15 and 60 s."""
_TRIALS_S: dict[Literal["quick", "full"], float] = {"quick": 5.0, "full": 9.0}
"""For finding out how many threads and how they should wait, where no earlier trial has: nine seconds see every race to
its end on two cores, and what was not raced to its end is not taken."""
_WAIT_S = 5.0
_ROOM_SHARE = 4
"""Of the usable memory, what the files of phantoms that are open together may take: repacked weights are a copy."""
_LEAST_S = 3.0
"""Of timing, whatever the trial of threads took."""


_AS_IT_IS = Quantization(name="as-is", ftype=None, bits_per_weight=0.0, kld=None, kld_source=None)
"""Stands for a layout that has its types already."""


def calibrate(
    *,
    effort: Literal["quick", "full"] = "full",
    threads: int | None = None,
    budget_s: float | None = None,
    engine_python: str | None = None,
    progress: Progress | None = None,
) -> Calibration:
    """Time the kinds of work of this machine's CPU and keep what they cost, in the place of an older calibration.

    A quick one does not take the place of a full one that holds for the same machine and settings.

    ``threads`` are those of an earlier trial, else all usable ones. Raises :class:`UsageError` where a GPU computes,
    :class:`BusyError` when another measurement runs.
    """
    known = catalogue.load()
    with open_session(known, None, engine_python) as session:
        return calibrate_session(session, effort=effort, threads=threads, budget_s=budget_s, progress=progress)


def calibrate_session(
    session: Session,
    *,
    effort: Literal["quick", "full"] = "full",
    threads: int | None = None,
    budget_s: float | None = None,
    progress: Progress | None = None,
) -> Calibration:
    """:func:`calibrate` in an open session; kept unless something disturbed it."""
    if session.oracle.has_gpu:
        raise UsageError("the engine computes on a GPU, and a calibration is of the CPU", hint="use planner measure")
    until = time.monotonic() + (budget_s if budget_s is not None else _BUDGETS_S[effort])
    graphs = Graphs(session.oracle)
    designed = probes(
        session.sources.catalogue,
        cache_bytes=last_level_cache_bytes(session.machine),
        quick=effort == "quick",
    )

    def child(env: Mapping[str, str]) -> EngineChild:
        return EngineChild(session.engine_python, env=env)

    def graphs_of(probe: Probe, settings: Settings) -> tuple[Graph, ...]:
        name = hashlib.sha256(msgspec.json.encode(probe.layout, order="sorted")).hexdigest()[:16]
        questions = [graph_of(test, settings) for test in probe.tests]
        return graphs.ask(f"calibration-{name}", lambda: probe.layout, _AS_IT_IS, questions)

    def told(stage: str, done: float, total_s: float) -> None:
        if progress is not None:
            progress("calibrate", done * total_s, total_s, stage)

    with measurement_lock(wait_s=_WAIT_S), Bench(child) as bench:
        settings = _settings(session, bench, threads, trial_s=_TRIALS_S[effort])
        found = calibrate_costs(
            bench,
            designed,
            settings,
            graphs_of,
            signature=signature_here(session, settings),
            budget_s=max(_LEAST_S, until - time.monotonic()),
            near_bytes=core_cache_bytes(session.machine),
            room_bytes=session.machine.memory.usable_bytes // _ROOM_SHARE,
            effort=effort,
            progress=told,
        )
    graphs.flush()
    return found if found.conditions.disturbed else kept(remembered(session), found)


def kept(store: MeasurementStore, found: Calibration) -> Calibration:
    """Keep ``found``, unless it is quick and what is kept for the same machine and settings is not: then say so."""
    earlier = store.find_fact(FACT, Calibration)
    knows_more = earlier is not None and (found.effort, earlier.effort) == ("quick", "full")
    if earlier is None or not knows_more or not _holds_for_the_same(earlier, found):
        store.keep_fact(FACT, found)
        return found
    note = f"not kept: the full calibration of {earlier.taken_at[:10]} holds here and knows more"
    return msgspec.structs.replace(found, notes=(*found.notes, note))


def _holds_for_the_same(one: Calibration, other: Calibration) -> bool:
    return one.openmp_wait == other.openmp_wait and one.signature.differs(other.signature) is None


def _settings(session: Session, bench: Bench, threads: int | None, *, trial_s: float) -> Settings:
    """The settings of phantoms: threads as asked, as an earlier trial found them, or as a short one finds them now.

    How threads wait decides what an operation costs: it is what a plan would use, or the costs are of nobody's runs.
    """
    usable = max(1, session.machine.cpu.usable_threads)
    store = remembered(session)
    settings = Settings(context_tokens=1024, threads=usable, threads_batch=usable)
    if threads is not None:
        kept = kept_choice(store, usable)
        waiting = "passive" if kept is None else kept.openmp_wait
        return msgspec.structs.replace(settings, threads=threads, threads_batch=threads, openmp_wait=waiting)
    choice = choose_threads(bench, trial_of(session), settings, usable_threads=usable, store=store, budget_s=trial_s)
    return choice.applied(settings)


def graph_of(test: Test, settings: Settings) -> GraphQuestion:
    """The micro-batch that ``test`` repeats: a prompt as a whole, or one token of each sequence."""
    if test.kind == "prompt":
        return GraphQuestion(settings=settings, tokens=test.tokens)
    count = test.sequences
    return GraphQuestion(settings=settings, tokens=count, sequences=count, outputs=count)
