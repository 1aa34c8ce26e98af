"""Tokens per second of devices that work one after the other; the mistake it prevents is one flat factor.

What was timed on this very machine (a :class:`Calibration`) speaks first. For everything else the physical model
(:mod:`planner.estimate.physical`) adds up bytes over bandwidth, fixed costs and operations, with constants fitted on
published llama-bench rows, and its interval is as wide as it missed on devices that were left out of the fit. Devices
in a pipeline work one after the other, so their times add. Every speed carries an interval and says in words what it
rests on; where nothing is known the answer is ``None``.
"""

import math
from collections.abc import Iterable, Sequence
from statistics import median
from typing import NamedTuple

from planner.estimate.physical import (
    PROMPT_TOKENS,
    Hardware,
    Kernel,
    Part,
    Term,
    Work,
    decode_terms,
    kernel_of,
    least_seconds,
    prompt_terms,
    total_seconds,
)
from planner.estimate.physical_constants import Quantity, speed_model
from planner.estimate.physical_trust import doubt_of
from planner.types import Report
from planner.types.machine import Backend
from planner.types.plan import Speed

__all__ = [
    "Calibration",
    "Kernel",
    "Rate",
    "Stage",
    "Structure",
    "TimedRun",
    "cache_bytes_at",
    "calibrate",
    "generate_speed",
    "kernel_of",
    "prompt_speed",
]


# Reading the cache after a calibration at depth 0: slow, middle and fast, times the cost of a byte of weights.
_CACHE_COST = (3.0, 1.5, 1.0)
# Tokens from which a speed is judged by how well deep rows were predicted.
_DEEP_TOKENS = 2048
# Doubt on each side of a rate learnt from layers of another structure, or of another kernel's prompts.
_FOREIGN = 1.8
# What remains of it after the published costs of two kernels were compared (:func:`_by_kernel`).
_BETWEEN_KERNELS = 1.15
_ONE_RUN_DOUBT = 1.25
_RUNS_DOUBT = 1.10


class Rate(Report, frozen=True, kw_only=True):
    """A learnt rate with its interval; the unit (bytes or parameters per second) is the holder's."""

    per_s: float
    low: float
    high: float


class Structure(NamedTuple):
    """What else than bytes decides a speed: whether layers are recurrent, and whether tokens are routed to experts."""

    recurrent: bool = False
    mixture: bool = False


class Calibration(Report, frozen=True, kw_only=True):
    """What runs on this very machine taught about one kernel and structure on one device.

    ``generate`` is bytes read per second while decoding (fixed costs included), ``prompt`` active parameters times
    prompt tokens per second. ``basis`` says from which runs.
    """

    kernel: Kernel
    structure: Structure = Structure()
    generate: Rate
    prompt: Rate | None = None
    basis: str


class TimedRun(Report, frozen=True, kw_only=True):
    """One measured model that ran on one device alone: what it read per token and how fast it was."""

    label: str
    quantization: str
    bytes_per_token: int
    parameters_active: int
    generate_tokens_per_s: float
    prompt_tokens_per_s: float | None = None
    structure: Structure = Structure()


class Stage(Report, frozen=True, kw_only=True):
    """What one device does for one token: the bytes it reads, the layers it runs, what is known of its speed.

    ``weights_bytes`` are the *active* weights it holds, ``cache_bytes`` what attention
    reads at the depth in question, ``parameters_active`` its share of the active parameters. ``threads`` counts for
    CPUs only. ``calibrations`` are of this device. For prompts ``resident_bytes`` are all weights of its layers, those
    of idle experts too, and ``layer_parameters`` the active numbers in them (``None``: as for decoding).
    ``matrix_flops_per_s``, ``memory`` and ``generation`` are by the data sheet, ``None`` where it is not at hand.
    """

    device: str
    backend: Backend
    weights_bytes: int
    layers: int
    quantization: str
    parameters_active: int = 0
    cache_bytes: int = 0
    bandwidth_bytes_per_s: int | None = None
    threads: int = 1
    structure: Structure = Structure()
    calibrations: tuple[Calibration, ...] = ()
    resident_bytes: int | None = None
    layer_parameters: int | None = None
    matrix_flops_per_s: float | None = None
    memory: str | None = None
    generation: str | None = None


class _Seconds(NamedTuple):
    """Seconds per token, slow to fast, and what they rest on."""

    slow: float
    middle: float
    fast: float
    basis: str


