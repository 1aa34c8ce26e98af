"""Puts a kept calibration to use: the speeds of any model that the CPU alone computes, and what measurements add to it.

The mistake it prevents: costs used where they do not hold. Other threads, another cache of weights, a draft model or a
machine that is not this one get no speed from here, and the estimator falls back on what it knows in general.
"""

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import msgspec

from planner import machine
from planner.engine.graphs import Graph, GraphQuestion, Graphs
from planner.errors import EngineDiedError, EngineError
from planner.estimate.costs import amounts
from planner.estimate.costs_speeds import alone, graph_questions, speeds_from_costs
from planner.measure.calibration import FACT, Calibration, Signature, signature_of
from planner.measure.pace import pace, usual_pace
from planner.measure.threads import kept_choice
from planner.types.measurement import Measurement, Reference, TestResult
from planner.types.model import Model, Quantization
from planner.types.plan import Speed, Speeds
from planner.types.settings import Settings
from planner.workflow.session import Session, remembered
from planner.workflow.sources import Sources

__all__ = ["Costing", "kept_costing", "signature_here"]

_WORTH_OF_THE_PREDICTION = 0.5
"""The prediction itself weighs as much as half a measured test when measured ones correct it."""
_SPEEDS = ("generate", "prompt", "generate_at_depth", "generate_full", "generate_together")


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
    store = remembered(session)
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
    choice = kept_choice(store, told.threads)
    if choice is not None and choice.openmp_wait != found.openmp_wait:
        return None  # a later trial found another waiting to be faster, and a plan will use that
    return Costing(found, Graphs(session.oracle), session.sources)


class _Lesson(NamedTuple):
    """What one test of a full model says: how many times the predicted nanoseconds it took, and what it was.

    It is as it would have been at the pace of the calibration, where a reference tells how far the machine was from it.
    """

    architecture: str
    kind: str
    ratio: float


class Costing:
    """Speeds from one calibration, corrected by measurements of full models on the same machine and build."""

    def __init__(self, calibration: Calibration, graphs: Graphs, sources: Sources) -> None:
        self._calibration = calibration
        self._graphs = graphs
        self._sources = sources
        self._lessons: dict[str, _Lesson] = {}
        self._paces: dict[str, Reference] = {}

    def speeds(self, model: Model, quantization: Quantization, settings: Settings) -> Speeds | None:
        """Predicted speeds; ``None`` where the calibration does not hold or the engine shows no graph."""
        if not self._holds(settings):
            return None
        graphs = self._shown(model, quantization, graph_questions(settings))
        if graphs is None:
            return None
        told = speeds_from_costs(self._calibration.table, graphs, settings, basis=self._basis(model.architecture))
        usual = usual_pace(self._calibration.reference, tuple(self._paces.values()))
        prompt = usual * self._factor(model.architecture, "prompt")
        answer = usual * self._factor(model.architecture, "generate")
        changed = {
            name: _slower(speed, prompt if name == "prompt" else answer)
            for name in _SPEEDS
            if (speed := getattr(told, name)) is not None
        }
        first = None if told.first_token_s is None else told.first_token_s * prompt
        return msgspec.structs.replace(told, **changed, first_token_s=first)

    def learn(self, measurements: Iterable[tuple[Model, Quantization, Measurement]]) -> None:
        """Take what full models of this machine took; those that were composed from slices say nothing new.

        Models of one architecture are off in the same direction, so each measured one corrects the others. What the
        reference took beside it tells how fast this machine usually is, which holds for every model.
        """
        for model, quantization, measurement in measurements:
            whole = measurement.layers_timed == measurement.layers_total
            # What is asked about gets its waiting from the trial that the calibration got it from; a run had its own.
            alike = measurement.settings.openmp_wait == self._calibration.openmp_wait
            if not alike or measurement.conditions.disturbed or not self._holds(measurement.settings):
                continue
            name = f"{measurement.model} {measurement.quantization}"
            if measurement.reference is not None:
                self._paces[f"{name} {measurement.taken_at}"] = measurement.reference
            if not whole:
                continue
            for result in measurement.results:
                label = f"{name}\0{result.test.label}"
                if label not in self._lessons and result.test.plain and result.test.kind != "mixed":
                    lesson = self._lesson(model, quantization, measurement, result)
                    if lesson is not None:
                        self._lessons[label] = lesson

    def flush(self) -> None:
        """Keep the graphs that were asked for."""
        self._graphs.flush()

    def _holds(self, settings: Settings) -> bool:
        signature = self._calibration.signature
        asked = (settings.threads, settings.threads_batch, settings.repack, settings.flash_attention)
        told = (signature.threads, signature.threads_batch, signature.repack, signature.flash_attention)
        return asked == told and settings.speculation == "none"

    def _shown(
        self, model: Model, quantization: Quantization, questions: Sequence[GraphQuestion]
    ) -> tuple[Graph, ...] | None:
        key, source = self._sources.shape_key(model, quantization), self._sources.layout_source(model, quantization)
        try:
            return self._graphs.ask(key, source, quantization, questions)
        except (EngineError, EngineDiedError):
            return None

    def _lesson(
        self, model: Model, quantization: Quantization, measurement: Measurement, result: TestResult
    ) -> _Lesson | None:
        test, settings = result.test, measurement.settings
        micro = min(test.tokens, settings.ubatch) if test.kind == "prompt" else 1
        graphs = self._shown(model, quantization, [GraphQuestion(settings=alone(settings), tokens=micro)])
        if graphs is None:
            return None
        filled = test.depth + (result.tokens_timed - micro) / 2
        table = self._calibration.table
        took = table.took(amounts(graphs[0], filled=filled, near=table.near))
        if took is None:
            return None
        ratio = micro * 1e9 / result.tokens_per_s.median / took.middle_ns
        here, there = self._calibration.reference, measurement.reference
        if here is not None and there is not None:
            ratio /= pace(there, here)
        return _Lesson(model.architecture, test.kind, ratio)

    def _factor(self, architecture: str, kind: str) -> float:
        """How many times the predicted time models of an architecture take: the geometric mean, drawn towards one."""
        logs = [
            math.log(lesson.ratio)
            for lesson in self._lessons.values()
            if lesson.architecture == architecture and lesson.kind == kind
        ]
        return math.exp(sum(logs) / (len(logs) + _WORTH_OF_THE_PREDICTION))

    def _basis(self, architecture: str) -> str:
        calibration = self._calibration
        text = (
            f"cpu: calibrated here on {calibration.taken_at[:10]} ({calibration.effort}, {calibration.seconds:.0f} s)"
        )
        used = {label.partition("\0")[0] for label, each in self._lessons.items() if each.architecture == architecture}
        if self._paces and calibration.reference is not None:
            text += f", at the usual pace of {len(self._paces) + 1} occasions"
        return f"{text}, corrected by measuring {', '.join(sorted(used))}" if used else text


def _slower(speed: Speed, factor: float) -> Speed:
    return msgspec.structs.replace(
        speed, tokens_per_s=speed.tokens_per_s / factor, low=speed.low / factor, high=speed.high / factor
    )
