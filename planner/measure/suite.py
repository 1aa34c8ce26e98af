"""Measures one candidate: pilot, interleaved repetitions within a budget, medians with spread, and a verdict.

Interleaved means round by round over all tests (and slices), each second round backwards, so that a machine that
warms up or gets busy hits all of them alike. A candidate that is too large for the time at hand is timed as slices and
added up; the result then says ``predicted`` and how many layers were timed. The mistake it prevents is a number that
looks measured and is not.
"""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from statistics import median

import msgspec

from planner.errors import EngineError, MeasurementInvalidError
from planner.measure.bench import Bench, Progress, Run, no_progress
from planner.measure.budget import EFFORTS, Allotment, Effort, TokenCost, allot
from planner.measure.conditions import Watch
from planner.measure.reference import ReferenceRuns
from planner.measure.slices import SlicePlan, compose, outside_bytes, plan_slices, retyped, weights_bytes
from planner.measure.statistics import disturbances, is_warm, noise_note, outlier_note, rates, relative_mad, spread
from planner.types.measurement import Conditions, Described, Measurement, Spread, Test, TestResult
from planner.types.model import Layout
from planner.types.settings import Settings

__all__ = ["Subject", "default_tests", "measure_candidate"]

_LOAD_SHARE = 0.4
"""A full-size phantom may spend this share of the budget on loading; beyond, slices are timed."""
_LONGEST_LOAD_SHARE = 0.7
"""Nothing is loaded that would take more than this share of the budget."""
_PILOT_SHARE = 0.25
_PILOT_TOKENS = {"generate": 2, "prompt": 32, "mixed": 40}
_SHORTEST_DEADLINE_S = 20.0
_OVERRUN = 1.5
"""So many times its budget a race may take to reach the fewest repetitions; then it ends and is not believed."""
_PATIENCE = 10.0  # a run may take so many times its predicted time before the child counts as hung
_BYTES_PER_S_AT_LEAST = 0.3e9  # decode speed before any pilot, for deadlines only


@dataclass(frozen=True, kw_only=True)
class Subject:
    """What is measured. Layouts are made only when needed: an answer that is kept needs none.

    ``whole`` is the model's layout with the quantization's types; ``part`` the layout of some of its layers (original
    indices) in any types. ``resident_bytes`` is what a full-size run holds, ``usable_bytes`` what there is,
    ``cache_bytes`` the last-level cache. ``file`` is a real file whose own weights are timed (of a split set, the
    first), ``described`` what is known of engine and machine in llama-bench's words.
    """

    model: str
    quantization: str
    shape_key: str
    whole: Callable[[], Layout]
    part: Callable[[Sequence[int]], Layout]
    resident_bytes: int | None
    usable_bytes: int
    cache_bytes: int
    file: Path | None = None
    described: Described = field(default_factory=Described)


def default_tests(context_tokens_per_sequence: int, *, quick: bool = False) -> tuple[Test, ...]:
    """pp512 and tg128 as llama-bench has them, and tg128 at half the planned context unless it is ``quick``."""
    prompt = Test(kind="prompt", tokens=min(512, context_tokens_per_sequence))
    generate = Test(kind="generate", tokens=min(128, context_tokens_per_sequence))
    depth = context_tokens_per_sequence // 2
    if quick or depth + generate.tokens > context_tokens_per_sequence:
        return (prompt, generate)
    return (prompt, generate, Test(kind="generate", tokens=generate.tokens, depth=depth))


