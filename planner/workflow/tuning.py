"""Finds the settings that are fastest for one model here, proves them against the defaults, and keeps them.

The mistake it prevents: a plan, a measurement and a tuning that know three different answers about threads. What is
found is kept where the trial of threads keeps its own, for this model first and for the machine.
"""

import math
import time
from collections.abc import Callable
from datetime import UTC, datetime
from statistics import median
from typing import NamedTuple

from msgspec.structs import replace

from planner import catalogue
from planner.choose.policy import typical_request
from planner.errors import EngineError, UsageError
from planner.machine.places import places
from planner.measure.bench import Progress as BenchProgress
from planner.measure.lock import measurement_lock
from planner.measure.racing import Found, UnusableError, Workload, search
from planner.measure.racing_bench import BenchTrack, Lengths, bench_of, child_environment, trial_layout
from planner.measure.racing_space import Ground, setting_changes
from planner.measure.racing_told import gains, trials
from planner.measure.slices import weights_bytes
from planner.measure.suite import Subject
from planner.measure.threads import FACT, ThreadChoice, tuned_fact
from planner.render.commands import offloads, weights_file, yarn
from planner.render.tune import python_call, server_command
from planner.render.waiting import spinning
from planner.types.estimate import Estimate, Refusal
from planner.types.machine import Machine
from planner.types.measurement import Conditions
from planner.types.model import Layout, Model, Quantization
from planner.types.plan import Candidate, Use
from planner.types.settings import CacheType, Settings
from planner.types.tuning import Setup, Tuning
from planner.workflow.estimator import CandidateEstimator
from planner.workflow.measuring import own_file
from planner.workflow.requests import EstimateRequest, named_files, requested_settings, subject_in
from planner.workflow.session import Session, open_session, remembered
from planner.workflow.timing import Progress, subject_of

__all__ = ["tune"]

_WAIT_S = 5.0
_WHOLE_SHARE = 0.015
"""A model is raced whole where one load takes at most this share of the time: ten setups need a load of their own, and
a run of all of a large model takes as long as many of a slice."""
_LOAD_BYTES_PER_S = 0.7e9
_LOADED_AT_ONCE = 3
_DEEPEST = 1024
_GENERATE_S, _PROMPT_S = 0.12, 0.35
"""About what one run takes: long enough to be no flicker, short enough for a dozen pairs of each setting."""
_PROMPTS = (512, 256, 128, 64, 32)
_LEAST_S = 5.0
_FACTORS = {
    "load_mode": "load mode",
    "flash_attention": "flash attention",
    "ubatch": "ubatch",
    "batch": "ubatch",
    "gpu_layers": "gpu layers",
    "cpu_moe_layers": "experts in RAM",
    "cache_type_k": "cache type",
}
"""The factor that is left alone when a field of the request was given."""


def tune(
    request: EstimateRequest,
    *,
    use: Use = "chat",
    budget_s: float = 60.0,
    cache_types: tuple[CacheType, ...] = (),
    progress: Progress | None = None,
) -> Tuning:
    """The fastest settings of one model for a typical request of ``use``, in about ``budget_s``, and what was tried.

    What the request names is left as it is; ``cache_types`` are tried because somebody asked for them. A small model is
    raced whole, its own file where it lies on this disk, a large one as a slice. Kept for plans, unless something
    disturbed it. Raises :class:`UsageError` for a machine that is not this one, :class:`EngineError` when the engine
    refuses the model, :class:`BusyError` when another measurement runs.
    """
    begin = time.monotonic()
    if request.machine is not None:
        raise UsageError("only this machine can be tuned", hint="leave out --machine")
    known = catalogue.load()
    files = named_files(known, request)
    with open_session(known, None, request.engine_python) as session:
        model, quantization, context = subject_in(session, request, files)
        settings = requested_settings(request, session.machine, context)
        asked = _Asked(session, request, model, quantization, settings, use, cache_types)
        return _tuned(asked, begin, budget_s, progress)


class _Asked(NamedTuple):
    """What is to be tuned."""

    session: Session
    request: EstimateRequest
    model: Model
    quantization: Quantization
    settings: Settings
    use: Use
    cache_types: tuple[CacheType, ...]

    @property
    def name(self) -> str:
        return f"{self.model.id} {self.quantization.name}"

    def candidate(self, estimate: Estimate, settings: Settings) -> Candidate:
        """The candidate that the commands are written for."""
        return Candidate(
            model=self.model.id,
            quantization=self.quantization.name,
            settings=settings,
            file_bytes=estimate.file_bytes,
            memory=estimate.memory,
            speed=estimate.speed,
            verdict="fits",
            score=0.0,
            artifact=self.session.sources.artifact(self.model.id, self.quantization.name),
        )


class _Raced(NamedTuple):
    """What the race left, with what it ran on."""

    default: Setup
    found: Found[Setup]
    layout: Layout
    own_file: bool
    conditions: Conditions


