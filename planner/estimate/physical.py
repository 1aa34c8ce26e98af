"""Seconds that a device needs for a token, as a sum of physical terms; prevents one flat share of bandwidth.

Decoding one token reads every active weight once and starts a few kernels in every layer; reading a prompt multiplies
every number of the layers with many tokens at once, for which each weight is read once a micro-batch. So, per token,

    decode = bytes ÷ bandwidth × read + layers × layer + token + cache bytes ÷ bandwidth × cache
    prompt = 2 × numbers ÷ matrix rate × compute + 2 × numbers ÷ bandwidth × traffic
             + (bytes ÷ bandwidth × read + layers × layer × batch) ÷ tokens of a micro-batch + attention at depth

each term times the factors of what it is about: how a tensor type unpacks, the kind of memory, the generation, experts.
A term is a number of seconds on ideal hardware with the *names* of the constants that multiply it; the constants are
data (``profiles/speed``, fitted by ``bench/published_speed.py`` through these very functions). A rate that no data
sheet tells gives ``None``, and so does whatever needs it.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

from planner.types.machine import Backend

__all__ = [
    "PROMPT_TOKENS",
    "Hardware",
    "Kernel",
    "Part",
    "Term",
    "Work",
    "decode_terms",
    "kernel_of",
    "least_seconds",
    "prompt_terms",
    "total_seconds",
]

Kernel = Literal["plain", "k4", "k56", "k23", "codebook"]
"""Groups of tensor types that unpack alike: whole bytes and plain 4-bit, 4-bit K, 5/6-bit K, 2/3-bit K, IQ1 to IQ3."""

PROMPT_TOKENS = 512
"""The prompt that a speed is told for when nothing else is asked: llama-bench's own pp512."""

_LEAST_BATCH_TO_OFFLOAD = 32
"""Tokens from which llama.cpp copies weights that lie in RAM to the GPU and multiplies there (GGML_OP_OFFLOAD)."""
_BANDWIDTH_OF_EIGHT_CORES = 50e9
"""Bytes per second where no data sheet speaks: two channels for eight cores, as the square root of the cores."""
_BANDWIDTH_OF_A_CORE = 30e9
"""Most bytes per second that one core draws, however wide the socket: published single threads of a 7950X read 29e9."""
_EARLY = frozenset(["pascal", "volta", "turing", "gcn", "vega", "rdna", "rdna2", "xe"])
"""Generations before Ampere, RDNA 3 and Arc, on which the small kernels of a layer take longer."""


class Hardware(NamedTuple):
    """One device: peaks by its data sheet (``None``: not told), memory kind and generation where known.

    ``threads`` counts for CPUs only, whose ``generation`` is ``x86`` or ``arm``. ``matrix_flops_per_s``: dense fp16
    with sums in fp16.
    """

    backend: Backend
    bandwidth_bytes_per_s: float | None
    matrix_flops_per_s: float | None = None
    memory: str | None = None
    generation: str | None = None
    threads: int = 1


class Work(NamedTuple):
    """What one device does for one token.

    ``weights_bytes`` are read while decoding, ``resident_bytes`` those that a micro-batch of a prompt touches (all
    experts). ``parameters`` are the active numbers in its layers, embedding and head aside. ``attention`` is query
    heads × (key + value width), summed over its layers that look at the whole context.
    """

    weights_bytes: float
    resident_bytes: float
    layers: float
    parameters: float
    quantization: str
    mixture: bool = False
    recurrent: bool = False
    cache_bytes: float = 0.0
    attention: float = 0.0


class Term(NamedTuple):
    """Seconds on ideal hardware, and the names of the constants that multiply them."""

    seconds: float
    constants: tuple[str, ...]


Part = tuple[Hardware, Work]


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


def decode_terms(parts: Sequence[Part]) -> list[list[Term]] | None:
    """The terms of one decoded token for each device of a pipeline; ``None`` where what limits one is unknown.

    Devices work one after the other, so all terms add; what a token costs apart from layers is counted once.
    """
    found = []
    gpus = 0
    for hardware, work in parts:
        terms = _cpu_decode(hardware, work) if hardware.backend == "cpu" else _gpu_decode(hardware, work)
        if terms is None:
            return None
        if hardware.backend != "cpu":
            terms.append(Term(1e-6, ("hop_us",) if gpus else (f"{hardware.backend}.token_us",)))
            gpus += 1
        found.append(terms)
    return found


