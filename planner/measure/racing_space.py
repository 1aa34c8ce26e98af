"""The settings that are worth a race on a machine, most telling first; pure, so that any machine's list can be tested.

A setting is listed only where it can make a difference: pinning where cores differ or have two threads, NUMA where
there are nodes, offloading where there is a GPU. What changes an answer's quality (the cache's type) is listed only
when somebody asks. The mistake it prevents is a grid of everything, of which most is time.
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple

from msgspec.structs import replace

from planner.measure.racing import BOTH, GAIN, Change
from planner.types.measurement import TestKind
from planner.types.settings import CacheType, Waiting
from planner.types.tuning import Setup

__all__ = ["SPINNING_GAIN", "Ground", "setting_changes", "thread_changes", "thread_counts"]

SPINNING_GAIN = 0.05
"""What any spinning must gain over sleeping: beside another busy program it takes up to forty times as long."""
_ACTIVE_GAIN = 0.05
"""What active waiting must gain: it keeps the cores busy for minutes after an answer."""

_MICRO_BATCHES = (128, 256, 1024, 2048)
_DECODE: tuple[TestKind, ...] = ("generate",)
_PROMPT: tuple[TestKind, ...] = ("prompt",)


class Ground(NamedTuple):
    """What of a machine and a model decides which settings make sense.

    ``one_per_core`` and ``performance`` are CPU numbers: the first of each physical core, and of each of the strongest
    kind; empty where all CPUs are such. ``prompt_tokens`` is the length of the prompt that is timed: a larger
    micro-batch cannot show. ``layers`` is 0 where only a slice is timed, on which a number of layers means nothing.
    """

    usable_threads: int
    default_threads: int
    one_per_core: tuple[int, ...] = ()
    performance: tuple[int, ...] = ()
    numa_nodes: int = 1
    huge_pages: bool = False
    gpus: int = 0
    layers: int = 0
    experts: bool = False
    prompt_tokens: int = 512
    cache_types: tuple[CacheType, ...] = ()


def thread_counts(usable: int) -> tuple[int, ...]:
    """Counts worth a trial, the safe one first: all usable threads, three quarters, half, a quarter of them."""
    shares = [usable, -(-3 * usable // 4), -(-usable // 2), -(-usable // 4)]
    return tuple(count for count in dict.fromkeys(shares) if count >= 1)


def thread_changes(
    usable: int, waits: tuple[Waiting, ...], counts: tuple[int, ...] = (), *, spinning_gain: float = GAIN
) -> Iterator[Change[Setup]]:
    """Threads for prompts, how all of them wait, then threads for decoding.

    Spinning comes after one race, which shows whether others use the machine, and before the threads for decoding:
    where each wait is a sleep, all of them and one are alike, and a race of likes takes the time of all others.
    """
    for count in counts or thread_counts(usable):
        yield _setting("prompt threads", str(count), _PROMPT, threads_batch=count)
    for wait in waits:
        gain = {"passive": GAIN, "default": spinning_gain, "active": _ACTIVE_GAIN}[wait]
        yield Change("waiting", wait, _waits(wait, usable), BOTH, gain)
    for count in counts or thread_counts(usable):
        yield _setting("threads", str(count), _DECODE, threads=count)


def setting_changes(ground: Ground) -> tuple[Change[Setup], ...]:
    """Every setting that may be faster here, in the order in which they are tried."""
    return (*_offloading(ground), *thread_changes(*_threads(ground)), *_places(ground), *_computing(ground))


def _threads(ground: Ground) -> tuple[int, tuple[Waiting, ...], tuple[int, ...]]:
    kinds = tuple(len(cpus) for cpus in (ground.performance, ground.one_per_core) if cpus)
    counts = thread_counts(ground.usable_threads)
    fewer = tuple(count for count in kinds if count <= ground.usable_threads)
    return ground.usable_threads, ("passive", "default", "active"), tuple(dict.fromkeys((*counts, *fewer)))


def _places(ground: Ground) -> Iterator[Change[Setup]]:
    """Pinning to one CPU of each core, or of each strong core, with as many threads; then NUMA."""
    for option, cpus in (("performance cores", ground.performance), ("one thread a core", ground.one_per_core)):
        if cpus:
            count = min(len(cpus), ground.usable_threads)
            yield Change("pinning", option, _pins(cpus, count))
    if ground.performance or ground.one_per_core:
        yield Change("pinning", "none", lambda setup: replace(setup, cpus=()))
    if ground.numa_nodes > 1:
        yield Change("numa", "distribute", lambda setup: replace(setup, numa="distribute"))
        yield Change("numa", "isolate", lambda setup: replace(setup, numa="isolate"))
        yield Change("numa", "off", lambda setup: replace(setup, numa="off"))


def _computing(ground: Ground) -> Iterator[Change[Setup]]:
    """How weights are laid out and loaded, attention, micro-batches, and the cache's type where that was asked for."""
    yield _setting("repack", "off", repack=False)
    yield _setting("repack", "on", repack=True)
    if ground.huge_pages:
        yield Change("load mode", "none, huge pages", _loads("none", huge=True))
        yield Change("load mode", "mmap, huge pages", _loads("mmap", huge=True))
    yield Change("load mode", "none", _loads("none", huge=False))
    yield Change("load mode", "mmap", _loads("mmap", huge=False))
    yield Change("flash attention", "off", _without_flash_attention)
    # "auto" is "on" wherever the engine can, so "on" is no option of its own.
    yield _setting("flash attention", "auto", flash_attention="auto")
    for size in (*_MICRO_BATCHES, 512):
        # Below 512 the prompt must be longer than one micro-batch, above it longer than the default one.
        if size < ground.prompt_tokens or size == 512:
            yield _setting("ubatch", str(size), _PROMPT, ubatch=size, batch=max(2048, size))
    for kind in ground.cache_types:
        yield _setting("cache type", kind, cache_type_k=kind, cache_type_v=kind)


