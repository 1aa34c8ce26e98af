"""The order in which Metal computes a graph; source: ``ggml-metal-common.cpp`` of llama.cpp at commit 0c1e57098.

The mistake it prevents: sizing the compute buffer for the order in which the model lists its operations. Metal runs
operations side by side until one must wait for another, and fills that time with later ones that need not wait, so more
results are alive at once. What is joined into one kernel (``metal_fusion.py``) keeps what it reads.
"""

from __future__ import annotations

from graphs import Graph, Keep  # noqa: TC002 - plain files import each other by bare name, at run time
from metal_fusion import EMPTY, Fusion
from tensors import Tensors  # noqa: TC002 - as above

__all__ = ["Order"]

_LOOK_AHEAD = 64
_MOST_KNOWN = 16
_MOVABLE = (
    "MUL_MAT", "MUL_MAT_ID", "ROPE", "NORM", "RMS_NORM", "GROUP_NORM", "L2_NORM", "SUM_ROWS", "SSM_CONV", "SSM_SCAN",
    "CLAMP", "TRI", "DIAG", "MUL", "ADD", "SUB", "DIV", "GLU", "SCALE", "UNARY", "GET_ROWS", "SET_ROWS", "SET", "CPY",
    "CONT", "REPEAT",
)  # fmt: skip


class Order:
    """Metal's order of any graph."""

    def __init__(self, tensors: Tensors) -> None:
        self.t = tensors
        self.fusion = Fusion(tensors)
        self.empty = self.fusion.empty
        self.movable = frozenset(tensors.ops[name] for name in (*_MOVABLE, *EMPTY))
        # What decides whether these are joined is looked at beside the structure of a graph.
        self.joined = frozenset(
            tensors.ops[name]
            for name in ("NORM", "RMS_NORM", "MUL", "ADD", "SCALE", "SSM_CONV", "UNARY", "SOFT_MAX", "CPY", "VIEW")
        )
        self._known: dict[int, _Placing] = {}

    def arrange(self, graph: Graph, keep: Keep) -> None:
        """Reorder the graph, and tell what must stay."""
        mark = graph.mark(self._facts)
        placing = self._known.get(mark)
        if placing is None:
            if len(self._known) >= _MOST_KNOWN:
                self._known.clear()
            placing = self._known[mark] = _Placing(self, graph)
        for index, slot, until in placing.kept:
            keep(graph.sources[index][slot], graph.nodes[until])
        graph.reorder([graph.nodes[index] for index in placing.placed])

    def _facts(self, node: int, op: int, row: list[int]) -> tuple[int, ...]:
        if op not in self.joined:
            return ()
        first = row[0]
        alike = self.t.shape(first) == self.t.shape(node) if first else False
        return self.t.type(node), alike, self.t.shape(node)[0], self.t.contiguous(node)


class _Group:
    """Nodes that are moved as one: what they read from outside, and what they write."""

    def __init__(self, rules: Order, graph: Graph, first: int, count: int) -> None:
        self.places = range(first, first + count)
        self.empty = graph.ops[first] in rules.empty
        self.movable = graph.ops[first] in rules.movable
        own = {graph.nodes[place] for place in self.places}
        base = rules.t.view_source
        outside = {source for place in self.places for source in graph.sources[place] if source and source not in own}
        self.reads = {base(source) or source for source in outside}
        self.writes = {base(node) or node for node in own}


class _Memory:
    """The memory that a set of groups reads and writes."""

    def __init__(self) -> None:
        self.read: set[int] = set()
        self.written: set[int] = set()

    def add(self, group: _Group) -> None:
        """Count a group in."""
        self.read |= group.reads
        self.written |= group.writes

    def allows(self, group: _Group) -> bool:
        """Whether a group may run beside the set: it reads nothing written there and writes nothing used there."""
        written = self.written
        return (
            written.isdisjoint(group.reads) and written.isdisjoint(group.writes) and self.read.isdisjoint(group.writes)
        )


class _Placing:
    """The placing of one graph's nodes: ``placed`` are their indexes in the new order.

    ``kept`` says which operand (node, place) stays until which node.
    """

    def __init__(self, rules: Order, graph: Graph) -> None:
        self.kept = _kept(rules.fusion, graph)
        self.placed: list[int] = []
        for group in _ordered(_groups(rules, graph)):
            self.placed.extend(group.places)


def _kept(fusion: Fusion, graph: Graph) -> list[tuple[int, int, int]]:
    kept: list[tuple[int, int, int]] = []
    index = 0
    while index < len(graph.nodes):
        count = fusion.longest_raw(graph, index)
        seen: set[int] = set()
        for place in range(index, index + count):
            for slot, source in enumerate(graph.sources[place]):
                if source and source not in seen:
                    seen.add(source)
                    kept.append((place, slot, index + count - 1))
            seen.add(graph.nodes[place])
        index += max(count, 1)
    return kept


def _groups(rules: Order, graph: Graph) -> list[_Group]:
    groups: list[_Group] = []
    index = 0
    while index < len(graph.nodes):
        count = rules.fusion.span(graph, index)
        groups.append(_Group(rules, graph, index, count))
        index += count
    return groups


def _ordered(groups: list[_Group]) -> list[_Group]:
    """The groups in the order in which they are started."""
    order: list[_Group] = []
    used = [False] * len(groups)
    running = _Memory()
    for index, group in enumerate(groups):
        if used[index]:
            continue
        if not group.empty and not running.allows(group):
            _fill(groups, index, used, running, order)
            running = _Memory()
        running.add(group)
        order.append(group)
    return order


def _fill(groups: list[_Group], index: int, used: list[bool], running: _Memory, order: list[_Group]) -> None:
    """Start what need not wait, before the group at ``index`` waits for all that runs."""
    waiting = _Memory()
    waiting.add(groups[index])
    for ahead in range(index + 1, min(index + _LOOK_AHEAD, len(groups))):
        if used[ahead]:
            continue
        group = groups[ahead]
        if not group.movable:
            break
        if (group.empty or running.allows(group)) and waiting.allows(group):
            running.add(group)
            order.append(group)
            used[ahead] = True
        else:
            waiting.add(group)