def prompt_terms(
    parts: Sequence[Part],
    *,
    tokens: int = PROMPT_TOKENS,
    microbatch: int = 512,
    depth: float = 0.0,
    link_bytes_per_s: float | None = None,
) -> list[list[Term]] | None:
    """The terms of one token of a prompt of ``tokens`` for each device; ``None`` where a rate is unknown.

    ``depth`` tokens lie before one on average. With a ``link_bytes_per_s`` to a GPU, what lies in RAM is copied there
    once a micro-batch and multiplied there. Micro-batches of several CUDA devices overlap: ``m`` of them through
    ``k`` stages take ``k + m − 1`` steps instead of ``k × m``.
    """
    together = max(1, min(tokens, microbatch))
    gpu = next((hardware for hardware, _ in parts if hardware.backend != "cpu"), None)
    found = []
    for hardware, work in parts:
        if hardware.backend != "cpu":
            terms = _gpu_prompt(hardware, work, together, depth)
        elif gpu is not None and link_bytes_per_s and together >= _LEAST_BATCH_TO_OFFLOAD:
            copied = Term(work.resident_bytes / link_bytes_per_s / together, ("offload.copy",))
            there = _gpu_prompt(gpu, work, together, depth)
            terms = [copied, *there] if there is not None else None
        else:
            terms = _cpu_prompt(hardware, work)
        if terms is None:
            return None
        found.append(terms)
    stages = sum(hardware.backend == "cuda" for hardware, _ in parts)
    batches = math.ceil(tokens / together)
    if stages < 2 or batches < 2:
        return found
    share = (stages + batches - 1) / (stages * batches)
    return [[Term(term.seconds * share, (*term.constants, "pipeline")) for term in terms] for terms in found]


def total_seconds(terms: Sequence[Term], constants: Mapping[str, float]) -> float:
    """The sum of the terms, each multiplied by its constants; a constant that is not there counts as 1."""
    total = 0.0
    for term in terms:
        seconds = term.seconds
        for name in term.constants:
            seconds *= constants.get(name, 1.0)
        total += seconds
    return total


def least_seconds(hardware: Hardware, work: Work) -> float:
    """What decoding one token cannot take less than: its bytes at the peak of the memory; 0 where that is unknown."""
    if hardware.bandwidth_bytes_per_s is None:
        return 0.0
    return (work.weights_bytes + work.cache_bytes) / hardware.bandwidth_bytes_per_s


def _gpu_decode(hardware: Hardware, work: Work) -> list[Term] | None:
    bandwidth = hardware.bandwidth_bytes_per_s
    if bandwidth is None:
        return None
    own = hardware.backend
    early = ("layer.early",) if hardware.generation in _EARLY else ()
    return [
        Term(work.weights_bytes / bandwidth, (f"{own}.read", *_memory(hardware), *_unpack(work, "read"))),
        Term(work.layers * 1e-6, (f"{own}.layer_us", *early, *_kind(work, "layer"))),
        Term(work.cache_bytes / bandwidth, (f"{own}.cache", *_memory(hardware))),
    ]


def _gpu_prompt(hardware: Hardware, work: Work, together: int, depth: float) -> list[Term] | None:
    bandwidth, rate = hardware.bandwidth_bytes_per_s, hardware.matrix_flops_per_s
    if bandwidth is None or rate is None:
        return None
    own = hardware.backend
    return [
        Term(2 * work.parameters / rate, (f"{own}.compute", *_unpack(work, "compute"), *_kind(work, "compute"))),
        Term(2 * work.parameters / bandwidth, (f"{own}.traffic",)),
        Term(work.resident_bytes / bandwidth / together, (f"{own}.read", *_memory(hardware))),
        Term(work.layers * 1e-6 / together, (f"{own}.layer_us", f"{own}.batch")),
        Term(2 * work.attention * depth / rate, (f"{own}.attention",)),
    ]


def _cpu_decode(hardware: Hardware, work: Work) -> list[Term] | None:
    if hardware.threads < 1:
        return None
    bandwidth, read = hardware.bandwidth_bytes_per_s, "cpu.read"
    if bandwidth is None:
        bandwidth, read = _BANDWIDTH_OF_EIGHT_CORES * (hardware.threads / 8) ** 0.5, "cpu.unknown_read"
    bandwidth = min(bandwidth, _BANDWIDTH_OF_A_CORE * hardware.threads)
    return [
        Term(
            work.weights_bytes * 1e-9 / hardware.threads,
            ("cpu.core", *_wide(hardware, "cpu.core"), *_unpack(work, "cpu.core")),
        ),
        Term(work.layers * 1e-6, ("cpu.layer_us",)),
        Term(work.weights_bytes / bandwidth, (read,)),
        Term(work.cache_bytes / bandwidth, (read, "cpu.cache")),
    ]


def _cpu_prompt(hardware: Hardware, work: Work) -> list[Term] | None:
    if hardware.threads < 1:
        return None
    names = ("cpu.compute", *_wide(hardware, "cpu.compute"), *_unpack(work, "cpu.compute"), *_kind(work, "cpu.compute"))
    return [Term(2 * work.parameters * 1e-11 / hardware.threads, names)]


def _wide(hardware: Hardware, what: str) -> tuple[str, ...]:
    """x86 cores unpack and multiply 256 or 512 bits at once, Arm's mostly 128."""
    return (f"{what}.x86",) if hardware.generation == "x86" else ()


def _unpack(work: Work, what: str) -> tuple[str, ...]:
    if work.quantization.upper().startswith(("F16", "BF16")):
        return (f"{what}.half",)
    kernel = kernel_of(work.quantization)
    return () if kernel == "plain" else (f"{what}.{kernel}",)


def _memory(hardware: Hardware) -> tuple[str, ...]:
    return ("read.hbm",) if hardware.memory == "hbm" else ()


def _kind(work: Work, what: str) -> tuple[str, ...]:
    names = (f"{what}.mixture",) if work.mixture else ()
    return (*names, f"{what}.recurrent") if work.recurrent else names
