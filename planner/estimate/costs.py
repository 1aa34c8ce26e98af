"""What the work of a graph amounts to: bytes of weights by type and columns, attention, states, everything else.

Time is a sum over kinds of work, so the graph of a whole model and that of a slice differ in amounts alone. The
mistakes it prevents: counting all experts where a token visits a few, or the same expert twice for two tokens that
share it; counting attention over empty cells; and one number per type where a kernel for one column and one for many
differ.
Pure: a graph in, amounts out.
"""

import functools
import math
from collections import defaultdict
from collections.abc import Callable, Mapping
from itertools import pairwise
from typing import NamedTuple

from planner.engine.graphs import Graph, Node, Operand
from planner.estimate.costs_attention import NEAR_UNKNOWN, Near, Walk, waited_for, walked
from planner.gguf.ggml_types import TYPES, tensor_bytes

__all__ = [
    "COLUMN_KNOTS",
    "COUNTING",
    "EXPERT_KNOTS",
    "TILED_TOKENS",
    "Amounts",
    "amounts",
    "between",
]

Amounts = Mapping[str, float]
"""How much of each kind of work, by the name of the kind.

``call`` and ``node`` are counts (one micro-batch; its operations: each ends with all threads waiting for the last).
``mm/q4_K/repacked@8`` are bytes of weights that are multiplied with 8 columns, ``id/…`` those of experts with so many
tokens each; what lies between two numbers of columns is shared by them. ``product`` counts products, in which threads
wait for one another once more, ``start`` the matrices of weights that they begin to read: what memory needs before it
is as fast as it can be, and ``chunk`` the pieces of a matrix that threads take in turns where nothing is repacked.
``out`` are the numbers that products make, ``row`` the rows that the kernels of llamafile begin for several columns,
``strip`` what tiled kernels read of a row in one go for 8 to 16, ``quantize`` the numbers that are brought into the
type of a product. ``attn/…`` are multiplications of queries with keys and values (those of one latent vector apart: it
is read again for each head), ``pos/…`` the scores, ``kv/…`` the bytes of cache they read, ``jump`` the rows of it that
lie too far apart to be fetched ahead, ``again`` those that another head has fetched already. ``state/…`` are the
updates of recurrent states. ``op/…`` are bytes that another operation reads and writes.
"""

COUNTING = 6
"""Grows whenever the same graph comes to other amounts: costs that were solved for with others mean something else."""
COLUMN_KNOTS = (1, 2, 4, 8, 32, 256)
"""Numbers of columns of a product between which its time is a straight line."""
EXPERT_KNOTS = (1, 2, 4, 8, 32, 128)
"""The same for tokens of one expert."""
TILED_TOKENS = 64
"""From so many tokens on the CPU computes attention in tiles (source: ops.cpp of ggml-cpu at commit 0c1e57098)."""

_JUMP = (4, 8)
"""Between these two the straight line goes on as before: from 8 on another kernel takes over (``tiled.cpp``)."""
_STRIPS = (768, 512, 256)
"""Numbers of one row that tiled kernels read in one go, the longest of these that divides a row (``tiled.cpp``)."""
_FEW_COLUMNS = 16
"""Columns up to which they read strips; for more they read a block at a time."""
_STARTED_BYTES = 256 << 10
"""A matrix of at least so many bytes is a whole start; smaller ones are their share of it."""
_LLAMAFILE = {"f32": 2048, "f16": 2048, "bf16": 2048, "q8_0": 1024, "q4_0": 1024, "q5_0": 1024, "iq4_nl": 1024}
"""Types whose products of several columns kernels of llamafile compute, and from how many numbers on a row costs whole
to begin; shorter ones are their share of it. Those of floats and of blocks are two kernels (``sgemm.cpp``)."""
_REPACKED_STEP = 4  # columns that a kernel of repacked weights takes at once; what is left goes one by one
_SMALLEST_CHANCE = 1e-9
_PLAIN_CACHE = ("f16", "f32")
_MOVES_ITS_FIRST = ("SET_ROWS", "CPY", "CONT", "DUP")