def _tuned(asked: _Asked, begin: float, budget_s: float, progress: Progress | None) -> Tuning:
    session = asked.session
    estimator = CandidateEstimator(session.oracle, session.sources, session.machine)
    estimate = estimator(asked.model, asked.quantization, asked.settings)
    if isinstance(estimate, Refusal):
        raise EngineError(f"{asked.name}: {estimate.text}", hint="change the setting it names")
    file = own_file(session, asked.model.id, asked.quantization.name)
    subject = subject_of(session, asked.model, asked.quantization, estimate.memory, file=file)
    workload = Workload(*typical_request(asked.use, thinking=asked.use == "reasoning"))

    def told(stage: str, done: float, total: float) -> None:
        if progress is not None:
            progress("tune", done * total, total, f"{asked.name}: {stage}")

    def left_s() -> float:
        return max(_LEAST_S, budget_s - (time.monotonic() - begin))

    with measurement_lock(wait_s=_WAIT_S):
        raced = _race(asked, subject, workload, left_s, told)
    tuning = _written(asked, raced, workload, estimate, estimator, time.monotonic() - begin)
    if not tuning.conditions.disturbed:
        _keep(session, subject, raced, tuning)
    return tuning


def _race(
    asked: _Asked, subject: Subject, workload: Workload, left_s: Callable[[], float], told: BenchProgress
) -> _Raced:
    """Race everything that makes sense here from llama.cpp's defaults on."""
    session, gpu = asked.session, asked.session.oracle.has_gpu
    layout, whole = _raced_layout(subject, left_s())
    tokens = min(_DEEPEST, workload.prompt_tokens + workload.answer_tokens // 2)
    room = _DEEPEST + 2 * max(_PROMPTS)
    threads = _default_threads(session.machine)
    settings = replace(
        asked.settings, context_tokens=room, parallel=1, threads=threads, threads_batch=threads, openmp_wait="default"
    )
    default = Setup(settings=settings)
    ground = _ground(asked, threads, len(layout.layers) if whole and gpu else 0)
    with BenchTrack(
        lambda setup: bench_of(setup, session.engine_python, random_weights=gpu),
        layout,
        lengths=Lengths(depth=tokens),
        file=subject.file if whole else None,
        progress=told,
    ) as track:
        try:
            track.enter((default,))
            track.lengths = _lengths(track, default, tokens)
        except UnusableError as error:
            message = f"{asked.name} does not run with llama.cpp's defaults: {error.message}"
            raise EngineError(message, hint="name a setting that fits, such as --gpu-layers or --load-mode") from error
        ground = ground._replace(prompt_tokens=track.lengths.prompt)
        taken = {_FACTORS[name] for name in _FACTORS if getattr(asked.request, name) is not None}
        changes = tuple(each for each in setting_changes(ground) if each.factor not in taken)
        found = search(track, default, changes, workload, budget_s=left_s())
        conditions = track.conditions
    return _Raced(default, found, layout, whole and subject.file is not None, conditions)


def _raced_layout(subject: Subject, budget_s: float) -> tuple[Layout, bool]:
    """The whole model where it loads quickly and fits three times, else its first layers; and which of the two."""
    whole = subject.whole()
    size = weights_bytes(whole)
    held = subject.resident_bytes if subject.resident_bytes is not None else 2 * size
    if size <= _WHOLE_SHARE * budget_s * _LOAD_BYTES_PER_S and _LOADED_AT_ONCE * held <= subject.usable_bytes:
        return whole, True
    part = trial_layout(subject)
    return part, len(part.layers) == len(whole.layers)


def _lengths(track: BenchTrack, default: Setup, depth: int) -> Lengths:
    """Runs of about equal length on any machine."""
    generate_s, prompt_s = track.time_s(default, "generate"), track.time_s(default, "prompt")
    written = max(4, min(64, round(_GENERATE_S / generate_s)))
    read = next((count for count in _PROMPTS if count * prompt_s <= _PROMPT_S), _PROMPTS[-1])
    return Lengths(generate=written, prompt=read, depth=depth)


def _default_threads(here: Machine) -> int:
    """What llama-server takes by itself: a thread for each physical core, of the strongest kind where kinds differ."""
    cpu = here.cpu
    if len(cpu.core_kinds) > 1:
        return max(1, cpu.core_kinds[0].cores)
    return max(1, cpu.physical_cores or cpu.logical_cpus)


def _ground(asked: _Asked, default_threads: int, layers: int) -> Ground:
    here, found = asked.session.machine, places()
    return Ground(
        usable_threads=max(1, here.cpu.usable_threads),
        default_threads=default_threads,
        one_per_core=found.one_per_core,
        performance=found.performance,
        numa_nodes=sum(1 for node in here.cpu.numa_nodes if node.logical_cpus),
        huge_pages=found.huge_pages_on_request,
        gpus=sum(1 for each in asked.session.oracle.system().devices if each.kind in ("gpu", "igpu")),
        layers=layers,
        experts=(asked.model.size("n_expert") or 0) > 0,
        cache_types=asked.cache_types,
    )


def _written(
    asked: _Asked,
    raced: _Raced,
    workload: Workload,
    estimate: Estimate,
    estimator: CandidateEstimator,
    seconds: float,
) -> Tuning:
    """The document; commands only where something is recommended."""
    session, found = asked.session, raced.found
    recommended = None if raced.conditions.disturbed else _at_home(found.winner, asked.settings)
    answer, generate, prompt = gains(found)
    tuning = Tuning(
        model=asked.model.id,
        quantization=asked.quantization.name,
        use=asked.use,
        prompt_tokens=workload.prompt_tokens,
        answer_tokens=workload.answer_tokens,
        default=_at_home(raced.default, asked.settings),
        recommended=recommended,
        answer=answer,
        generate=generate,
        prompt=prompt,
        trials=trials(found, workload),
        not_tried=tuple(f"{change.factor} {change.option}" for change in found.not_tried),
        seconds=seconds,
        layers_timed=len(raced.layout.layers),
        layers_total=_layers(asked),
        contents="file" if raced.own_file else "phantom",
        machine_key=remembered(session).machine_key,
        engine_build=session.oracle.system().build,
        taken_at=datetime.now(UTC).isoformat(timespec="seconds"),
        conditions=raced.conditions,
        notes=_confirmation_notes(found),
    )
    return tuning if recommended is None else _with_commands(tuning, asked, recommended, estimate, estimator)


def _with_commands(
    tuning: Tuning, asked: _Asked, setup: Setup, estimate: Estimate, estimator: CandidateEstimator
) -> Tuning:
    candidate = asked.candidate(estimate, setup.settings)
    file, offload = weights_file(candidate, asked.model), offloads(candidate)
    variables = child_environment(setup)
    return replace(
        tuning,
        llama_server=server_command(setup, weights_file=file, offload=offload, yarn=yarn(candidate, asked.model)),
        environment=variables,
        llama_cpp_python=python_call(setup, variables, weights_file=file, offload=offload),
        notes=(*tuning.notes, *_memory_notes(asked, setup, estimate, estimator), *_waiting_notes(setup)),
    )


def _confirmation_notes(found: Found[Setup]) -> tuple[str, ...]:
    """What became of a winner that did not win against the defaults again."""
    if found.last is None or found.confirmed or not found.last.total:
        return ()
    won = ", ".join(f"{raced.change.factor} {raced.change.option}" for raced in found.races if raced.accepted)
    times = math.exp(-median(found.last.total))
    return (
        f"{won} won, and was {times:.2f} times as fast as the defaults in the last race, which is not clear enough",
    )


def _memory_notes(asked: _Asked, setup: Setup, estimate: Estimate, estimator: CandidateEstimator) -> tuple[str, ...]:
    """What the recommended settings need more than the defaults, where they no longer fit."""
    needed = estimator(asked.model, asked.quantization, setup.settings)
    if isinstance(needed, Refusal):
        return (f"the engine refuses these settings for the whole context: {needed.text}",)
    fitted = all((row.headroom_bytes or 0) >= 0 for row in estimate.memory)
    lacking = [row.device for row in needed.memory if (row.headroom_bytes or 0) < 0]
    return (f"with these settings the model no longer fits on {', '.join(lacking)}",) if fitted and lacking else ()


def _waiting_notes(setup: Setup) -> tuple[str, ...]:
    sentence = spinning(setup.settings)
    return () if sentence is None else (sentence,)


def _at_home(setup: Setup, asked: Settings) -> Setup:
    """A setup of the race with the context and the sequences that were asked for."""
    settings = replace(setup.settings, context_tokens=asked.context_tokens, parallel=asked.parallel)
    return replace(setup, settings=settings)


def _layers(asked: _Asked) -> int:
    sources = asked.session.sources
    return len(sources.layout(asked.model, asked.quantization).layers)


def _keep(session: Session, subject: Subject, raced: _Raced, tuning: Tuning) -> None:
    """Keep threads and waiting for plans: for this model, and for the machine."""
    won = raced.found.winner.settings
    usable = max(1, session.machine.cpu.usable_threads)
    choice = ThreadChoice(
        threads=min(won.threads, usable),
        threads_batch=min(won.threads_batch, usable),
        openmp_wait=won.openmp_wait,
        basis=f"planner tune of {tuning.model} {tuning.quantization}, {len(tuning.trials)} races",
    )
    store = remembered(session)
    for fact in (FACT, tuned_fact(subject.shape_key, subject.quantization)):
        store.keep_fact(fact, choice)
