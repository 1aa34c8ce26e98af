"""Answers "what would this hold and how fast would it be?" for any candidate, from the engine and from measurements.

This is the callable that the choose room searches with. It asks the engine, with the GPUs that it has or with
phantoms of those that are elsewhere, and puts a measured speed in the place of a predicted one as soon as there is one.
"""

import msgspec

from planner.engine.answers import Buffers, Weights
from planner.engine.devices import device_names
from planner.engine.oracle import Oracle
from planner.errors import BadInputError, EngineDiedError, EngineError
from planner.estimate.devices import memory_on_devices
from planner.estimate.memory import host_memory
from planner.estimate.rows import with_extras
from planner.estimate.speed import Calibration, TimedRun, calibrate, kernel_of
from planner.estimate.stages import active_bytes, predicted_speeds, structure_of
from planner.measure.difference import machine_scatter
from planner.measure.threads import KnownThreads
from planner.types.estimate import Estimate, LayerSize, Refusal
from planner.types.machine import Machine
from planner.types.measurement import Measurement, TestResult
from planner.types.model import Model, Quantization
from planner.types.plan import Candidate, DeviceMemory, MemoryOrigin, Speed, Speeds
from planner.types.settings import Settings
from planner.workflow.companions import Companions
from planner.workflow.costing import Costing
from planner.workflow.sources import Sources

__all__ = ["CandidateEstimator"]

# An idle engine process where /proc does not tell: CPython with the binding and ggml's CPU libraries.
_PROCESS_BYTES = 48 << 20
_GENERATE, _PROMPT = "generate", "prompt"