def amounts(graph: Graph, *, filled: float, near: Near = NEAR_UNKNOWN) -> dict[str, float]:
    """The amounts of work of one micro-batch with ``filled`` tokens in the cache of each sequence before it.

    The graph must have room for them: attention counts what is filled and not what the cache could hold.
    """
    counted: dict[str, float] = defaultdict(float, call=1.0)
    cells = max((each.operands[1].shape[1] for each in graph.nodes if each.op == "FLASH_ATTN_EXT"), default=0)
    for node in graph.nodes:
        counted["node"] += node.times
        _KINDS.get(node.op, _other)(_Place(graph, cells, filled, near), node, counted)
    return {name: amount for name, amount in counted.items() if amount}


def between(knots: tuple[int, ...], at: float) -> dict[int, float]:
    """Weights of the neighbouring knots for a straight line between them; beyond the last in proportion to it."""
    if at >= knots[-1]:
        return {knots[-1]: at / knots[-1]}
    if _JUMP[0] < at < _JUMP[1] and _JUMP[0] in knots:
        low, high = knots[knots.index(_JUMP[0]) - 1], _JUMP[0]
        share = (at - low) / (high - low)
        return {low: 1 - share, high: share}
    for low, high in pairwise(knots):
        if at <= high:
            share = (max(at, low) - low) / (high - low)
            return {knot: weight for knot, weight in ((low, 1 - share), (high, share)) if weight}
    return {knots[0]: 1.0}


class _Place:
    """Where a node stands: its graph, the cells of the largest cache, and how many of them are filled."""

    def __init__(self, graph: Graph, cells: int, filled: float, near: Near) -> None:
        self.near = near
        self.window = graph.window
        self.cells = cells
        self.filled = filled

    def windowed(self, cells: int) -> bool:
        """Whether a cache of so many cells is that of a sliding window."""
        return bool(self.window) and cells < self.cells

    def seen(self, cells: int, tokens: int) -> float:
        """Cells that a token of ``tokens`` looks at on average."""
        seen = self.filled + (tokens + 1) / 2
        if self.windowed(cells):
            seen = min(seen, float(self.window))
        return min(seen, float(cells))


def _product(_place: _Place, node: Node, counted: dict[str, float]) -> None:
    weight, columns = node.operands[0], node.operands[1]
    counted["product"] += node.times
    counted["out"] += node.times * node.elements
    if not _is_weight(weight):
        kind = "dot" if node.shape[1:2] and node.shape[1] >= TILED_TOKENS else "dot1"
        counted[f"{kind}/{weight.type}"] += node.times * node.elements * weight.shape[0]
        return
    batches = _product_of(weight.shape[2:])
    n = columns.elements / (weight.shape[0] * batches)
    counted["quantize"] += node.times * columns.elements
    _start(counted, weight, node.times)
    if "REPACK" not in weight.place:
        _share_out(counted, weight, node.times * _at(weight.shape, 1) * batches, n)
    _weigh(counted, "mm", weight, node.times * _bytes(weight), _columns(weight, n))


def _start(counted: dict[str, float], weight: Operand, matrices: float) -> None:
    """Matrices of the size of ``weight`` that threads begin to read."""
    counted["start"] += matrices * _whole(weight)


def _whole(weight: Operand) -> float:
    """1 for a matrix that comes from RAM; what is as small as a cache keeps is begun in less time."""
    matrix = _bytes(weight) / _product_of(weight.shape[2:])
    return min(1.0, matrix / _STARTED_BYTES)


def _share_out(counted: dict[str, float], weight: Operand, rows: float, columns: float) -> None:
    """What ``rows`` that are not repacked cost beside their bytes and outputs.

    Threads take them in chunks of 64 for one column, of 16 for more; in some types kernels of llamafile take over from
    two columns on, in others tiled ones from 8 on (ggml-cpu.c, sgemm.cpp, tiled.cpp). Those of llamafile walk along
    four rows at once: 40 to 110 ns a row on two cores of AMD EPYC, for 2, 4 and 8 columns alike, and for BF16 and Q8_0
    of 2,048 to 12,288 numbers; for 1,024 half of that in BF16, all of it in Q8_0. Tiled ones read strips of 16 rows:
    35 to 75 ns a strip there in four types, so rows of 2,816 or 8,960 numbers take half as long again for 8 columns
    as rows of 3,072 or 9,216.
    """
    if columns > 1 and weight.type in _LLAMAFILE:
        counted["row"] += rows * min(1.0, weight.shape[0] / _LLAMAFILE[weight.type])
    elif columns < _JUMP[1]:
        counted["chunk"] += _whole(weight) * rows / _chunk_rows(columns)
    elif columns <= _FEW_COLUMNS and _is_tiled(weight):
        counted["strip"] += rows * _strips(weight)


