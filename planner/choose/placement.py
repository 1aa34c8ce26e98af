"""Where the layers go: all on the GPU if that fits, else as many as fit, a mixture's experts first to the CPU.

The mistake it prevents is treating a GPU as all or nothing, and a mixture of experts as a dense model: its experts are
most of the bytes and little of the work, so they leave the GPU first while attention stays.

Two monotone facts make the search right: more layers on the GPU never need less of its memory, and more experts on the
CPU never need more of it.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import msgspec

from planner.choose.splitting import Outline
from planner.choose.verdict import Judged, is_host
from planner.types.estimate import Estimate, Refusal
from planner.types.machine import Gpu
from planner.types.settings import LoadMode, Settings

__all__ = ["Placed", "Probe", "below", "placements", "without_gpu"]


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

_MOST_PROPOSALS = 6


def without_gpu(settings: Settings, probe: Probe) -> Iterator[Placed]:
    """On the CPU alone: as it is, and where a mapped file and its repacked copy do not fit together, not repacked.

    Only somebody who asks for a mapped file gets both; kernels for weights as they are in the file are slower.
    """
    whole = probe(settings)
    yield whole
    rows = whole.judged.memory if whole.judged is not None else ()
    if not whole.fits_memory and any(row.weights_mapped_bytes and row.weights_repacked_bytes for row in rows):
        yield probe(msgspec.structs.replace(settings, repack=False))


def placements(
    settings: Settings,
    probe: Probe,
    *,
    layers: int | None,
    mixture: bool,
    split: LoadMode | None,
    gpus: Sequence[Gpu] = (),
) -> Iterator[Placed]:
    """Placements of one rung of settings: everything on the GPU, and if that does not fit the best split.

    ``settings`` has all layers on the GPU. ``layers`` is the model's layer count, ``None`` when unknown (then only all
    or none is tried). ``split`` is the load mode of a split, ``None`` where only the whole is wanted: what stays on
    the CPU is repacked there, so a split wants another load mode than the whole. ``gpus`` are the machine's, in order:
    an estimate that tells its layers lets arithmetic propose the split, and over several cards which layers go where.
    """
    whole = probe(settings)
    yield whole
    if whole.fits_memory or split is None or whole.judged is None or whole.exceeds_all:
        return
    partial = msgspec.structs.replace(settings, load_mode=split)
    proposed = _proposed(settings, partial, whole, probe, gpus)
    if proposed is not None:
        yield proposed
        return
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


def below(
    settings: Settings,
    probe: Probe,
    above: Placed,
    *,
    split: LoadMode,
    gpus: Sequence[Gpu],
    cache_share: float,
    compute_share: float,
) -> Placed | None:
    """The best split of a lower rung, worked out from one that was found above; ``None`` where arithmetic finds none.

    ``settings`` has all layers on the GPU. The shares are what the lower rung leaves of the cache and compute buffers
    of the one above.
    """
    partial = msgspec.structs.replace(settings, load_mode=split)
    return _proposed(settings, partial, above, probe, gpus, cache_share=cache_share, compute_share=compute_share)


def _proposed(
    whole: Settings,
    partial: Settings,
    answer: Placed,
    probe: Probe,
    gpus: Sequence[Gpu],
    *,
    cache_share: float = 1.0,
    compute_share: float = 1.0,
) -> Placed | None:
    """The best split that arithmetic over the answers proposes and an answer confirms; ``None`` where there is none.

    Each answer tells anew what the cards hold beside their layers, so the next proposal is closer: after one that
    holds, fewer layers are tried as long as they look as if they fit.
    """
    outline = Outline.of(answer.estimate, gpus) if isinstance(answer.estimate, Estimate) else None
    best: tuple[int, Placed] | None = None
    asked: set[Settings] = {answer.settings}
    for _ in range(_MOST_PROPOSALS if outline is not None else 0):
        if outline is None or answer.judged is None:
            break
        split = outline.propose(answer.settings, answer.judged, cache_share=cache_share, compute_share=compute_share)
        if split is None or (best is not None and split.moved >= best[0]):
            break
        # What is whole on several cards keeps the load mode of the whole.
        settings = msgspec.structs.replace(
            whole if split.moved == 0 else partial,
            gpu_layers=split.gpu_layers,
            cpu_moe_layers=split.cpu_moe_layers,
            tensor_split=split.tensor_split,
        )
        if settings in asked:
            break
        asked.add(settings)
        answer, cache_share, compute_share = probe(settings), 1.0, 1.0
        if answer.gpu_fits:
            best = (split.moved, answer)
        elif best is not None:
            break
    return None if best is None else best[1]


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
