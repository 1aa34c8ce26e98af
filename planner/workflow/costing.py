"""Puts a kept calibration to use: the speeds of any model that the CPU alone computes, and what measurements add to it.

The mistake it prevents: costs used where they do not hold. Other threads, another cache of weights, a draft model or a
machine that is not this one get no speed from here, and the estimator falls back on what it knows in general.
"""

from typing import NamedTuple

from planner import machine
from planner.engine.graphs import GraphQuestion, Graphs
from planner.errors import EngineDiedError, EngineError
from planner.estimate.costs import amounts
from planner.estimate.costs_speeds import graph_questions, speeds_from_costs
from planner.estimate.costs_table import CostTable, Timing, learn_costs
from planner.measure.calibration import FACT, Calibration, Signature, signature_of
from planner.measure.store import MeasurementStore
from planner.types.measurement import Measurement, TestResult
from planner.types.model import Model, Quantization
from planner.types.plan import Speeds
from planner.types.settings import Settings
from planner.workflow.session import Session
from planner.workflow.sources import Sources

__all__ = ["Costing", "kept_costing", "signature_here"]

_MODEL_TIMINGS = 24
"""So many tests of full models refine a calibration; more would cost more to solve than they add."""
_MEASURED_DOUBT = 0.015


def signature_here(session: Session, settings: Settings) -> Signature:
    """What a calibration of this session's machine and engine under ``settings`` is signed with."""
    return signature_of(
        settings,
        machine_key=machine.machine_key(session.machine),
        cpu=session.machine.cpu.model or "unknown",
        isa=session.machine.cpu.isa,
        engine_build=session.oracle.system().build,
    )


def kept_costing(session: Session) -> "Costing | None":
    """The calibration of this machine and engine build, ready to predict; ``None`` where there is none that holds."""
    if not session.local or session.oracle.has_gpu:
        return None
    store = MeasurementStore(machine.machine_key(session.machine), session.oracle.system().build)
    found = store.find_fact(FACT, Calibration)
    if found is None:
        return None
    told = found.signature
    settings = Settings(
        context_tokens=1024,
        threads=told.threads,
        threads_batch=told.threads_batch,
        repack=told.repack,
        flash_attention=told.flash_attention,
    )
    if told.differs(signature_here(session, settings)) is not None:
        return None
    return Costing(found, Graphs(session.oracle), session.sources)


class _Subject(NamedTuple):
    model: Model
    quantization: Quantization
    settings: Settings


class Costing:
    """Speeds from one calibration, refined by measurements of full models on the same machine and build."""

    def __init__(self, calibration: Calibration, graphs: Graphs, sources: Sources) -> None:
        self._calibration = calibration
        self._graphs = graphs
        self._sources = sources
        self._table: CostTable = calibration.table
        self._added: dict[str, Timing] = {}

    def speeds(self, model: Model, quantization: Quantization, settings: Settings) -> Speeds | None:
        """Predicted speeds; ``None`` where the calibration does not hold or the engine shows no graph."""
        if not self._holds(settings):
            return None
        key, source = self._sources.shape_key(model, quantization), self._sources.layout_source(model, quantization)
        try:
            graphs = self._graphs.ask(key, source, quantization, graph_questions(settings))
        except (EngineError, EngineDiedError):
            return None
        return speeds_from_costs(self._table, graphs, settings, basis=self._basis())

    def learn(self, measurements: list[tuple[Model, Quantization, Measurement]]) -> None:
        """Add what full models of this machine took; those that were composed from slices say nothing new."""
        found = dict(self._added)
        for model, quantization, measurement in measurements:
            if measurement.conditions.disturbed or measurement.layers_timed < measurement.layers_total:
                continue
            if not self._holds(measurement.settings):
                continue
            for result in measurement.results:
                label = f"{measurement.model} {measurement.quantization} {result.test.label}"
                if label not in found and result.test.plain and result.test.kind != "mixed":
                    timing = self._timing(_Subject(model, quantization, measurement.settings), result, label)
                    if timing is not None:
                        found[label] = timing
        if found.keys() != self._added.keys():
            self._added = dict(list(found.items())[-_MODEL_TIMINGS:])
            self._table = learn_costs((*self._calibration.table.timings, *self._added.values()))

    def flush(self) -> None:
        """Keep the graphs that were asked for."""
        self._graphs.flush()

    def _holds(self, settings: Settings) -> bool:
        signature = self._calibration.signature
        asked = (settings.threads, settings.threads_batch, settings.repack, settings.flash_attention)
        told = (signature.threads, signature.threads_batch, signature.repack, signature.flash_attention)
        return asked == told and settings.speculation == "none"

    def _timing(self, subject: _Subject, result: TestResult, label: str) -> Timing | None:
        model, quantization, settings = subject
        test = result.test
        micro = min(test.tokens, settings.ubatch) if test.kind == "prompt" else 1
        question = GraphQuestion(settings=settings, tokens=micro)
        key, source = self._sources.shape_key(model, quantization), self._sources.layout_source(model, quantization)
        try:
            (graph,) = self._graphs.ask(key, source, quantization, [question])
        except (EngineError, EngineDiedError):
            return None
        filled = test.depth + (result.tokens_timed - micro) / 2
        return Timing(
            label=label,
            amounts=amounts(graph, filled=filled),
            took_ns=micro * 1e9 / result.tokens_per_s.median,
            doubt=max(_MEASURED_DOUBT, result.tokens_per_s.relative_mad),
        )

    def _basis(self) -> str:
        calibration = self._calibration
        text = f"cpu: calibrated here on {calibration.taken_at[:10]} ({calibration.effort}, {calibration.seconds:.0f} s"
        added = len({" ".join(label.split(" ")[:2]) for label in self._added})
        return f"{text}, and {added} measured models)" if added else f"{text})"
