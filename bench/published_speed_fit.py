"""Fits the constants of planner's physical speed model on published rows: robust, held to what is physical, by device.

Minimises a redescending loss (Cauchy, after a start with absolute errors) on the logarithm of measured over predicted,
plus a quadratic penalty on the distance of each constant from a physical start. Every device on every backend has
the same weight, and within it every combination of model, quantization and kind of test: rows are not evidence,
devices are. Prevents a fit to the one machine that published three rows in ten. The terms are planner's own
(``planner.estimate.physical``).
"""

import math
from collections import defaultdict
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from published_speed_rows import LINK_BYTES_PER_S, Case

from planner.estimate.physical import Term, decode_terms, prompt_terms

__all__ = ["CONSTANTS", "Fitted", "Problem", "Start", "leave_out", "quantile", "weights_of"]

Array = NDArray[np.float64]

_TIGHTNESS = 0.04
"""Weight of the penalty against that of one device."""
_ABSOLUTE_STEPS, _STEPS = 8, 25
_ABSOLUTE_WIDTH, _CAUCHY_WIDTH = 0.05, 0.25


class Start(NamedTuple):
    """Where a constant starts, its doubt (the standard deviation of its logarithm), unit and meaning."""

    value: float
    doubt: float
    unit: str
    means: str


def _of_backends(name: str, start: Start, *, cpu: bool = False) -> dict[str, Start]:
    backends = ("cuda", "rocm", "vulkan", "metal", "sycl", *(("cpu",) if cpu else ()))
    return {f"{backend}.{name}": start for backend in backends}


def _of_kernels(name: str, what: str, starts: Mapping[str, tuple[float, float]]) -> dict[str, Start]:
    types = {
        "half": "F16 and BF16",
        "k4": "4-bit K, IQ4 and FP4 types",
        "k56": "5 and 6-bit types",
        "k23": "2 and 3-bit K types",
        "codebook": "IQ1 to IQ3",
    }
    return {
        f"{name}.{kernel}": Start(value, doubt, "× of plain types", f"{what} of {types[kernel]}")
        for kernel, (value, doubt) in starts.items()
    }


CONSTANTS: dict[str, Start] = {
    **_of_backends("read", Start(1.2, 0.15, "× bytes ÷ peak bandwidth", "time to read weights"), cpu=True),
    **_of_backends("layer_us", Start(40, 0.7, "µs", "fixed time of a layer: kernel starts, small operations")),
    **_of_backends("token_us", Start(300, 0.5, "µs", "fixed time of a token: graph, sampling input, logits")),
    **_of_backends("cache", Start(1.5, 0.5, "× bytes ÷ peak bandwidth", "time to read the cache at depth"), cpu=True),
    "cpu.cache": Start(1.5, 0.5, "× of reading weights", "time to read the cache at depth"),
    "read.hbm": Start(1.3, 0.3, "×", "reading from HBM, of whose peak one token reaches less"),
    **_of_kernels(
        "read",
        "time per byte",
        {"half": (1.0, 0.1), "k4": (1.1, 0.1), "k56": (1.15, 0.1), "k23": (1.4, 0.2), "codebook": (1.6, 0.3)},
    ),
    "layer.mixture": Start(1.5, 0.4, "×", "fixed time of a layer that routes to experts"),
    "layer.recurrent": Start(1.3, 0.4, "×", "fixed time of the layers of a delta net or state space"),
    "layer.early": Start(1.5, 0.4, "×", "fixed time of a layer before Ampere, RDNA 3 and Arc"),
    "hop_us": Start(200, 0.7, "µs", "handing a token to the next device"),
    **_of_backends("compute", Start(2.5, 0.5, "× operations ÷ matrix peak", "multiplying a prompt")),
    **_of_backends("traffic", Start(0.004, 1.0, "× operations ÷ peak bandwidth", "moving a prompt's activations")),
    **_of_backends("batch", Start(3.0, 1.0, "×", "fixed time of a layer for a micro-batch, of that for a token")),
    **_of_backends("attention", Start(4.0, 0.5, "× operations ÷ matrix peak", "attention of a prompt at depth")),
    **_of_kernels(
        "compute",
        "time to multiply a prompt",
        {"half": (1.0, 0.3), "k4": (1.2, 0.2), "k56": (1.3, 0.2), "k23": (1.4, 0.2), "codebook": (1.4, 0.3)},
    ),
    "compute.mixture": Start(2.0, 0.4, "×", "multiplying a prompt in experts, which get few tokens each"),
    "compute.recurrent": Start(1.3, 0.3, "×", "multiplying a prompt in a delta net or state space"),
    "offload.copy": Start(1.4, 0.3, "× bytes ÷ link", "copying experts to the GPU for a micro-batch"),
    "pipeline": Start(1.1, 0.2, "×", "micro-batches of several devices, of a perfect overlap"),
    "cpu.core": Start(0.1, 0.5, "s per GB and thread", "unpacking weights on one core"),
    **_of_kernels(
        "cpu.core",
        "time per byte on a core",
        {"half": (1.0, 0.3), "k4": (1.2, 0.2), "k56": (1.5, 0.2), "k23": (1.7, 0.2), "codebook": (3.0, 0.3)},
    ),
    "cpu.core.x86": Start(0.4, 0.3, "×", "unpacking on x86 (published single threads: 29 GB/s against 11 on Arm)"),
    "cpu.compute.x86": Start(0.7, 0.3, "×", "multiplying on x86"),
    "cpu.read": Start(1.5, 0.3, "× bytes ÷ peak bandwidth", "time to read weights"),
    "cpu.unknown_read": Start(1.0, 0.5, "× bytes ÷ (50 GB/s × √(threads ÷ 8))", "the same where no data sheet speaks"),
    "cpu.layer_us": Start(20, 0.7, "µs", "fixed time of a layer: barriers between threads"),
    "cpu.compute": Start(2.5, 0.6, "× operations ÷ (100 Gop/s × threads)", "multiplying a prompt"),
    **_of_kernels(
        "cpu.compute",
        "time to multiply a prompt",
        {"half": (1.5, 0.3), "k4": (1.3, 0.3), "k56": (1.6, 0.3), "k23": (1.6, 0.3), "codebook": (2.5, 0.3)},
    ),
    "cpu.compute.mixture": Start(1.2, 0.3, "×", "multiplying a prompt in experts"),
    "cpu.compute.recurrent": Start(1.3, 0.3, "×", "multiplying a prompt in a delta net"),
}
"""Every constant of the model with its physical start. None of them is about one device."""

