"""Tokens per second from bytes, bandwidth and a fixed cost per layer; the mistake it prevents is one flat factor.

Decoding one token reads every active weight once, so time has a part that grows with bytes and a part that does not:

    seconds per token = Σ over devices ( bytes ÷ (share × bandwidth) + layers × seconds per layer )

A single share of bandwidth ("0.55") is wrong in both directions, because on fast memory the fixed part dominates: the
same 8B at 4 bits reaches 81 % of an RTX 4070 Ti and 35 % of an H100, while the time *above* bytes ÷ bandwidth is 2 to
5 ms on both. On a CPU a third term limits: how fast one core unpacks a type. Devices in a pipeline work one after the
other, so their times add.

The constants below are medians and 10 to 90 % ranges of published llama-bench rows (builds of 2024 to 2026; each table
names its devices). A :class:`Calibration` learnt on this very machine replaces them. Every speed carries an interval
and says in words what it rests on; where nothing is known the answer is ``None``.
"""

from collections.abc import Iterable, Sequence
from statistics import median
from typing import Literal, NamedTuple

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

Kernel = Literal["plain", "k4", "k56", "k23", "codebook"]
"""Groups of tensor types that unpack alike: whole bytes and plain 4-bit, 4-bit K, 5/6-bit K, 2/3-bit K, IQ1 to IQ3."""


class _Range(NamedTuple):
    """A pessimistic, a middle and an optimistic value."""

    low: float
    middle: float
    high: float


# Share of peak bandwidth of the part that grows with bytes, and microseconds per layer of the part that does not.
# Fitted by eye on one median per (device, type): RTX 3090/4070 Ti/4090/4000 Ada/6000 Ada, A40, A100, H100, M1, M3 Max,
# Strix Halo, RX 6700 XT, Arc B70; 7B to 70B; F16, Q8_0, Q4_0, Q4_K_M.
_SHARE: dict[Backend, _Range] = {
    "cuda": _Range(0.70, 0.88, 0.95),
    "rocm": _Range(0.65, 0.85, 0.93),
    "vulkan": _Range(0.50, 0.85, 0.93),
    "sycl": _Range(0.60, 0.80, 0.88),
    "metal": _Range(0.55, 0.78, 0.92),
    # i9-13900K 0.68, Xeon 8480 0.60, Ryzen 7950X 0.54, EPYC 0.28 to 0.44 across NUMA nodes; an i7-12700H reaches 0.65
    # to 0.97 of what it can read.
    "cpu": _Range(0.28, 0.60, 0.80),
}
_LAYER_US: dict[Backend, _Range] = {
    "cuda": _Range(190, 80, 20),
    "rocm": _Range(300, 100, 40),
    "vulkan": _Range(400, 100, 40),
    "sycl": _Range(250, 100, 40),
    "metal": _Range(250, 100, 20),
    "cpu": _Range(150, 30, 10),
}
# Bytes per second that one CPU core unpacks. Low and middle: Ampere Altra, one thread, Qwen2.5-3B, eight types; high:
# Ryzen 7950X, one thread, 5 to 6 bits: 29e9.
_CORE_BYTES_PER_S: dict[Kernel, _Range] = {
    "plain": _Range(6e9, 11e9, 29e9),
    "k4": _Range(5e9, 8.5e9, 25e9),
    "k56": _Range(4.5e9, 7e9, 29e9),
    "k23": _Range(3.5e9, 6e9, 18e9),
    "codebook": _Range(1.5e9, 2.5e9, 10e9),
}
# Floating-point operations per second and thread while a prompt is processed on a CPU: Altra, i7-1165G7, Xeon 8480,
# EPYC, mainline llama.cpp, pp64 and pp512: 18 to 99 Gflop/s, middle of the machines 40.
_CORE_PROMPT_FLOPS = _Range(18e9, 40e9, 100e9)
# Without a known bandwidth more cores than this are not counted on: two channels of memory feed about four.
_CORES_WITHOUT_BANDWIDTH = _Range(2, 4, 16)
# Reading the cache is slower per byte than reading weights: decode at 32k keeps 0.43 to 0.94 of its speed at 0.
_CACHE_COST = _Range(3.0, 1.5, 1.0)
# Handing the hidden state from one device to the next, seconds.
_HOP_S = 100e-6
# A rate learnt from another kernel on the same machine carries this much doubt on each side.
_FOREIGN_KERNEL = 1.8
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
    CPUs only. ``calibrations`` are of this device.
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


class _Seconds(NamedTuple):
    """Seconds per token, slow to fast, and what they rest on."""

    slow: float
    middle: float
    fast: float
    basis: str


def kernel_of(quantization: str) -> Kernel:
    """The kernel group of a quantization's main tensor type, by its name (``Q4_K_M`` → ``k4``)."""
    name = quantization.upper().removeprefix("UD-")
    if name.startswith(("IQ1", "IQ2", "IQ3", "TQ")):
        return "codebook"
    if name.startswith(("Q2_K", "Q3_K")):
        return "k23"
    if name.startswith(("Q5_K", "Q6_K", "Q5_0", "Q5_1")):
        return "k56"
    if name.startswith(("Q4_K", "IQ4", "MXFP4", "NVFP4")):
        return "k4"
    return "plain"


