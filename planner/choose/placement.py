"""Where the layers go: all on the GPU if that fits, else as many as fit, a mixture's experts first to the CPU.

The mistake it prevents is treating a GPU as all or nothing, and a mixture of experts as a dense model: its experts are
most of the bytes and little of the work, so they leave the GPU first while attention stays.

Two monotone facts make the search right: more layers on the GPU never need less of its memory, and more experts on the
CPU never need more of it.
"""

import math
from collections.abc import Callable, Iterator
from typing import NamedTuple

import msgspec

from planner.choose.verdict import Judged, is_host
from planner.types.estimate import Estimate, Refusal
from planner.types.settings import LoadMode, Settings

__all__ = ["Placed", "Probe", "placements"]


class Placed(NamedTuple):
    """Settings that were asked about, with the estimate and the verdict; a refusal has no verdict."""

    settings: Settings
    estimate: Estimate | Refusal
    judged: Judged | None

    @property
    def fits_memory(self) -> bool:
        """Whether the engine takes it and memory suffices."""
        return self.judged is not None and self.judged.fits_memory

    @property
    def gpu_fits(self) -> bool:
        """Whether the engine takes it and the GPUs have room, whatever the host says."""
        return self.judged is not None and self.judged.gpu_fits

    @property
    def exceeds_all(self) -> bool:
        """Whether all devices together are too small, so that moving layers cannot help."""
        rows = self.judged.memory if self.judged is not None else ()
        rooms = [row.headroom_bytes for row in rows]
        known = [room for room in rooms if room is not None]
        return len(known) == len(rooms) and sum(known) < 0

    @property
    def gpu_held_bytes(self) -> int:
        """Weights and cache on the GPU that holds most of them: what moving layers away can free there."""
        rows = self.judged.memory if self.judged is not None else ()
        return max((row.weights_bytes + row.cache_bytes for row in rows if not is_host(row)), default=0)

    @property
    def gpu_excess_bytes(self) -> float:
        """Bytes by which the fullest GPU is over its room, negative when under; infinite where nothing is known."""
        rows = self.judged.memory if self.judged is not None else ()
        rooms = [row.headroom_bytes for row in rows if not is_host(row)]
        known = [room for room in rooms if room is not None]
        return float(-min(known)) if known and len(known) == len(rooms) else math.inf


Probe = Callable[[Settings], Placed]


def placements(
    settings: Settings, probe: Probe, *, layers: int | None, mixture: bool, split: LoadMode | None
) -> Iterator[Placed]:
    """Placements of one rung of settings: everything on the GPU, and if that does not fit the best split.

    ``settings`` has all layers on the GPU. ``layers`` is the model's layer count, ``None`` when unknown (then only all
    or none is tried). ``split`` is the load mode of a split, ``None`` where only the whole is wanted: what stays on
    the CPU is repacked there, so a split wants another load mode than the whole.
    """
    whole = probe(settings)
    yield whole
    if whole.fits_memory or split is None or whole.judged is None or whole.exceeds_all:
        return
    partial = msgspec.structs.replace(settings, load_mode=split)
    if layers is None:
        yield probe(_with(partial, gpu_layers=0, experts=0))
        return
    if mixture:
        fewest = _fewest(layers, whole, lambda n: probe(_with(partial, gpu_layers=-1, experts=n)))
        if fewest is not None:
            yield fewest
            return
    experts = layers if mixture else 0

    def taken_away(n: int) -> Placed:
        return probe(_with(partial, gpu_layers=layers - n, experts=experts if n < layers else 0))

    fewest = _fewest(layers, whole, taken_away)
    if fewest is not None:
        yield fewest


def _with(settings: Settings, *, gpu_layers: int, experts: int) -> Settings:
    return msgspec.structs.replace(settings, gpu_layers=gpu_layers, cpu_moe_layers=experts)


def _fewest(most: int, whole: Placed, probe_at: Callable[[int], Placed]) -> Placed | None:
    """The answer at the smallest n in [0, most] where the GPUs have room; ``None`` when even ``most`` does not.

    ``whole`` is what does not fit. Use is nearly linear in n, so the line through the last two answers finds the place
    in about three questions; every fourth one bisects, which bounds the search whatever the shape.
    """
    fails, holds = -1, most + 1
    found: Placed | None = None
    before, last = (holds, whole.gpu_excess_bytes - max(1.0, whole.gpu_held_bytes)), (fails, whole.gpu_excess_bytes)
    turn = 0
    while holds - fails > 1:
        turn += 1
        guess = _crossing(before, last) if turn % 4 else None
        if guess is None:
            guess = (fails + holds) // 2
        guess = max(fails + 1, min(guess, holds - 1))
        placed = probe_at(guess)
        before, last = last, (guess, placed.gpu_excess_bytes)
        if placed.gpu_fits:
            holds, found = guess, placed
        else:
            fails = guess
    return found


def _crossing(one: tuple[int, float], other: tuple[int, float]) -> int | None:
    """The first n at which the line through two points (n, excess) is no longer above 0; ``None`` where it is flat."""
    (n, excess), (m, rest) = one, other
    if n == m or not math.isfinite(excess - rest) or (slope := (rest - excess) / (m - n)) >= 0:
        return None
    return math.ceil(m - rest / slope)