def _is_tiled(weight: Operand) -> bool:
    return TYPES[weight.type.upper()].block == _STRIPS[-1]


def _strips(weight: Operand) -> int:
    """Strips of a row: how often a kernel must wait for the next row instead of reading on."""
    return weight.shape[0] // next(each for each in _STRIPS if weight.shape[0] % each == 0)


def _chunk_rows(columns: float) -> int:
    return 64 if columns <= 1 else 16


def _columns(weight: Operand, n: float) -> dict[int, float]:
    """Shares of the knots for ``n`` columns: what a kernel of repacked weights leaves over goes one by one."""
    rest = n % _REPACKED_STEP
    if "REPACK" not in weight.place or not rest:
        return between(COLUMN_KNOTS, n)
    shares: defaultdict[int, float] = defaultdict(float)
    if n > rest:
        shares.update(between(COLUMN_KNOTS, n - rest))
    else:  # fewer columns than a step: the first has read the weights
        shares[1], rest = 1.0, rest - 1
    shares[2] += rest
    shares[1] -= rest
    return {knot: share for knot, share in shares.items() if share}


def _experts(_place: _Place, node: Node, counted: dict[str, float]) -> None:
    weight, routes = node.operands[0], node.operands[2]
    experts = weight.shape[2] if len(weight.shape) > 2 else 1
    used, tokens = routes.shape[0], routes.elements // routes.shape[0]
    counted["product"] += node.times
    counted["out"] += node.times * node.elements
    counted["quantize"] += node.times * node.operands[1].elements
    share = min(used / experts, 1.0)
    visited = experts * (1 - (1 - share) ** tokens)
    _start(counted, weight, node.times * visited)
    visits = _visits(tokens, share)
    if "REPACK" not in weight.place:
        rows = node.times * experts * _at(weight.shape, 1)
        counted["chunk"] += _whole(weight) * rows * visits.chunks_per_row
        if _is_tiled(weight):
            counted["strip"] += rows * visits.stripped * _strips(weight)
    _weigh(counted, "id", weight, node.times * _bytes(weight), visits.shares)


class _Visits(NamedTuple):
    """Of one expert: shares of the knots; where it is not repacked, chunks for each row, and the chance of strips."""

    shares: Mapping[int, float]
    chunks_per_row: float
    stripped: float


@functools.lru_cache(maxsize=256)
def _visits(tokens: int, share: float) -> _Visits:
    """What becomes of one expert that each of ``tokens`` visits with a chance of ``share``."""
    shares: defaultdict[int, float] = defaultdict(float)
    chunks = stripped = 0.0
    for visits in range(1, tokens + 1):
        chance = _binomial(tokens, visits, share)
        if chance > _SMALLEST_CHANCE:
            chunks += chance / _chunk_rows(visits) if visits < _JUMP[1] else 0.0
            stripped += chance if _JUMP[1] <= visits <= _FEW_COLUMNS else 0.0
            for knot, weight in between(EXPERT_KNOTS, visits).items():
                shares[knot] += chance * weight
    return _Visits(shares, chunks, stripped)


def _binomial(trials: int, hits: int, share: float) -> float:
    if share >= 1.0:
        return float(hits == trials)
    logarithm = math.lgamma(trials + 1) - math.lgamma(hits + 1) - math.lgamma(trials - hits + 1)
    return math.exp(logarithm + hits * math.log(share) + (trials - hits) * math.log1p(-share))