def measure_candidate(
    bench: Bench,
    subject: Subject,
    settings: Settings,
    tests: Sequence[Test],
    *,
    machine_key: str,
    engine_build: str,
    budget_s: float,
    effort: Effort = "full",
    whole_tests: bool = False,
    reference: Layout | None = None,
    progress: Progress = no_progress,
) -> Measurement:
    """Time ``tests`` on ``subject`` under ``settings`` within about ``budget_s``, loading included.

    ``whole_tests`` keeps every test at its full length, whatever the budget: three repetitions of all are then timed
    even where that takes longer. ``reference`` is a small phantom that is timed once in every round, which tells two
    states of the machine apart (:mod:`planner.measure.reference`). A disturbed run is returned, not raised:
    ``conditions.disturbed`` says why it must not be used. A test whose depth could not be reached in time is left out
    and named in ``notes``. Raises :class:`EngineError` when the engine refuses, :class:`EngineDiedError` when the child
    dies (out of memory among others), :class:`MeasurementInvalidError` when not a single test could be timed.
    """
    begin = time.monotonic()
    whole = subject.whole()
    plan = _plan(bench, subject, settings, whole, budget_s)
    layouts = [whole] if plan is None else [retyped(subject.part(each.layers), whole) for each in plan.slices]
    labels = [f"slice-{index}" for index in range(len(layouts))] if plan else ["whole"]
    try:
        for label, layout in zip(labels, layouts, strict=True):
            if plan is None and subject.file is not None:
                progress("loading the model", 0.0, budget_s)
                bench.open_file(subject.file, settings, label, size_bytes=weights_bytes(layout))
                begin = time.monotonic()  # reading a real file from a disk is no part of the timing
            else:
                bench.open(layout, settings, label, usable_bytes=subject.usable_bytes, progress=progress)
        left_s = max(budget_s - (time.monotonic() - begin), 0.3 * budget_s)
        size = max(weights_bytes(layout) for layout in layouts)
        beside = None if reference is None else ReferenceRuns(bench, reference, settings)
        race = _Race(bench, labels, list(tests), effort, size, whole_tests, beside, progress)
        watch = race.pilot(left_s * _PILOT_SHARE, threads=_most_threads(settings, tests))
        left_s = max(budget_s - (time.monotonic() - begin), 0.3 * budget_s)
        race.run(left_s)
        conditions = watch.finish()
    finally:
        bench.close(labels)
    results = [result for index in range(len(race.tests)) if (result := _result(race, index, plan)) is not None]
    if not results:
        why = "; ".join((*race.skipped, *conditions.disturbed))
        raise MeasurementInvalidError(f"no test could be timed: {why}", hint="try again when the machine is idle")
    return Measurement(
        model=subject.model,
        quantization=subject.quantization,
        settings=settings,
        engine_build=engine_build,
        machine_key=machine_key,
        taken_at=datetime.now(UTC).isoformat(timespec="seconds"),
        layers_timed=plan.layers_timed if plan else len(whole.layers),
        layers_total=len(whole.layers),
        results=tuple(results),
        conditions=_judged(conditions, race),
        contents="phantom" if plan is not None or subject.file is None else "file",
        described=_described(bench, subject, whole, plan),
        reference=None if beside is None else beside.told(),
        notes=_notes(race, plan),
    )


def _plan(bench: Bench, subject: Subject, settings: Settings, whole: Layout, budget_s: float) -> SlicePlan | None:
    """``None`` to time the whole model, else the slices: memory and loading time decide.

    Layers spread over devices are not alike, whatever their kind, so a model that is split is timed whole. Raises
    :class:`EngineError` (code ``too-large-to-time``) when neither can be loaded in the time there is.
    """
    size = weights_bytes(whole)
    held = subject.resident_bytes if subject.resident_bytes is not None else 2 * size
    fits = held <= subject.usable_bytes
    if fits and subject.file is not None:
        return None
    affordable_s = _LOAD_SHARE * budget_s
    if fits and bench.load_s(size) <= affordable_s:
        return None
    # Mapped weights and their repacked copy may both be held, hence a third of what is usable. Larger slices say more,
    # so the time is stretched only where the smallest do not fit into it.
    split = settings.gpu_layers > 0 or settings.cpu_moe_layers != 0
    once = outside_bytes(retyped(subject.part((0,)), whole))
    for stretch in () if split else (1.0, _LONGEST_LOAD_SHARE / _LOAD_SHARE):
        limit = min(subject.usable_bytes / 3, stretch * affordable_s * bench.load_bytes_per_s)
        plan = plan_slices(whole, cache_bytes=subject.cache_bytes, budget_bytes=int(limit), once_bytes=once)
        if plan is not None:
            return plan
    if fits and bench.load_s(size) <= _LONGEST_LOAD_SHARE * budget_s:
        return None
    raise EngineError(
        f"neither {subject.model} {subject.quantization} nor slices of it load in the {budget_s:.0f} s there are",
        hint="measure without --quick, or plan with --no-measure",
        code="too-large-to-time",
    )