def cache_bytes_at(cache_bytes: int, context_tokens: int, depth_tokens: int) -> int:
    """Cache bytes that one token reads at a depth; the whole cache is read when the context is full."""
    if context_tokens <= 0:
        return 0
    return round(cache_bytes * min(1.0, depth_tokens / context_tokens))


def generate_speed(stages: Sequence[Stage], *, at_context_tokens: int = 0) -> Speed | None:
    """Predicted decode speed of stages that work one after the other; ``None`` where one of them is unknown."""
    learnt = [_learnt_generate(stage) for stage in stages]
    unlearnt = [stage for stage, seconds in zip(stages, learnt, strict=True) if seconds is None]
    terms = decode_terms([_part(stage) for stage in unlearnt])
    if terms is None:
        return None
    quantity: Quantity = "decode-deep" if at_context_tokens > _DEEP_TOKENS else "decode"
    physical = [_physical(stage, own, quantity) for stage, own in zip(unlearnt, terms, strict=True)]
    return _speed([*filter(None, learnt), *physical], at_context_tokens=at_context_tokens)


def prompt_speed(
    stages: Sequence[Stage], *, microbatch: int = PROMPT_TOKENS, link_bytes_per_s: float | None = None
) -> Speed | None:
    """Predicted speed of a prompt of 512 tokens; ``None`` where a device's rate of multiplying is unknown.

    With a ``link_bytes_per_s`` to a GPU that has its own memory, what lies in RAM is copied and multiplied there.
    """
    copied = link_bytes_per_s is not None and any(stage.backend != "cpu" for stage in stages)
    learnt = [None if copied and stage.backend == "cpu" else _learnt_prompt(stage) for stage in stages]
    unlearnt = [stage for stage, seconds in zip(stages, learnt, strict=True) if seconds is None]
    terms = prompt_terms([_part(stage) for stage in unlearnt], microbatch=microbatch, link_bytes_per_s=link_bytes_per_s)
    if terms is None:
        return None
    physical = [_physical(stage, own, "prompt") for stage, own in zip(unlearnt, terms, strict=True)]
    return _speed([*filter(None, learnt), *physical], at_context_tokens=0)


def calibrate(runs: Iterable[TimedRun]) -> tuple[Calibration, ...]:
    """One calibration per kernel and structure found in the runs, in the order of their names.

    The rate is the median of the runs; the interval spans all of them and at least ±10 %, or ±25 % when a single run
    speaks.
    """
    alike: dict[tuple[Kernel, Structure], list[TimedRun]] = {}
    for run in runs:
        if run.generate_tokens_per_s > 0 and run.bytes_per_token > 0:
            alike.setdefault((kernel_of(run.quantization), run.structure), []).append(run)
    return tuple(_calibration(kernel, structure, alike[kernel, structure]) for kernel, structure in sorted(alike))


def _calibration(kernel: Kernel, structure: Structure, runs: list[TimedRun]) -> Calibration:
    generate = [run.bytes_per_token * run.generate_tokens_per_s for run in runs]
    prompt = [run.parameters_active * run.prompt_tokens_per_s for run in runs if run.prompt_tokens_per_s]
    labels = ", ".join(sorted({run.label for run in runs}))
    return Calibration(
        kernel=kernel,
        structure=structure,
        generate=_rate(generate),
        prompt=_rate(prompt) if prompt else None,
        basis=f"measured here: {labels}",
    )


def _rate(values: list[float]) -> Rate:
    doubt = _ONE_RUN_DOUBT if len(values) == 1 else _RUNS_DOUBT
    middle = median(values)
    return Rate(per_s=middle, low=min(*values, middle / doubt), high=max(*values, middle * doubt))


def _speed(times: Sequence[_Seconds | None], *, at_context_tokens: int) -> Speed | None:
    known = [time for time in times if time is not None]
    if not known or len(known) < len(times):
        return None
    slow = sum(time.slow for time in known)
    middle = sum(time.middle for time in known)
    fast = sum(time.fast for time in known)
    if middle <= 0:
        return None
    return Speed(
        tokens_per_s=1 / middle,
        low=1 / slow,
        high=1 / fast,
        origin="predicted",
        at_context_tokens=at_context_tokens,
        basis="; ".join(dict.fromkeys(time.basis for time in known)),
    )


