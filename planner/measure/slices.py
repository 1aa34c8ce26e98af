"""Times of a few short phantoms, added up to the time of the whole model: the arithmetic, and which slices to take.

Decode and prompt time are sums over layers, so time(slice) = base + Σ count × cost over its *kinds of layer*, where the
base is everything that is there once (embedding, head, the call itself). A kind is the multiset of a layer's tensors
with their dimensions **and types** (Q4_K_M alternates two kinds of equal shape that differ in speed), and what lists
of the metadata say of this layer: GLM-5.2 indexes in one layer of four, and all four have the same tensors. The time
of the whole is then a weighted sum of the slices' times; the costs themselves need not be known one by one.

Mistakes it prevents: counting the head once per layer, a slice so small that it runs from the last-level cache, a
hybrid model cut in the middle of its period, and an answer for a kind of layer that no slice contained (``None``).
Pure: layouts and numbers in, numbers out.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from statistics import median
from typing import NamedTuple

from planner.gguf.ggml_types import tensor_bytes
from planner.measure.linear import minimum_norm_weights
from planner.measure.statistics import median_error, robust_deviation, student_quantile
from planner.types.metadata import GgufValue
from planner.types.model import Layout

__all__ = [
    "Composed",
    "Kind",
    "Slice",
    "SlicePlan",
    "compose",
    "kinds_of_layers",
    "outside_bytes",
    "plan_slices",
    "retyped",
    "weights_bytes",
]

Kind = tuple[tuple[str, tuple[int, ...], str], ...]
"""Sorted (suffix, dimensions, type) of every tensor of one layer.