def cache_bytes_at(cache_bytes: int, context_tokens: int, depth_tokens: int) -> int:
    """Cache bytes that one token reads at a depth; the whole cache is read when the context is full."""
    if context_tokens <= 0:
        return 0
    return round(cache_bytes * min(1.0, depth_tokens / context_tokens))


def generate_speed(stages: Sequence[Stage], *, at_context_tokens: int = 0) -> Speed | None:
    """Predicted decode speed of stages that work one after the other; ``None`` where one of them is unknown."""
    times = [_generate_seconds(stage) for stage in stages]
    return _speed(times, hops=len(stages) - 1, at_context_tokens=at_context_tokens)


def prompt_speed(stages: Sequence[Stage]) -> Speed | None:
    """Predicted prompt speed; on a GPU only from a calibration, since bandwidth says nothing about it."""
    return _speed([_prompt_seconds(stage) for stage in stages], hops=0, at_context_tokens=0)


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


def _speed(times: Sequence[_Seconds | None], *, hops: int, at_context_tokens: int) -> Speed | None:
    known = [time for time in times if time is not None]
    if not known or len(known) < len(times):
        return None
    handover = hops * _HOP_S
    slow = sum(time.slow for time in known) + handover
    middle = sum(time.middle for time in known) + handover
    fast = sum(time.fast for time in known) + handover
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


def _generate_seconds(stage: Stage) -> _Seconds | None:
    learnt = _pick(stage)
    if learnt is not None:
        calibration, doubt = learnt
        rate = calibration.generate
        slow, middle, fast = (
            (stage.weights_bytes + cost * stage.cache_bytes) / per_s
            for cost, per_s in zip(_CACHE_COST, (rate.low / doubt, rate.per_s, rate.high * doubt), strict=True)
        )
        return _Seconds(slow, middle, fast, f"{stage.device}: {calibration.basis}")
    if stage.backend == "cpu":
        return _cpu_seconds(stage)
    if stage.bandwidth_bytes_per_s is None:
        return None
    bandwidth = float(stage.bandwidth_bytes_per_s)
    slow, middle, fast = (_roofline(stage, i, _SHARE[stage.backend][i] * bandwidth) for i in range(3))
    return _Seconds(slow, middle, fast, f"{stage.device}: {bandwidth / 1e9:.0f} GB/s by its data sheet, {_PUBLISHED}")


def _cpu_seconds(stage: Stage) -> _Seconds | None:
    if stage.threads < 1:
        return None
    core = _CORE_BYTES_PER_S[kernel_of(stage.quantization)]
    if stage.bandwidth_bytes_per_s is None:
        cores = [min(stage.threads, most) for most in _CORES_WITHOUT_BANDWIDTH]
        rates = [core[i] * cores[i] for i in range(3)]
        basis = f"{stage.threads} threads, memory bandwidth unknown"
    else:
        bandwidth = float(stage.bandwidth_bytes_per_s)
        rates = [min(core[i] * stage.threads, _SHARE["cpu"][i] * bandwidth) for i in range(3)]
        basis = f"{stage.threads} threads, {bandwidth / 1e9:.0f} GB/s by its data sheet"
    slow, middle, fast = (_roofline(stage, i, rates[i]) for i in range(3))
    return _Seconds(slow, middle, fast, f"{stage.device}: {basis}, {_PUBLISHED}")


_PUBLISHED = "ranges of published llama-bench rows"


def _roofline(stage: Stage, i: int, bytes_per_s: float) -> float:
    read = stage.weights_bytes + _CACHE_COST[i] * stage.cache_bytes
    return read / bytes_per_s + stage.layers * _LAYER_US[stage.backend][i] * 1e-6


def _prompt_seconds(stage: Stage) -> _Seconds | None:
    learnt = _pick(stage)
    if learnt is not None and learnt[0].prompt is not None:
        calibration, doubt = learnt
        rate = learnt[0].prompt
        slow, middle, fast = (
            stage.parameters_active / per_s for per_s in (rate.low / doubt, rate.per_s, rate.high * doubt)
        )
        return _Seconds(slow, middle, fast, f"{stage.device}: {calibration.basis}")
    if stage.backend != "cpu" or stage.threads < 1:
        return None
    slow, middle, fast = (2 * stage.parameters_active / (flops * stage.threads) for flops in _CORE_PROMPT_FLOPS)
    return _Seconds(slow, middle, fast, f"{stage.device}: {stage.threads} threads, {_PUBLISHED}")


def _pick(stage: Stage) -> tuple[Calibration, float] | None:
    """The calibration to use and by how much its interval is widened.

    The same kernel and structure speak for themselves, anything else with doubt. Across recurrent and other layers
    nothing is learnt: a delta net spends its time on a state and not only on weights, so the bytes per second of one
    say little about the other (in one run on 2 cores Qwen3.6-35B-A3B had 6.2 tokens/s where Qwen3-30B-A3B had 8.9, and
    both read 2 GB for a token).
    """
    kernel = kernel_of(stage.quantization)
    usable = [each for each in stage.calibrations if each.structure.recurrent == stage.structure.recurrent]
    # Nearest first: the structure weighs more than the kernel.
    usable.sort(key=lambda each: (each.structure != stage.structure, each.kernel != kernel))
    if not usable:
        return None
    exact = usable[0].kernel == kernel and usable[0].structure == stage.structure
    return usable[0], 1.0 if exact else _FOREIGN_KERNEL