class CandidateEstimator:
    """Memory and speed of candidates on one machine; learns from measurements (:meth:`learn`).

    With ``costing``, a calibration of this machine's CPU, speeds come from it; of what does not fit only
    ``if_memory``. Of measurements only those count that ran as their model would now, by ``threads``: waiting otherwise
    may take three times as long.
    """

    def __init__(
        self,
        oracle: Oracle,
        sources: Sources,
        machine: Machine,
        companions: Companions | None = None,
        *,
        costing: Costing | None = None,
        threads: KnownThreads | None = None,
        if_memory: bool = False,
    ) -> None:
        self._oracle = oracle
        self._companions = companions or Companions(oracle, sources, machine)
        self._sources = sources
        self._machine = machine
        self._costing = costing
        self._threads = threads
        self._if_memory = if_memory
        self._process_bytes = oracle.system().process_bytes or _PROCESS_BYTES
        self._measured: dict[tuple[str, str, str], list[Measurement]] = {}
        self._calibrations: tuple[Calibration, ...] = ()
        self._aside: dict[tuple[str, str], str] = {}

    def __call__(self, model: Model, quantization: Quantization, settings: Settings) -> Estimate | Refusal:
        """Bytes per device and speeds, or the engine's own words when it refuses."""
        try:
            aside = self._aside.get((self._sources.shape_key(model, quantization), quantization.name))
            if aside is not None:
                return Refusal(text=aside)
            weights = self.weights(model, quantization, settings)
            full, lean = self._buffers(model, quantization, settings)
            companions = self._companions.bytes_by_device(model, quantization, settings)
            server = self._companions.server(model, quantization, settings, full).peak_bytes or 0
        except (EngineError, EngineDiedError, BadInputError) as error:
            # One broken file of a repository is one candidate less.
            return Refusal(text=error.message)
        if full.refused or lean.refused:
            return Refusal(text=full.refused or lean.refused or "")
        cache_bytes = sum(buffer.context_bytes for buffer in full.buffers)
        memory = with_extras(self._memory(settings, weights, full, lean), companions=companions, server_bytes=server)
        fits = all(row.headroom_bytes is None or row.headroom_bytes >= 0 for row in memory)
        return Estimate(
            file_bytes=weights.file_bytes,
            memory=memory,
            speed=self._speeds(model, quantization, settings, weights, cache_bytes, fits=fits),
            layers=tuple(LayerSize(layer.dense_bytes, layer.expert_bytes) for layer in weights.layers),
            head_bytes=weights.head_bytes,
            devices=device_names(self._machine.gpus) if self._oracle.has_gpu else (),
        )

    def weights(self, model: Model, quantization: Quantization, settings: Settings) -> Weights:
        """Where the weights go; raises :class:`EngineError` when the engine refuses."""
        key, source = self._sources.shape_key(model, quantization), self._sources.layout_source(model, quantization)
        return self._oracle.weights(key, source, quantization, settings)

    def with_server(self, model: Model, quantization: Quantization, candidate: Candidate) -> Candidate:
        """The candidate with what a server may keep in the RAM that it leaves, in its settings and in its memory.

        Not a reason for or against a model, so it comes after the choice; the candidate as it is where nothing fits.
        """
        full, _ = self._buffers(model, quantization, candidate.settings)
        settings = self._companions.granted(model, quantization, candidate, full)
        extras = self._companions.server(model, quantization, settings, full)
        memory = with_extras(candidate.memory, companions={}, server_bytes=extras.peak_bytes or 0)
        return msgspec.structs.replace(candidate, settings=settings, memory=memory)

    def learn(self, measurements: tuple[Measurement, ...]) -> None:
        """Take measurements of this machine and engine build: exact where they fit, calibration for all others.

        A disturbed one calibrates others only as long as no sound one of the same kernel and structure is there: a busy
        machine is still better known than published ranges that span a factor of five.
        """
        for measurement in measurements:
            named = self._known(measurement)
            if named is None:
                continue  # of a file that was measured once and that this run does not speak about
            key = (self._sources.shape_key(*named), measurement.quantization, _variant(measurement.settings))
            found = self._measured.setdefault(key, [])
            # One that is kept and asked for again is still one run, not two that agree.
            if all(each.results != measurement.results for each in found):
                found.append(measurement)
        every = [(key, each) for key, found in self._measured.items() for each in found]
        known = [each for key, each in every if self._runs_so(key, each)]
        runs = [(run, not each.conditions.disturbed) for each in known if (run := self._timed_run(each))]
        told = {(kernel_of(run.quantization), run.structure) for run, sound in runs if sound}
        used = [run for run, sound in runs if sound or (kernel_of(run.quantization), run.structure) not in told]
        self._calibrations = calibrate(sorted(used, key=lambda run: run.label))
        if self._costing is not None:
            self._costing.learn([(*named, each) for _, each in every if (named := self._known(each))])

    def flush(self) -> None:
        """Keep what the engine showed of its graphs."""
        if self._costing is not None:
            self._costing.flush()

    def set_aside(self, model: Model, quantization: Quantization, why: str) -> None:
        """Refuse a model's shape at a quantization from now on, for the reason ``why``."""
        self._aside[self._sources.shape_key(model, quantization), quantization.name] = why

    def take_back(self) -> None:
        """Refuse nothing any more that was set aside."""
        self._aside.clear()

    def _buffers(self, model: Model, quantization: Quantization, settings: Settings) -> tuple[Buffers, Buffers]:
        key, source = self._sources.shape_key(model, quantization), self._sources.layout_source(model, quantization)
        if self._oracle.has_gpu:
            # What of a reservation stays untouched is told for the host alone.
            (full,) = self._oracle.buffers(key, source, [settings], quantization)
            return full, full
        lean = msgspec.structs.replace(settings, outputs_max=settings.parallel)
        full, lean_buffers = self._oracle.buffers(key, source, [settings, lean], quantization)
        return full, lean_buffers

    def _memory(self, settings: Settings, weights: Weights, full: Buffers, lean: Buffers) -> tuple[DeviceMemory, ...]:
        if self._oracle.has_gpu:
            origin: MemoryOrigin = "phantom" if self._oracle.with_phantoms else "engine"
            return memory_on_devices(
                self._machine, settings, weights, full, process_bytes=self._process_bytes, origin=origin
            )
        available = self._machine.memory.usable_bytes
        return (
            host_memory(settings, weights, full, lean, process_bytes=self._process_bytes, available_bytes=available),
        )

    def _speeds(
        self,
        model: Model,
        quantization: Quantization,
        settings: Settings,
        weights: Weights,
        cache_bytes: int,
        *,
        fits: bool,
    ) -> Speeds:
        if self._costing is not None and not fits and not self._if_memory:
            # Paging from a disk is no kind of work that was timed, and as if it fitted is told to whoever asks for it.
            return Speeds()
        predicted = None if self._costing is None else self._costing.speeds(model, quantization, settings)
        if predicted is None:
            predicted = predicted_speeds(
                self._machine, model, quantization.name, settings, weights, cache_bytes, self._calibrations
            )
        key = (self._sources.shape_key(model, quantization), quantization.name, _variant(settings))
        alike = [each for each in self._measured.get(key, ()) if self._runs_so(key, each)]
        for measurement in sorted(alike, key=lambda each: each.taken_at):
            predicted = _with_measured(predicted, measurement, settings)
        return predicted

    def _runs_so(self, key: tuple[str, str, str], measurement: Measurement) -> bool:
        """Whether a measurement ran with the threads, and the waiting, that its model would run with now."""
        shape_key, quantization, _ = key
        return self._threads is None or self._threads.of(shape_key, quantization).is_of(measurement.settings)

    def _known(self, measurement: Measurement) -> tuple[Model, Quantization] | None:
        """The model and quantization of a measurement, where this run knows them."""
        model = self._sources.find(measurement.model)
        if model is None:
            return None
        named = {each.name: each for each in self._sources.quantizations(model)}
        return (model, named[measurement.quantization]) if measurement.quantization in named else None

    def _timed_run(self, measurement: Measurement) -> TimedRun | None:
        generate = _result(measurement, _GENERATE, 0)
        if generate is None:
            return None
        known = self._known(measurement)
        if known is None:
            return None
        model, quantization = known
        prompt = _result(measurement, _PROMPT, 0)
        weights = self.weights(model, quantization, measurement.settings)
        return TimedRun(
            label=f"{model.id} {quantization.name}",
            quantization=quantization.name,
            bytes_per_token=active_bytes(model, weights),
            structure=structure_of(model, weights),
            parameters_active=model.parameters_active,
            generate_tokens_per_s=generate.tokens_per_s.median,
            prompt_tokens_per_s=prompt.tokens_per_s.median if prompt else None,
        )