An entry without a type is no tensor: the key of a list in the metadata, and which of its values this layer has.
"""

CACHE_MULTIPLE = 4
"""A slice is at least this many times the last-level cache, or it is timed from the cache."""

ADDITIVITY = 0.03
"""Relative error of the sum itself, beyond the noise of its parts, added to every interval: full models of 28 layers
were within 2.1 % of what their slices said on an idle machine (see ``docs/measuring.md``)."""

_MAX_KINDS = 3
_CONSTANT_UP_TO = 3  # so few layers of a kind are put into every slice whole
_LONGEST_PERIOD = 8


class Slice(NamedTuple):
    """A phantom of the original ``layers``; ``counts`` is its row: 1 for the base, then how much of each kind."""

    layers: tuple[int, ...]
    counts: tuple[float, ...]


class SlicePlan(NamedTuple):
    """Slices to time, and the row of the whole model that they are to be combined to.

    ``merged`` says that rare kinds were counted as a similar one in proportion to their bytes.
    """

    slices: tuple[Slice, ...]
    whole: tuple[float, ...]
    layers_total: int
    merged: bool

    @property
    def layers_timed(self) -> int:
        """Layers of the largest slice."""
        return max(len(each.layers) for each in self.slices)


class Composed(NamedTuple):
    """Time of the whole in the unit of the samples: middle, 80 % interval, and one value per interleaved round."""

    middle: float
    low: float
    high: float
    rounds: tuple[float, ...]


def kinds_of_layers(layout: Layout) -> tuple[Kind, ...]:
    """The kind of each layer, in order."""
    found: list[list[tuple[str, tuple[int, ...], str]]] = [[] for _ in layout.layers]
    for tensor in layout.tensors:
        if tensor.name.startswith("blk."):
            _, block, suffix = tensor.name.split(".", 2)
            found[int(block)].append((suffix, tensor.dims, tensor.type))
    for key, marks in _marks(layout):
        for entries, mark in zip(found, marks, strict=False):
            entries.append((key, (mark,), ""))
    return tuple(tuple(sorted(tensors)) for tensors in found)


def _marks(layout: Layout) -> Iterator[tuple[str, list[int]]]:
    """Lists of the metadata that tell layers apart, each value as its place among the values that occur.

    Such a list has one entry per layer; some leave the multi-token-prediction blocks at the end out.
    """
    predicting = layout.metadata.get(f"{layout.architecture}.nextn_predict_layers", 0)
    lengths = {len(layout.layers), len(layout.layers) - (predicting if isinstance(predicting, int) else 0)}
    for key, value in layout.metadata.items():
        values = value.value if isinstance(value, GgufValue) else value
        if isinstance(values, tuple) and len(values) in lengths and len(set(values)) > 1:
            places = {each: place for place, each in enumerate(sorted(set(values), key=str))}
            yield key, [places[each] for each in values]


def weights_bytes(layout: Layout) -> int:
    """Bytes of all tensors."""
    return sum(tensor_bytes(tensor.type, tensor.dims) for tensor in layout.tensors)


def retyped(part: Layout, whole: Layout) -> Layout:
    """``part``, a slice of a model in any types, with the types that the same tensors have in ``whole``."""
    types = {tensor.name: tensor.type for tensor in whole.tensors}
    tensors = tuple(
        type(tensor)(name=tensor.name, dims=tensor.dims, type=types[part.origin_of(tensor.name)])
        for tensor in part.tensors
    )
    return Layout(architecture=part.architecture, metadata=part.metadata, tensors=tensors, layers=part.layers)


def outside_bytes(layout: Layout) -> int:
    """Bytes of the tensors that belong to no layer."""
    return sum(tensor_bytes(each.type, each.dims) for each in layout.tensors if not each.name.startswith("blk."))


def plan_slices(
    layout: Layout, *, cache_bytes: int, budget_bytes: int, once_bytes: int | None = None
) -> SlicePlan | None:
    """Two to four slices of ``layout`` that determine the whole, together at most about ``budget_bytes`` large.

    ``cache_bytes`` is the last-level cache. ``once_bytes`` is what each slice holds besides its layers: less than the
    whole does where a slice has a short lookup table. ``None`` when slices make no sense: the model is not much larger
    than they would be, a hybrid's layers follow no period, or not even the smallest slices fit into the budget.
    """
    units = _units(kinds_of_layers(layout))
    if units is None:
        return None
    once = outside_bytes(layout) if once_bytes is None else once_bytes
    for most_kinds in (_MAX_KINDS, 1):
        # A hybrid of few periods can have as many kinds as periods; then all of one structure count by their bytes.
        found = _planned(layout, list(units), most_kinds, CACHE_MULTIPLE * cache_bytes, once, budget_bytes)
        if found is not None:
            return found
    return None


def compose(plan: SlicePlan, samples: Sequence[Sequence[float]]) -> Composed | None:
    """Time of the whole from interleaved ``samples`` of each slice; ``None`` when they do not determine it.

    Either a kind of layer is missing, or the noise is larger than the layers that the slices differ by.
    The interval is ± t · √(Σ weight² · error²) of the slices' medians, with one relative deviation pooled over all of
    them (they ran interleaved on one machine), plus the additivity error in quadrature.
    """
    medians = [median(each) for each in samples]
    weights = minimum_norm_weights([each.counts for each in plan.slices], plan.whole, scales=medians)
    if weights is None:
        return None
    middle = sum(weight * each for weight, each in zip(weights, medians, strict=True))
    if middle <= 0:
        return None
    freedom = sum(len(each) - 1 for each in samples)
    if freedom < 1:
        return None
    relative = (
        sum((len(each) - 1) * (robust_deviation(each) / mid) ** 2 for each, mid in zip(samples, medians, strict=True))
        / freedom
    ) ** 0.5
    variance = sum(
        (weight * mid * median_error(relative, len(each))) ** 2
        for weight, mid, each in zip(weights, medians, samples, strict=True)
    )
    half = ((student_quantile(0.9, freedom) ** 2) * variance + (ADDITIVITY * middle) ** 2) ** 0.5
    rounds = tuple(sum(w * value for w, value in zip(weights, row, strict=True)) for row in zip(*samples, strict=False))
    if half >= middle or min(rounds) <= 0:
        return None
    return Composed(middle, middle - half, middle + half, rounds)


class _Unit(NamedTuple):
    """Layers that are kept or dropped together: one, or a whole period of a hybrid.

    ``share`` is 1, or bytes ÷ bytes of the representative kind that it was merged into.
    """

    first: int
    kinds: tuple[Kind, ...]
    share: float = 1.0


class _Row(NamedTuple):
    kinds: tuple[Kind, ...]
    units: tuple[int, ...]


class _Table(NamedTuple):
    rows: tuple[_Row, ...]
    merged: bool


def _planned(
    layout: Layout, units: list[_Unit], most_kinds: int, least_bytes: int, once_bytes: int, budget_bytes: int
) -> SlicePlan | None:
    """The slices that tell at most ``most_kinds`` kinds of each structure apart, ``None`` when there are none."""
    table = _table(units, most_kinds)
    varying = [index for index, row in enumerate(table.rows) if len(row.units) > _CONSTANT_UP_TO]
    if not varying:
        return None
    everything = [len(row.units) for row in table.rows]
    base = [1 if index in varying else count for index, count in enumerate(everything)]
    while once_bytes + _bytes(table, base) < least_bytes:
        grown = [min(base[i] + (i in varying), count) for i, count in enumerate(everything)]
        if grown == base:
            return None  # even the whole runs from the cache
        base = grown
    counts = _counts(table, base, varying, once_bytes, budget_bytes)
    if counts is None or sum(_bytes(table, each) for each in counts) >= _bytes(table, everything):
        return None
    slices = tuple(_slice(units, table, each) for each in counts)
    whole = (1.0, *(sum(units[unit].share for unit in row.units) for row in table.rows))
    return SlicePlan(slices, whole, len(layout.layers), table.merged)


def _units(kinds: tuple[Kind, ...]) -> list[_Unit] | None:
    """Layers grouped by the period of their structure (types aside), between some other layers at both ends."""
    structures = [tuple((suffix, dims) for suffix, dims, _ in kind) for kind in kinds]
    total = len(kinds)
    for period in range(1, _LONGEST_PERIOD + 1):
        first, repeated = _repetition(structures, period)
        if repeated < max(2 * period, total / 2):
            continue
        end = first + repeated // period * period
        starts = (*range(first), *range(first, end, period), *range(end, total))
        return [_Unit(at, kinds[at : at + (period if first <= at < end else 1)]) for at in starts]
    return None


def _repetition(structures: Sequence[object], period: int) -> tuple[int, int]:
    """Where the longest stretch begins in which every layer is like the one ``period`` later, and its length."""
    best, begin = (0, 0), 0
    for at in range(len(structures)):
        if at - begin >= period and structures[at] != structures[at - period]:
            begin = at - period + 1
        if at + 1 - begin > best[1]:
            best = (begin, at + 1 - begin)
    return best


def _table(units: list[_Unit], most_kinds: int) -> _Table:
    """Units by kind, most frequent first; kinds beyond ``most_kinds`` merge into the nearest of equal structure."""
    found = Counter(unit.kinds for unit in units)
    kept: list[tuple[Kind, ...]] = []
    stands_for: dict[tuple[Kind, ...], tuple[Kind, ...]] = {}
    for kinds, _ in sorted(found.items(), key=lambda item: (-item[1], item[0])):
        alike = [other for other in kept if _structure(other) == _structure(kinds)]
        if len(kept) >= most_kinds and alike:
            nearest = min(alike, key=lambda other: abs(_unit_bytes(other) - _unit_bytes(kinds)))
            stands_for[kinds] = nearest
        else:
            kept.append(kinds)
            stands_for[kinds] = kinds
    for index, unit in enumerate(units):
        share = _unit_bytes(unit.kinds) / _unit_bytes(stands_for[unit.kinds])
        units[index] = unit._replace(share=share)
    rows = tuple(
        _Row(kinds, tuple(i for i, unit in enumerate(units) if stands_for[unit.kinds] == kinds)) for kinds in kept
    )
    return _Table(rows, merged=any(unit.share != 1.0 for unit in units))


def _counts(
    table: _Table, base: list[int], varying: list[int], once_bytes: int, budget_bytes: int
) -> list[list[int]] | None:
    """Units of each kind in each slice: the base, then for each varying kind the base and some more of it."""
    slices = 1 + len(varying)
    left = budget_bytes - slices * (once_bytes + _bytes(table, base))
    more = sum(_unit_bytes(table.rows[index].kinds) for index in varying)
    longest = max(len(table.rows[index].units) for index in varying)
    extra = min(int(left // more), -(-longest // 2)) if left > 0 else 0
    if extra < 1:
        return None
    counts = [base]
    for index in varying:
        grown = list(base)
        grown[index] = min(base[index] + extra, len(table.rows[index].units))
        counts.append(grown)
    return counts


def _slice(units: list[_Unit], table: _Table, counts: Sequence[int]) -> Slice:
    """The slice with so many units of each kind, taken evenly from the model; units of the kind itself come first."""
    chosen: list[int] = []
    row: list[float] = [1.0]
    for each, count in zip(table.rows, counts, strict=True):
        pure = [unit for unit in each.units if units[unit].kinds == each.kinds]
        pool = pure if len(pure) >= count else list(each.units)
        taken = [pool[at * len(pool) // count] for at in range(count)]
        chosen.extend(taken)
        row.append(sum(units[unit].share for unit in taken))
    layers = [units[unit].first + offset for unit in sorted(chosen) for offset in range(len(units[unit].kinds))]
    return Slice(tuple(layers), tuple(row))


def _structure(kinds: tuple[Kind, ...]) -> tuple[tuple[tuple[str, tuple[int, ...]], ...], ...]:
    return tuple(tuple((suffix, dims) for suffix, dims, _ in kind) for kind in kinds)


def _kind_bytes(kind: Kind) -> int:
    return sum(tensor_bytes(type_name, dims) for _, dims, type_name in kind if type_name)


def _unit_bytes(kinds: tuple[Kind, ...]) -> int:
    return sum(_kind_bytes(kind) for kind in kinds)


def _bytes(table: _Table, counts: Sequence[int]) -> int:
    return sum(count * _unit_bytes(row.kinds) for row, count in zip(table.rows, counts, strict=True))
