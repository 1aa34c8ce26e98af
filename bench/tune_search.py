"""Three ways to search the same space of setups on the same track: the race, every point of the grid, Optuna's TPE.

All of them open models by the same track, time the same runs and are charged for all of their wall time, loading
included. What they end with is compared afterwards in interleaved runs, so that nobody is believed for a lucky sample.
"""

import itertools
import time
from collections.abc import Callable, Iterator, Mapping
from statistics import median
from typing import TYPE_CHECKING, Any, NamedTuple

from msgspec.structs import replace

from planner.measure.racing import Change, UnusableError, Workload
from planner.measure.racing_bench import BenchTrack
from planner.measure.racing_space import Ground, setting_changes
from planner.types.measurement import TestKind
from planner.types.tuning import Setup

if TYPE_CHECKING:
    import optuna

__all__ = ["Searched", "Space", "as_plain", "compared", "every_setup", "grid", "llama_class", "options", "tpe"]

FACTORS = ("waiting", "load mode", "repack", "flash attention", "threads", "prompt threads")
"""What is searched: points that share a process follow each other, and so do those that share a load."""
REPETITIONS = 5
ROUNDS = 11
_WITHOUT_A_LOAD = ("threads", "prompt threads")


Space = Mapping[str, Mapping[str, Change[Setup] | None]]
"""The options of each factor, and what makes them."""


class Searched(NamedTuple):
    """What a search ended with, how long it took, and how many points it timed."""

    best: Setup
    seconds: float
    points: int


def options(ground: Ground, default: Setup) -> dict[str, dict[str, Change[Setup] | None]]:
    """The options of each factor; ``None`` is the defaults' own where no change leads to it."""
    found: dict[str, dict[str, Change[Setup] | None]] = {factor: {} for factor in FACTORS}
    for change in setting_changes(ground):
        if change.factor in found:
            found[change.factor][change.option] = change
    for factor, changes in found.items():
        if not any(change is not None and change.made_of(default) == default for change in changes.values()):
            found[factor] = {"as it is": None, **changes}
    return found


def setup_of(default: Setup, names: Mapping[str, str], space: Space) -> Setup:
    """The default with one option of each factor."""
    made = default
    for factor, option in names.items():
        change = space[factor][option]
        if change is not None:
            made = change.made_of(made) or made
    return made


def every_setup(default: Setup, space: Space) -> Iterator[list[Setup]]:
    """All points, in groups that share a load."""
    loads = [factor for factor in FACTORS if factor not in _WITHOUT_A_LOAD]
    for chosen in itertools.product(*(space[factor] for factor in loads)):
        group = [
            setup_of(
                default, {**dict(zip(loads, chosen, strict=True)), "threads": first, "prompt threads": second}, space
            )
            for first in space["threads"]
            for second in space["prompt threads"]
        ]
        yield list(dict.fromkeys(group))


def grid(track: BenchTrack, default: Setup, space: Space, work: Workload, told: Callable[[str], None]) -> Searched:
    """Time every point five times, each number of threads once for all points that share a load and it."""
    begin = time.monotonic()
    found: dict[Setup, float] = {}
    groups = list(every_setup(default, space))
    for number, group in enumerate(groups):
        told(f"grid {number + 1} of {len(groups)}")
        try:
            track.enter(group)
            decode = {count: _median(track, each, "generate") for count, each in _by(group, "threads").items()}
            prompt = {count: _median(track, each, "prompt") for count, each in _by(group, "threads_batch").items()}
        except UnusableError:
            continue
        for setup in group:
            found[setup] = work.seconds(prompt[setup.settings.threads_batch], decode[setup.settings.threads])
    return Searched(min(found, key=lambda each: found[each]), time.monotonic() - begin, len(found))


def tpe(track: BenchTrack, default: Setup, space: Space, work: Workload, *, budget_s: float, seed: int) -> Searched:
    """Optuna's tree-structured Parzen estimator for ``budget_s``; raises ImportError where it is not installed."""
    import optuna  # noqa: PLC0415 - an extra that not everybody has

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    begin = time.monotonic()

    def seconds(trial: "optuna.Trial") -> float:
        names = {factor: trial.suggest_categorical(factor, list(space[factor])) for factor in FACTORS}
        setup = setup_of(default, names, space)
        try:
            track.enter((setup,))
            return work.seconds(track.time_s(setup, "prompt"), track.time_s(setup, "generate"))
        except UnusableError:
            return float("inf")

    study = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=seed))
    study.enqueue_trial({factor: _start(space[factor], default) for factor in FACTORS})
    study.optimize(seconds, timeout=budget_s)
    return Searched(setup_of(default, study.best_params, space), time.monotonic() - begin, len(study.trials))


def compared(track: BenchTrack, setups: Mapping[str, Setup], work: Workload) -> dict[str, dict[str, Any]]:
    """Median seconds of each setup in interleaved rounds, and the median over rounds of its ratio to each other."""
    track.enter(tuple(dict.fromkeys(setups.values())))
    times: dict[str, list[dict[str, float]]] = {name: [] for name in setups}
    for number in range(ROUNDS):
        for name in list(setups) if number % 2 == 0 else reversed(list(setups)):
            setup = setups[name]
            told = {"generate": track.time_s(setup, "generate"), "prompt": track.time_s(setup, "prompt")}
            times[name].append({**told, "answer": work.seconds(told["prompt"], told["generate"])})
    return {
        name: {
            "median_s": {kind: median(each[kind] for each in mine) for kind in mine[0]},
            "times_as_fast_as": {
                other: {kind: median(b[kind] / a[kind] for a, b in zip(mine, theirs, strict=True)) for kind in mine[0]}
                for other, theirs in times.items()
            },
        }
        for name, mine in times.items()
    }


def _median(track: BenchTrack, setup: Setup, kind: TestKind) -> float:
    return median(track.time_s(setup, kind) for _ in range(REPETITIONS))


def _by(group: list[Setup], field: str) -> dict[int, Setup]:
    """One setup for each number of threads."""
    return {getattr(setup.settings, field): setup for setup in group}


def _start(changes: Mapping[str, Change[Setup] | None], default: Setup) -> str:
    """The option that leaves the default as it is."""
    return next(name for name, change in changes.items() if change is None or change.made_of(default) == default)


def as_plain(setup: Setup) -> dict[str, Any]:
    """What of a setup was searched, for the record."""
    settings = setup.settings
    return {
        "waiting": settings.openmp_wait,
        "huge_pages": setup.huge_pages,
        "threads": settings.threads,
        "threads_batch": settings.threads_batch,
        "repack": settings.repack,
        "load_mode": settings.load_mode,
        "flash_attention": settings.flash_attention,
    }


def llama_class(default: Setup, told: Mapping[str, Any]) -> Setup:
    """The setup of ``llama_cpp.Llama()`` as an object of the class itself told it."""
    settings = replace(
        default.settings,
        threads=told["threads"],
        threads_batch=told["threads_batch"],
        batch=told["batch"],
        ubatch=told["ubatch"],
        flash_attention={-1: "auto", 0: "off", 1: "on"}[told["flash_attention"]],
        swa_full=told["swa_full"],
    )
    return Setup(settings=settings)
