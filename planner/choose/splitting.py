"""How many layers, and whose experts, each card can hold: arithmetic over one answer, to propose the next question.

The mistake it prevents is a split by free memory that overflows one card while another has room: experts that leave the
first layers empty the first card alone, and the output lies on the last. Layers stay in order, so a split is a row of
counts; the fewest that must leave the cards are found by filling them one after the other.

It proposes and never decides: what a card holds beside its layers (compute buffers, a driver) is taken from the last
answer, and the engine is asked about the proposal.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple, Self

from planner.choose.verdict import Judged
from planner.estimate.assignment import Assignment, assign
from planner.types.estimate import Estimate
from planner.types.machine import Gpu
from planner.types.settings import Settings

__all__ = ["Outline", "Split"]

_SLACK_STEPS = 24


class Split(NamedTuple):
    """Layers and experts per device: settings of the same names. ``moved`` counts what leaves the cards, to compare."""

    gpu_layers: int
    cpu_moe_layers: int
    tensor_split: tuple[float, ...]
    moved: int


class _Card(NamedTuple):
    """Bytes that a card may use, and those it uses beside its layers."""

    room: float
    fixed: float


class Outline:
    """A model's layers and a machine's cards."""

    def __init__(self, estimate: Estimate, gpus: Sequence[Gpu]) -> None:
        self._dense = [layer.dense_bytes for layer in estimate.layers]
        self._experts = [layer.expert_bytes for layer in estimate.layers]
        self._head = estimate.head_bytes
        self._devices = estimate.devices
        self._free = [float(gpu.memory_free_bytes or gpu.memory_total_bytes or 0) for gpu in gpus]

    @classmethod
    def of(cls, estimate: Estimate, gpus: Sequence[Gpu]) -> Self | None:
        """The outline, or ``None`` where an estimate does not tell its layers."""
        return cls(estimate, gpus) if estimate.layers and len(estimate.devices) == len(gpus) > 0 else None

    def propose(
        self, settings: Settings, judged: Judged, *, cache_share: float = 1.0, compute_share: float = 1.0
    ) -> Split | None:
        """The split that moves least off the cards, by what an answer about ``settings`` told; ``None``: there is none.

        Experts of the first layers leave before any layer does. Over several cards the counts leave about as much free
        on each; on one card ``tensor_split`` is empty. The shares are what other settings leave of the answer's cache
        and compute buffers.
        """
        found = self._least(settings, judged, cache_share, compute_share)
        if found is None:
            return None
        experts, away, items, cards = found
        counts = _shares(items, cards)
        return Split(
            gpu_layers=-1 if away == 0 else len(self._dense) + 1 - away,
            cpu_moe_layers=experts,
            tensor_split=tuple(map(float, counts)) if len(counts) > 1 else (),
            moved=experts + away,
        )

    def least_time_share(
        self, settings: Settings, judged: Judged, *, cache_share: float, compute_share: float
    ) -> float:
        """The time per token when less cache and compute lets layers return to the cards, over that of ``settings``.

        At least: the host's part shrinks no faster than what it holds, and the cards' part does not shrink.
        """
        found = self._least(settings, judged, cache_share, compute_share)
        if found is None:
            return 1.0
        before = 0 if settings.gpu_layers < 0 else len(self._dense) + 1 - settings.gpu_layers
        pairs = ((settings.cpu_moe_layers, found[0]), (before, found[1]))
        return min([1.0, *(new / old for old, new in pairs if old)])

    def _least(
        self, settings: Settings, judged: Judged, cache_share: float, compute_share: float
    ) -> tuple[int, int, list[float], list[_Card]] | None:
        """Layers whose experts leave, layers that leave, and what then stays for which cards."""
        layers = len(self._dense)
        cache = sum(row.cache_bytes for row in judged.memory) / layers
        cards = self._cards(settings, judged, cache, compute_share)
        if cards is None:
            return None
        cache *= cache_share
        most = layers if any(self._experts) else 0

        def kept(experts: int) -> list[float]:
            routed = (size if layer >= experts else 0 for layer, size in enumerate(self._experts))
            sizes = (dense + cache + size for dense, size in zip(self._dense, routed, strict=True))
            return [*sizes, float(self._head)]

        experts = _fewest(most, lambda n: _fits(kept(n), cards))
        if experts is not None:
            return experts, 0, kept(experts), cards
        bare = kept(most)
        away = _fewest(layers, lambda n: _fits(bare[n:], cards))
        return None if away is None else (most, away, bare[away:], cards)

    def _cards(self, settings: Settings, judged: Judged, cache: float, compute_share: float) -> list[_Card] | None:
        """Each card with its room, and what it held beside its layers in the answer."""
        rows = {row.device: row for row in judged.memory}
        where = assign(len(self._dense), settings.gpu_layers, settings.tensor_split or self._free)
        held = [self._held(where, device, settings, cache) for device in range(len(self._devices))]
        fixed = [
            rows[name].total_bytes - size - (1 - compute_share) * rows[name].compute_bytes
            if name in rows and size
            else None
            for name, size in zip(self._devices, held, strict=True)
        ]
        known = [each for device, each in enumerate(fixed) if each is not None and device != where.output]
        usual = max(known or [each for each in fixed if each is not None], default=0)
        cards = []
        for name, extra, free in zip(self._devices, fixed, self._free, strict=True):
            row = rows.get(name)
            offered = free if row is None else row.available_bytes
            if offered is None:
                return None
            reserve = row.reserve_bytes if row is not None else max(each.reserve_bytes for each in judged.memory)
            cards.append(_Card(offered - reserve, usual if extra is None else extra))
        return cards

    def _held(self, where: Assignment, device: int, settings: Settings, cache: float) -> float:
        """Bytes of the layers on a device, with the output."""
        layers = range(where.starts[device], min(where.ends[device], where.layers))
        moved = where.layers if settings.cpu_moe_layers < 0 else settings.cpu_moe_layers
        size = sum(self._dense[i] + cache + (self._experts[i] if i >= moved else 0) for i in layers)
        return size + (self._head if where.output == device else 0)


def _fewest(most: int, holds: Callable[[int], bool]) -> int | None:
    """The smallest n up to ``most`` where something holds that then holds for all larger ones; ``None`` if nowhere."""
    if not holds(most):
        return None
    low, high = -1, most
    while high - low > 1:
        middle = (low + high) // 2
        if holds(middle):
            high = middle
        else:
            low = middle
    return high


def _fits(sizes: Sequence[float], cards: Sequence[_Card]) -> bool:
    return _filled(sizes, cards, 0.0) is not None


def _shares(sizes: Sequence[float], cards: Sequence[_Card]) -> list[int]:
    """Counts per card that leave as much free as possible on the fullest of them."""
    best = _filled(sizes, cards, 0.0) or []
    low, high = 0.0, max(card.room for card in cards)
    for _ in range(_SLACK_STEPS):
        slack = (low + high) / 2
        found = _filled(sizes, cards, slack)
        if found is None:
            high = slack
        else:
            low, best = slack, found
    return best


def _filled(sizes: Sequence[float], cards: Sequence[_Card], slack: float) -> list[int] | None:
    """Counts when each card takes as many as it can with ``slack`` bytes left; ``None`` when some have no place."""
    counts, place = [], 0
    for card in cards:
        left, first = card.room - card.fixed - slack, place
        while place < len(sizes) and sizes[place] <= left:
            left -= sizes[place]
            place += 1
        counts.append(place - first)
    return counts if place == len(sizes) else None