class _Race:
    """The rounds of one candidate: samples by test and label, with what the pilot learnt of each test."""

    def __init__(
        self,
        bench: Bench,
        labels: list[str],
        tests: list[Test],
        effort: Effort,
        size_bytes: int,
        whole_tests: bool,
        reference: ReferenceRuns | None,
        progress: Progress,
    ) -> None:
        self._bench = bench
        self._reference = reference
        self._progress = progress
        self._limits = EFFORTS[effort]
        self._whole_tests = whole_tests
        self.at_least = self._limits.at_least
        self._token_s = size_bytes / _BYTES_PER_S_AT_LEAST
        self.labels = labels
        self.tests = tests
        self.costs: list[TokenCost] = []
        self.tokens: tuple[int, ...] = ()
        self.samples: dict[tuple[int, str], list[int]] = {}
        self.skipped: list[str] = []
        self.filled_with_zeros: set[Test] = set()

    def pilot(self, budget_s: float, *, threads: int) -> Watch:
        """Warm every test up and learn its cost; tests whose depth is out of reach are dropped. Then watch."""
        share_s = budget_s / len(self.tests)
        reached: list[Test] = []
        for place, test in enumerate(self.tests):
            self._progress(f"warming up {test.words}", place / len(self.tests), budget_s)
            cost = self._warm_up(test, share_s / len(self.labels))
            if cost is None:
                self.skipped.append(f"{test.words} left out: computing that depth takes longer than the time there is")
            else:
                reached.append(test)
                self.costs.append(cost)
        self.tests = reached
        return Watch(self._bench.pids, threads=threads)

    def run(self, budget_s: float) -> None:
        """Interleaved rounds: as many as were allotted, more (up to a limit) while results scatter and time is left."""
        allotment = allot(self.costs, budget_s, self._limits)
        if self._whole_tests:
            allotment = allotment._replace(tokens=tuple(test.tokens for test in self.tests))
        self.tokens = allotment.tokens
        begin = time.monotonic()
        done = 0
        while self._goes_on(done, allotment, time.monotonic() - begin, budget_s):
            self._progress("timing", min(done / allotment.repetitions, 1.0), allotment.total_s)
            self._round(done)
            done += 1
        self._progress("timing", 1.0, allotment.total_s)

    def _goes_on(self, done: int, allotment: Allotment, spent_s: float, budget_s: float) -> bool:
        if done < self.at_least:
            # A machine that became busy after the pilot must not hold the user up for minutes.
            return done == 0 or self._whole_tests or spent_s * (done + 1) / done <= _OVERRUN * budget_s
        fits = spent_s * (done + 1) / done <= budget_s
        if done < allotment.repetitions:
            return fits
        return fits and done < self._limits.most and any(relative_mad(each) > 0.02 for each in self.samples.values())

    def _round(self, number: int) -> None:
        if self._reference is not None:
            self._reference.once()
        lanes = [(index, label) for index in range(len(self.tests)) for label in self.labels]
        for index, label in lanes if number % 2 == 0 else reversed(lanes):
            cost = self.costs[index]
            predicted_s = cost.around_s + self.tokens[index] * cost.per_token_s
            run = self._bench.run(
                label, self.tests[index], tokens=self.tokens[index], deadline_s=_deadline(predicted_s + 20.0)
            )
            self.samples.setdefault((index, label), []).extend(run.samples_ns)

    def _warm_up(self, test: Test, share_s: float) -> TokenCost | None:
        """Cost of a token of ``test`` over all labels; ``None`` when the depth was not reached."""
        tokens = min(_PILOT_TOKENS[test.kind], test.tokens)
        per_token, around = 0.0, 0.0
        for label in self.labels:
            runs: list[Run] = []
            while not runs or not (is_warm([each.ns_per_token for each in runs]) or _spent(runs) > share_s):
                run = self._bench.run(
                    label,
                    test,
                    tokens=tokens,
                    budget_s=share_s,
                    fill_budget_s=max(share_s, 1.0),
                    deadline_s=_deadline(tokens * self._token_s + 2 * share_s),
                )
                if not run.samples_ns:
                    return None
                runs.append(run)
            if runs[0].filled_by == "zeros":
                self.filled_with_zeros.add(test)
            per_token += runs[-1].ns_per_token / 1e9
            around += max(0.0, runs[-1].wall_s - runs[-1].samples_ns[0] / 1e9)
        return TokenCost(test, per_token, around)