def _learnt_generate(stage: Stage) -> _Seconds | None:
    calibration = _pick(stage)
    if calibration is None:
        return None
    gain, doubt = _by_kernel(calibration.kernel, kernel_of(stage.quantization))
    if calibration.structure != stage.structure:
        doubt *= _FOREIGN
    rate = calibration.generate
    slow, middle, fast = (
        (stage.weights_bytes + cost * stage.cache_bytes) / (gain * per_s)
        for cost, per_s in zip(_CACHE_COST, (rate.low / doubt, rate.per_s, rate.high * doubt), strict=True)
    )
    return _Seconds(slow, middle, fast, f"{stage.device}: {calibration.basis}")


def _learnt_prompt(stage: Stage) -> _Seconds | None:
    calibration = _pick(stage)
    if calibration is None or calibration.prompt is None:
        return None
    exact = (calibration.kernel, calibration.structure) == (kernel_of(stage.quantization), stage.structure)
    rate, doubt = calibration.prompt, 1.0 if exact else _FOREIGN
    slow, middle, fast = (
        stage.parameters_active / per_s for per_s in (rate.low / doubt, rate.per_s, rate.high * doubt)
    )
    return _Seconds(slow, middle, fast, f"{stage.device}: {calibration.basis}")


def _part(stage: Stage) -> Part:
    hardware = Hardware(
        stage.backend,
        stage.bandwidth_bytes_per_s,
        stage.matrix_flops_per_s,
        stage.memory,
        stage.generation,
        stage.threads,
    )
    work = Work(
        weights_bytes=stage.weights_bytes,
        resident_bytes=stage.weights_bytes if stage.resident_bytes is None else stage.resident_bytes,
        layers=stage.layers,
        parameters=stage.parameters_active if stage.layer_parameters is None else stage.layer_parameters,
        quantization=stage.quantization,
        mixture=stage.structure.mixture,
        recurrent=stage.structure.recurrent,
        cache_bytes=stage.cache_bytes,
    )
    return hardware, work


def _physical(stage: Stage, terms: Sequence[Term], quantity: Quantity) -> _Seconds | None:
    """What the terms of one device add up to, with the interval of its backend; decoding never beats the memory."""
    model, part = speed_model(), _part(stage)
    doubt = doubt_of(model, part, quantity)
    if doubt is None:
        return None
    middle = total_seconds(terms, model.constants)
    factor = math.exp(doubt.width)
    least = 0.0 if quantity == "prompt" else least_seconds(*part)
    return _Seconds(
        middle * factor,
        middle,
        min(middle, max(least, middle / factor)),
        f"{stage.device}: {_by(stage)}, {doubt.basis}",
    )


def _by(stage: Stage) -> str:
    bandwidth = stage.bandwidth_bytes_per_s
    told = "memory bandwidth unknown" if bandwidth is None else f"{bandwidth / 1e9:.0f} GB/s by its data sheet"
    return f"{stage.threads} threads, {told}" if stage.backend == "cpu" else told


def _pick(stage: Stage) -> Calibration | None:
    """The calibration to use: the structure weighs more than the kernel.

    Across recurrent and other layers nothing is learnt: a delta net spends its time on a state and not only on weights,
    so the bytes per second of one say little about the other (in one run on 2 cores Qwen3.6-35B-A3B had 6.2 tokens/s
    where Qwen3-30B-A3B had 8.9, and both read 2 GB for a token).
    """
    kernel = kernel_of(stage.quantization)
    usable = [each for each in stage.calibrations if each.structure.recurrent == stage.structure.recurrent]
    usable.sort(key=lambda each: (each.structure != stage.structure, each.kernel != kernel))
    return usable[0] if usable else None


def _by_kernel(known: Kernel, wanted: Kernel) -> tuple[float, float]:
    """The rate of one kernel over that of another on one CPU, and the doubt of it on each side.

    Where cores wait for memory it is 1, where they unpack it is what published rows of single kernels say; the
    geometric middle is off by no more than its own distance from both.
    """
    if known == wanted:
        return 1.0, 1.0
    constants = speed_model().constants
    cost = [constants.get(f"cpu.core.{kernel}", 1.0) for kernel in (known, wanted)]
    gain = math.sqrt(cost[0] / cost[1])
    return gain, _BETWEEN_KERNELS * max(gain, 1 / gain)
