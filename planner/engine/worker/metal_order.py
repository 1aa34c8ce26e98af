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

    def arrange(self, graph: Graph, keep: Keep) -> None:
        """Reorder the graph, and tell what must stay."""
        for index, slot, until in _kept(self.fusion, graph):
            keep(graph.sources[index][slot], graph.nodes[until])
        order = _ordered(_groups(self, graph))
        graph.reorder([graph.nodes[index] for group in order for index in group.places])


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


def _kept(fusion: Fusion, graph: Graph) -> list[tuple[int, int, int]]:
    """Which operand (node, place) stays until which node."""
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