def _variant(settings: Settings) -> str:
    """The settings that change the speed of a token; load mode, context length and the micro-batch do not."""
    return (
        f"{settings.cache_type_k}/{settings.cache_type_v} fa={settings.flash_attention} repack={settings.repack} "
        f"gpu={settings.gpu_layers} moe={settings.cpu_moe_layers} split={settings.tensor_split}"
    )


def _result(measurement: Measurement, kind: str, depth: int) -> TestResult | None:
    return next(
        (r for r in measurement.results if r.test.kind == kind and r.test.depth == depth and r.test.plain), None
    )


def _with_measured(speeds: Speeds, measurement: Measurement, settings: Settings) -> Speeds:
    depth = settings.context_tokens // settings.parallel // 2
    found = {
        "generate": _result(measurement, _GENERATE, 0),
        "prompt": _result(measurement, _PROMPT, 0) if measurement.settings.ubatch == settings.ubatch else None,
        "generate_at_depth": _result(measurement, _GENERATE, depth),
    }
    changes = {name: _speed(result, measurement) for name, result in found.items() if result is not None}
    return msgspec.structs.replace(speeds, **changes)


_LATER_SHARE, _MOST_LATER = 0.06, 0.2
_SCATTERS = 1.28
"""What a measured promise allows for another time: 6 % at least, and what four of five single runs of the reference
scatter by, up to a fifth.

Repetitions of one minute agree better in the median than the machine does with itself a quarter of an hour later: on a
shared host, where single runs of the reference scattered by 7 to 10 %, the medians of eight served plans lay 0 to 9 %
(decode) and 2 to 18 % (prompt) from those of their plans (bench/serve.py with 6 % alone)."""


def _speed(result: TestResult, measurement: Measurement) -> Speed:
    sliced = measurement.layers_timed < measurement.layers_total
    timed = f"{result.test.label}, {len(result.samples_ns)} repetitions, {measurement.settings.threads} threads"
    if sliced:
        timed += f", composed from slices of {measurement.layers_timed} of {measurement.layers_total} layers"
    told = result.tokens_per_s
    later = max(_LATER_SHARE, min(_MOST_LATER, _SCATTERS * machine_scatter(measurement.reference)))
    return Speed(
        tokens_per_s=told.median,
        low=min(told.low, told.median * (1 - later)),
        high=max(told.high, told.median * (1 + later)),
        origin=result.origin,
        at_context_tokens=result.test.depth,
        basis=timed,
    )