_OF_ROWS: dict[str, Start] = {
    "fork.decode": Start(0.95, 0.2, "×", "ik_llama.cpp and other forks while decoding"),
    "fork.prompt": Start(0.6, 0.4, "×", "ik_llama.cpp and other forks while reading a prompt"),
    "dated.layer": Start(1.3, 0.4, "×", "fixed times in builds of 2023 and 2024, CUDA and ROCm"),
    "dated.vulkan": Start(1.5, 0.4, "×", "everything in Vulkan builds of 2023 and 2024"),
}
"""What is about a row and not about llama.cpp today: fitted beside, so that it does not colour the rest."""


class Fitted(NamedTuple):
    """Logarithms of constants by name."""

    names: tuple[str, ...]
    logs: Array

    @property
    def values(self) -> dict[str, float]:
        """Constants by name."""
        return {name: float(value) for name, value in zip(self.names, np.exp(self.logs), strict=True)}


class Problem:
    """Cases as sums of terms, ready for a fit; a case without all facts is left out."""

    def __init__(self, cases: Sequence[Case]) -> None:
        built = [(case, terms) for case in cases if (terms := _terms(case))]
        self.cases = [case for case, _ in built]
        self.names = tuple(sorted({name for _, terms in built for term in terms for name in term.constants}))
        column = {name: i for i, name in enumerate(self.names)}
        flat = [term for _, terms in built for term in terms]
        self._starts = np.concatenate([[0], np.cumsum([len(terms) for _, terms in built])[:-1]]).astype(int)
        self._seconds = np.array([term.seconds for term in flat])
        self._uses = np.zeros((len(flat), len(self.names)))
        for i, term in enumerate(flat):
            for name in term.constants:
                self._uses[i, column[name]] += 1
        self.seen = np.log([1 / case.tokens_per_s for case in self.cases])
        starts = [(CONSTANTS | _OF_ROWS)[name] for name in self.names]
        self._start = np.log([start.value for start in starts])
        self._doubt = np.array([start.doubt for start in starts])
        # Nothing is read faster than the memory delivers it.
        self._least = np.array([0.0 if name.endswith(".read") else -np.inf for name in self.names])

    def logs(self, fitted: Fitted) -> Array:
        """Predicted logarithms of seconds per token."""
        return self._logs(fitted.logs)[0]

    def fit(self, kept: Array | None = None, fixed: Mapping[str, float] | None = None) -> Fitted:
        """The constants from the cases that ``kept`` weighs (default: all), with those of ``fixed`` held."""
        weights = weights_of(self.cases, kept)
        start, doubt = self._start.copy(), self._doubt.copy()
        for i, name in enumerate(self.names):
            if fixed and name in fixed:
                start[i], doubt[i] = math.log(fixed[name]), 1e-4
        logs = start.copy()
        for step in range(_STEPS):
            predicted, slopes = self._logs(logs)
            misses = self.seen - predicted
            absolute = 4 * _ABSOLUTE_WIDTH / np.sqrt(misses**2 + _ABSOLUTE_WIDTH**2)
            robust = weights * (absolute if step < _ABSOLUTE_STEPS else 1 / (1 + (misses / _CAUCHY_WIDTH) ** 2))
            curvature = slopes.T @ (slopes * robust[:, None]) + _TIGHTNESS * np.diag(1 / doubt**2)
            slope = slopes.T @ (robust * misses) - _TIGHTNESS * (logs - start) / doubt**2
            move = np.clip(np.linalg.solve(curvature, slope), -0.5, 0.5)
            logs = np.maximum(logs + move, self._least)
            if np.abs(move).max() < 1e-3 and step > _ABSOLUTE_STEPS:
                break
        return Fitted(self.names, logs)

    def devices_of(self, name: str) -> int:
        """How many devices have a row of whose time the constant rules at least a twentieth."""
        column = self.names.index(name)
        seconds = self._seconds * np.exp(self._uses @ self._start)
        share = np.add.reduceat(seconds * (self._uses[:, column] > 0), self._starts)
        told = share > 0.05 * np.add.reduceat(seconds, self._starts)
        return len({case.device for case, yes in zip(self.cases, told, strict=True) if yes})

    def _logs(self, logs: Array) -> tuple[Array, Array]:
        seconds = self._seconds * np.exp(self._uses @ logs)
        totals = np.add.reduceat(seconds, self._starts)
        slopes = np.add.reduceat(self._uses * seconds[:, None], self._starts, axis=0)
        return np.log(totals), slopes / totals[:, None]