def _most_threads(settings: Settings, tests: Sequence[Test]) -> int:
    """The most threads that any of the tests computes with."""
    return max(settings.threads, *(test.threads or 1 for test in tests))


def _described(bench: Bench, subject: Subject, whole: Layout, plan: SlicePlan | None) -> Described:
    """What is told of the model; of a sliced one by its layout, since the engine has seen only parts."""
    if plan is None:
        told = bench.described["whole"]
    else:
        told = Described(
            model_type=f"{whole.architecture} {subject.quantization}",
            model_size_bytes=weights_bytes(whole),
            parameters=sum(math.prod(tensor.dims) for tensor in whole.tensors),
        )
    model = {name: getattr(told, name) for name in ("model_type", "model_size_bytes", "parameters")}
    return msgspec.structs.replace(subject.described, **model)


def _deadline(predicted_s: float) -> float:
    return max(_SHORTEST_DEADLINE_S, _PATIENCE * predicted_s)


def _spent(runs: Sequence[Run]) -> float:
    return sum(run.wall_s for run in runs)


def _result(race: _Race, index: int, plan: SlicePlan | None) -> TestResult | None:
    test, tokens = race.tests[index], race.tokens[index]
    samples = [race.samples[index, label] for label in race.labels]
    if plan is None:
        return TestResult(
            test=test,
            tokens_timed=tokens,
            samples_ns=tuple(samples[0]),
            tokens_per_s=spread(rates(tokens * test.sequences, samples[0])),
        )
    processed = tokens * test.sequences
    composed = compose(plan, samples)
    if composed is None:
        race.skipped.append(f"{test.words} left out: the slices' times do not add up, the noise is larger than a layer")
        return None
    return TestResult(
        test=test,
        tokens_timed=tokens,
        samples_ns=tuple(round(value) for value in composed.rounds),
        tokens_per_s=Spread(
            median=processed * 1e9 / composed.middle,
            low=processed * 1e9 / composed.high,
            high=processed * 1e9 / composed.low,
            relative_mad=median(relative_mad(each) for each in samples),
        ),
        origin="predicted",
    )


def _judged(conditions: Conditions, race: _Race) -> Conditions:
    """The machine's state with what the samples themselves say."""
    found = [
        f"{race.tests[index].words}: {sentence}"
        for (index, _label), samples in race.samples.items()
        for sentence in disturbances(samples)
    ]
    done = min(len(samples) for samples in race.samples.values())
    if done < race.at_least:
        found.append(f"only {done} of {race.at_least} repetitions fit into the time")
    return msgspec.structs.replace(conditions, disturbed=(*conditions.disturbed, *dict.fromkeys(found)))


def _notes(race: _Race, plan: SlicePlan | None) -> tuple[str, ...]:
    notes = list(race.skipped)
    if plan is not None:
        sizes = " and ".join(str(len(each.layers)) for each in plan.slices)
        notes.append(f"composed from slices of {sizes} layers, interleaved")
        if plan.merged:
            notes.append("rare kinds of layer were counted as a similar one in proportion to their bytes")
    for test, tokens in zip(race.tests, race.tokens, strict=True):
        if tokens < test.tokens:
            notes.append(f"{test.words}: {tokens} of {test.tokens} tokens timed in each repetition")
        if test in race.filled_with_zeros:
            notes.append(f"{test.words}: the cache was filled with zeros up to the depth")
    for (index, _label), samples in race.samples.items():
        found = (noise_note(samples), outlier_note(samples))
        notes.extend(f"{race.tests[index].words}: {note}" for note in found if note is not None)
    return tuple(dict.fromkeys(notes))