def _weigh(counted: dict[str, float], kind: str, weight: Operand, size: float, shares: Mapping[int, float]) -> None:
    form = "repacked" if "REPACK" in weight.place else "plain"
    for knot, share in shares.items():
        counted[f"{kind}/{weight.type}/{form}@{knot}"] += size * share


def _attention(place: _Place, node: Node, counted: dict[str, float]) -> None:
    queries, keys, values = node.operands[:3]
    tokens = queries.shape[1]
    heads, streams = _at(queries.shape, 2), _at(queries.shape, 3)
    seen = place.seen(keys.shape[1], tokens)
    by_cells = tokens * streams == 1 and keys.type == values.type and keys.type in _PLAIN_CACHE
    if by_cells and not place.windowed(keys.shape[1]):
        seen = waited_for(place.near, cells=keys.shape[1], seen=seen)
    # Where keys and values differ in width there is one latent vector, and the values are its beginning.
    latent = keys.shape[0] != values.shape[0]
    tiled = tokens >= TILED_TOKENS and keys.type in _PLAIN_CACHE
    path = "tiled" if tiled else "latent" if latent else "single"
    scores = node.times * streams * heads * tokens * seen
    width = keys.shape[0] + values.shape[0]
    counted[f"attn/{path}/{keys.type}"] += scores * width
    counted[f"pos/{path}"] += scores
    if not tiled:
        walk = Walk(
            heads=heads,
            kv_heads=_at(keys.shape, 2),
            key_bytes=_row_bytes(keys),
            row_bytes=_row_bytes(keys) + (0 if latent else _row_bytes(values)),
            cells=seen,
            by_cells=by_cells,
        )
        times = node.times * streams * seen
        counted[f"kv/{keys.type}"] += times * walk.kv_heads * walk.row_bytes
        jumps, again = walked(place.near, walk)
        counted["jump"] += times * jumps
        counted["again"] += times * again


def _state(_place: _Place, node: Node, counted: dict[str, float]) -> None:
    _queries, _keys, values, _gate, _beta, state = node.operands[:6]
    counted[f"state/{node.op}"] += node.times * values.elements * state.shape[0]
    counted[f"op/{node.op}"] += node.times * 2 * 4 * state.elements


def _scale(place: _Place, node: Node, counted: dict[str, float]) -> None:
    # The graph shows states being reset; the engine does so for new sequences only, not for every token.
    if node.operands[0].place != "cache":
        _other(place, node, counted)


def _moved(_place: _Place, node: Node, counted: dict[str, float]) -> None:
    counted[f"op/{node.op}"] += node.times * 2 * _operand_bytes(node.operands[0])


def _rows(_place: _Place, node: Node, counted: dict[str, float]) -> None:
    counted["op/GET_ROWS"] += node.times * 2 * 4 * node.elements


def _other(_place: _Place, node: Node, counted: dict[str, float]) -> None:
    read = sum(_operand_bytes(each) for each in node.operands)
    written = _operand_bytes(Operand(node.type, node.shape))
    counted[f"op/{node.op}"] += node.times * (read + written)


_KINDS: dict[str, Callable[[_Place, Node, dict[str, float]], None]] = {
    "MUL_MAT": _product,
    "MUL_MAT_ID": _experts,
    "FLASH_ATTN_EXT": _attention,
    "SCALE": _scale,
    "GET_ROWS": _rows,
    **dict.fromkeys(_MOVES_ITS_FIRST, _moved),
    "GATED_DELTA_NET": _state,
}


def _is_weight(operand: Operand) -> bool:
    return operand.place not in {"", "cache"}


def _bytes(weight: Operand) -> int:
    return tensor_bytes(weight.type.upper(), weight.shape)


def _operand_bytes(operand: Operand) -> int:
    ggml = TYPES.get(operand.type.upper())
    return operand.elements * 4 if ggml is None else operand.elements * ggml.size_bytes // ggml.block


def _row_bytes(operand: Operand) -> int:
    return _operand_bytes(Operand(operand.type, operand.shape[:1]))


def _at(shape: tuple[int, ...], index: int) -> int:
    return shape[index] if len(shape) > index else 1


def _product_of(shape: tuple[int, ...]) -> int:
    found = 1
    for each in shape:
        found *= each
    return found