def _offloading(ground: Ground) -> Iterator[Change[Setup]]:
    """Layers, experts and splits of a model that a GPU takes part in; what does not fit is found unusable."""
    if not ground.gpus:
        return
    if ground.layers:
        for option, count in (("all", -1), ("three quarters", 3 * ground.layers // 4), ("half", ground.layers // 2)):
            yield _setting("gpu layers", option, gpu_layers=count)
        if ground.experts:
            for count in (0, ground.layers // 4, ground.layers // 2, -1):
                yield _setting("experts in RAM", "all" if count < 0 else f"{count} layers", cpu_moe_layers=count)
    yield _setting("gpu layers", "none", gpu_layers=0)
    if ground.gpus > 1:
        for split in ("row", "none", "layer"):
            yield _setting("split", split, split_mode=split)
    yield _setting("operations", "not offloaded", _PROMPT, op_offload=False)


def _setting(factor: str, option: str, kinds: tuple[TestKind, ...] = BOTH, **values: object) -> Change[Setup]:
    return Change(factor, option, lambda setup: replace(setup, settings=replace(setup.settings, **values)), kinds)


def _waits(wait: Waiting, usable: int) -> Callable[[Setup], Setup]:
    """How threads wait; spinning is tried with all of them, whatever number is best where each wait is a sleep.

    Sleeping threads make one alone the fastest on small layers, and one alone has nobody to wait for.
    """

    def made(setup: Setup) -> Setup:
        if setup.settings.openmp_wait == wait:
            return setup
        asleep = wait == "passive" or setup.cpus
        threads = {} if asleep else {"threads": usable, "threads_batch": usable}
        return replace(setup, settings=replace(setup.settings, openmp_wait=wait, **threads))

    return made


def _loads(mode: str, *, huge: bool) -> Callable[[Setup], Setup]:
    return lambda setup: replace(setup, huge_pages=huge, settings=replace(setup.settings, load_mode=mode))


def _pins(cpus: tuple[int, ...], count: int) -> Callable[[Setup], Setup]:
    return lambda setup: replace(setup, cpus=cpus, settings=replace(setup.settings, threads=count, threads_batch=count))


def _without_flash_attention(setup: Setup) -> Setup | None:
    """``None`` where the cache of values is quantized, which needs flash attention."""
    settings = setup.settings
    if settings.cache_type_v not in ("f16", "bf16", "f32"):
        return None
    return replace(setup, settings=replace(settings, flash_attention="off"))