def weights_of(cases: Sequence[Case], kept: Array | None = None) -> Array:
    """Weights that make every device on every backend count 1, and in it every kind of case the same."""
    use = [True] * len(cases) if kept is None else [bool(value) for value in kept]
    groups: dict[Hashable, dict[Hashable, int]] = defaultdict(lambda: defaultdict(int))
    keys = [((c.device, c.backend), (c.model, c.quantization, c.devices, c.kind)) for c in cases]
    for (device, group), used in zip(keys, use, strict=True):
        groups[device][group] += used
    return np.array(
        [1 / len(groups[d]) / groups[d][g] if used else 0.0 for (d, g), used in zip(keys, use, strict=True)]
    )


def leave_out(
    problem: Problem, group: Callable[[Case], str], fixed: Callable[[str], Mapping[str, float]] | None = None
) -> Array:
    """Predictions (logarithms of seconds) for each case from a fit without the whole group that it belongs to."""
    groups = [group(case) for case in problem.cases]
    predicted = np.zeros(len(groups))
    for name in sorted(set(groups)):
        out = np.array([each == name for each in groups])
        fitted = problem.fit(~out, fixed(name) if fixed else None)
        predicted[out] = problem.logs(fitted)[out]
    return predicted


def quantile(values: Array, weights: Array, share: float) -> float:
    """The weighted quantile of ``values``."""
    order = np.argsort(values)
    sums = np.cumsum(weights[order])
    return float(values[order][min(len(order) - 1, int(np.searchsorted(sums, share * sums[-1])))])


def _terms(case: Case) -> list[Term]:
    if case.is_prompt:
        link = LINK_BYTES_PER_S if case.backend != "cpu" else None
        found = prompt_terms(
            case.parts, tokens=case.tokens, microbatch=case.microbatch, depth=case.depth, link_bytes_per_s=link
        )
    else:
        found = decode_terms(case.parts)
    return [_with_row(case, term) for terms in found or [] for term in terms]


def _with_row(case: Case, term: Term) -> Term:
    extra = []
    if case.fork:
        extra.append("fork.prompt" if case.is_prompt else "fork.decode")
    if case.dated and case.backend == "vulkan":
        extra.append("dated.vulkan")
    elif case.dated and not case.is_prompt and any(name.endswith("_us") for name in term.constants):
        extra.append("dated.layer")
    return Term(term.seconds, (*term.constants, *extra))
