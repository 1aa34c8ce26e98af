"""The order in which Vulkan computes a graph; source: ``ggml_vk_graph_optimize`` of llama.cpp at commit 0c1e57098.

The mistake it prevents: sizing the compute buffer for the order in which the model lists its operations. Vulkan moves
operations forward that do not wait for each other, so more results are alive at once; with a long context the copy of
the attention mask is among them. What is joined into one shader is kept together, and what the choice of experts reads
stays until it is made.
"""

from __future__ import annotations

from graphs import Graph, Keep  # noqa: TC002 - plain files import each other by bare name, at run time
from tensors import Tensors  # noqa: TC002 - as above

__all__ = ["Order"]

_LOOK_AHEAD = 20  # nodes that are tried beside the first one not yet placed
_PARTNER_REACH = 15  # nodes in which the second half of a pair is looked for
_NORMED = ("RESHAPE", "SUM_ROWS", "CLAMP", "DIV", "RESHAPE")
# What one shader does, kept as it stands. The first five choose experts: what they read stays until they are done.
_CHOICES = (
    ("SOFT_MAX", "RESHAPE", "ARGSORT", "VIEW", "GET_ROWS", *_NORMED),
    ("UNARY", "RESHAPE", "ADD", "ARGSORT", "VIEW", "GET_ROWS", *_NORMED),
    ("UNARY", "SQRT", "RESHAPE", "ADD", "ARGSORT", "VIEW", "GET_ROWS", *_NORMED),
    ("SOFT_MAX", "RESHAPE", "ARGSORT", "VIEW", "GET_ROWS"),
    ("ARGSORT", "VIEW", "GET_ROWS", "RESHAPE", "SOFT_MAX", "RESHAPE"),
)
_SNAKE = ("MUL", "SIN", "SQR", "MUL", "ADD")
_SPARSE = ("GET_ROWS", "PERMUTE", "CONT", "CPY", "RESHAPE", "ADD", "TOP_K")
_NORMS = (
    ("RMS_NORM", "MUL", "ADD", "MUL"),
    ("RMS_NORM", "MUL", "ADD"),
    ("RMS_NORM", "MUL", "ROPE", "VIEW", "SET_ROWS"),
    ("RMS_NORM", "VIEW", "SET_ROWS"),
    ("ROPE", "VIEW", "SET_ROWS"),
)
_GATE = ("SCALE", "UNARY", "SCALE", "DSV4_HC_POST")
_EMPTY = ("NONE", "RESHAPE", "TRANSPOSE", "VIEW", "PERMUTE")
# A node may follow its own source at once, if the two make one shader.
_ADJACENT = (
    ("MUL_MAT", "ADD"), ("MUL_MAT_ID", "ADD_ID"), ("MUL_MAT_ID", "MUL"), ("ADD", "ADD"), ("SSM_CONV", "ADD"),
    ("SSM_CONV", "UNARY"),
)  # fmt: skip
_OVER_VIEWS = (("RMS_NORM", "MUL"), ("UNARY", "MUL"))
_JOINED_UNARY = ("GELU", "SIGMOID", "SILU", "SOFTPLUS")


class Order:
    """Vulkan's order of any graph."""

    def __init__(self, tensors: Tensors) -> None:
        self.t = tensors
        ops = tensors.ops
        self.choices = [_numbers(ops, pattern) for pattern in _CHOICES]
        self.gate = _numbers(ops, _GATE)
        self.sparse = _numbers(ops, _SPARSE)
        # In the order in which they are tried.
        self.patterns = [*self.choices, _numbers(ops, _SNAKE), self.sparse, *(_numbers(ops, each) for each in _NORMS)]
        self.patterns.append(self.gate)
        self.empty = frozenset(ops[name] for name in _EMPTY)
        self.adjacent = {_numbers(ops, pair) for pair in _ADJACENT}
        self.over_views = {_numbers(ops, pair) for pair in _OVER_VIEWS}
        self.joined_unary = {tensors.unary[name] for name in _JOINED_UNARY}
        self.narrow = tensors.kinds("f32", "f16")

    def arrange(self, graph: Graph, keep: Keep) -> None:
        """Reorder the graph, and tell what must stay."""
        placing = _Placing(self, graph)
        while placing.place_next():
            pass
        for index, slot, until in placing.kept:
            keep(graph.sources[index][slot], graph.nodes[until])
        graph.reorder([graph.nodes[index] for index in placing.placed])


class _Placing:
    """The placing of one graph's nodes: ``placed`` are their indexes in the new order.

    ``kept`` says which operand (node, place) stays until which node.
    """

    def __init__(self, rules: Order, graph: Graph) -> None:
        self.rules, self.graph, self.sources = rules, graph, graph.sources
        self.ops, self.nodes = graph.ops, graph.nodes
        t, self.op = rules.t, rules.t.ops
        self.kept: list[tuple[int, int, int]] = []
        self.base = [t.view_source(node) or node for node in self.nodes]
        self.bases = [{t.view_source(each) or each for each in row if each} for row in self.sources]
        self.empty = [op in rules.empty for op in self.ops]
        self.placed: list[int] = []
        self.used = [False] * len(self.nodes)
        self.computed: set[int] = set()
        self.first = 0
        self.patterns = self._patterns()
        self.sparse = [start for start, found in self.patterns.items() if rules.sparse in found]
        self.read = self._earlier_reads()

    def _patterns(self) -> dict[int, list[tuple[int, ...]]]:
        """Where patterns start, in the order in which they are tried."""
        by_start: dict[int, list[tuple[int, ...]]] = {}
        for pattern in self.rules.patterns:
            by_start.setdefault(pattern[0], []).append(pattern)
        found: dict[int, list[tuple[int, ...]]] = {}
        for index, op in enumerate(self.ops):
            for pattern in by_start.get(op, ()):
                if tuple(self.ops[index : index + len(pattern)]) == pattern:
                    found.setdefault(index, []).append(pattern)
        return found

    def _earlier_reads(self) -> list[list[int]]:
        """For each node those that it depends on (:meth:`_reads`), as far back as anybody looks."""
        place: dict[int, int] = {}
        holders: dict[int, list[int]] = {}
        computed: dict[int, list[int]] = {}
        readers: dict[int, list[int]] = {}
        found: list[list[int]] = []
        for index, (node, base) in enumerate(zip(self.nodes, self.base)):  # noqa: B905 - as Python 3.9 has it
            read = {place[source] for source in self.sources[index] if source in place}
            read.update(holders.get(base, ())[-_LOOK_AHEAD:])
            if not self.empty[index]:
                read.update(readers.get(base, ())[-_LOOK_AHEAD:])
                for each in self.bases[index]:
                    read.update(computed.get(each, ())[-_LOOK_AHEAD:])
                    readers.setdefault(each, []).append(index)
                computed.setdefault(base, []).append(index)
            place[node] = index
            holders.setdefault(base, []).append(index)
            found.append([other for other in read if other > index - _LOOK_AHEAD])
        return found

    def place_next(self) -> bool:
        """Place the next nodes; whether there were any."""
        if self.first >= len(self.nodes):
            return False
        if not self._kept_together():
            self._place(self._round())
        self._advance()
        return True

    def _advance(self) -> None:
        while self.first < len(self.nodes) and self.used[self.first]:
            self.first += 1

    def _place(self, indexes: list[int]) -> None:
        for index in indexes:
            self.placed.append(index)
            self.computed.add(self.nodes[index])
            self.used[index] = True

    # what stays together

    def _kept_together(self) -> bool:
        """Place a pattern that starts here; whether there was one."""
        for pattern in self.patterns.get(self.first, ()):
            if any(self.used[self.first : self.first + len(pattern)]):
                continue
            last = self.first + len(pattern) - 1
            if pattern in self.rules.choices:
                if last + 1 < len(self.nodes) and self.ops[last + 1] == self.op["SCALE"]:
                    last += 1
                self._keep_inputs(len(pattern), last)
            elif pattern == self.rules.gate:
                self._keep_inputs(len(pattern), last)
            self._place(list(range(self.first, self.first + len(pattern))))
            return True
        return False

    def _keep_inputs(self, count: int, until: int) -> None:
        seen: set[int] = set()
        for index in range(self.first, self.first + count):
            for slot, source in enumerate(self.sources[index]):
                if source and source not in seen:
                    seen.add(source)
                    self.kept.append((index, slot, until))
            seen.add(self.nodes[index])

    def _in_pattern(self, index: int) -> bool:
        """Whether a pattern starts at a node, or the node is inside the choice of sparse attention."""
        if any(not any(self.used[index : index + len(each)]) for each in self.patterns.get(index, ())):
            return True
        length = len(self.rules.sparse)
        return any(0 < index - start < length and not any(self.used[start : start + length]) for start in self.sparse)

    # a round: the first node that is left, and those after it that need not wait

    def _round(self) -> list[int]:
        chosen = [self.first]
        end = min(self.first + _LOOK_AHEAD, len(self.nodes))
        for index in range(self.first + 1, end):
            if self.used[index] or self.empty[index] or self._in_pattern(index):
                continue
            if self._free(index, chosen):
                chosen.append(index)
                self._bring_partners(index, chosen)
        # Views are placed after the rest, unless they would come between two sums that make one shader.
        if self.ops[chosen[-1]] != self.op["ADD"]:
            for index in range(self.first + 1, end):
                if not self.used[index] and self.empty[index] and not self._waits(index, chosen):
                    chosen.append(index)
        return chosen

    def _waits(self, index: int, chosen: list[int]) -> bool:
        """Whether a view shows something that is not computed and not in this round."""
        return any(not self.used[other] and other not in chosen for other in self.read[index])

    def _free(self, index: int, chosen: list[int]) -> bool:
        """Whether nothing before a node that is still to come must be computed before it."""
        return not any(
            not self.used[other] and not self._follows_at_once(index, other, chosen) for other in self.read[index]
        )

    def _reads(self, index: int, other: int) -> bool:
        """Whether a node depends on another one, through memory that they share too."""
        if self.nodes[other] in self.sources[index]:
            return True
        base, other_base = self.base[index], self.base[other]
        if base == other_base:
            return True
        if self.empty[index] or self.empty[other]:
            return False
        return other_base in self.bases[index] or base in self.bases[other]

    def _follows_at_once(self, index: int, other: int, chosen: list[int]) -> bool:
        if other != chosen[-1]:
            return False
        pair = (self.ops[other], self.ops[index])
        if pair in self.rules.adjacent:
            return index == other + 1
        return pair in self.rules.over_views and all(
            self.used[between] or self.empty[between] for between in range(other + 1, index)
        )

    # the second halves of shaders, brought forward

    def _bring_partners(self, index: int, chosen: list[int]) -> None:
        op, before = self.ops[index], self.ops[index - 1]
        written = index
        if op == self.op["MUL"] and before == self.op["RMS_NORM"]:
            written = self._bring_rotation(index, chosen)
        if self.ops[written] in (self.op["ROPE"], self.op["RMS_NORM"]):
            self._bring_write(written, chosen)
        if op == self.op["ADD_ID"] and before == self.op["MUL_MAT_ID"]:
            self._bring_next(index, "MUL", chosen)
        if op == self.op["ADD"] and before == self.op["MUL_MAT"]:
            self._bring_next(index, "ADD", chosen)
        if op == self.op["ADD"] and before == self.op["SSM_CONV"]:
            self._bring_activation(index, chosen)
        if op == self.op["UNARY"]:
            self._bring_product(index, chosen)

    def _ahead(self, index: int) -> range:
        return range(index + 1, min(index + _PARTNER_REACH, len(self.nodes)))

    def _bring(self, index: int, chosen: list[int]) -> None:
        chosen.append(index)
        self.used[index] = True

    def _ready(self, tensor: int) -> bool:
        """Whether a tensor is a weight or an input, or computed in an earlier round."""
        return self.rules.t.op(tensor) == self.op["NONE"] or tensor in self.computed

    def _bring_rotation(self, index: int, chosen: list[int]) -> int:
        """The rotary positions of what was normed; the node whose result is written next."""
        none = self.op["NONE"]
        for ahead in self._ahead(index):
            row = self.sources[ahead]
            if self.ops[ahead] != self.op["ROPE"] or row[0] != self.nodes[index]:
                continue
            if self.rules.t.op(row[1]) == none and (not row[2] or self.rules.t.op(row[2]) == none):
                self._bring(ahead, chosen)
                return ahead
        return index

    def _bring_write(self, index: int, chosen: list[int]) -> None:
        """The view and the write into the cache of a result, if nobody else reads it."""
        view = None
        for ahead in self._ahead(index):
            if self.used[ahead]:
                continue
            if view is None and self.ops[ahead] == self.op["VIEW"] and self.sources[ahead][0] == self.nodes[index]:
                view = ahead
            elif view is None or self.ops[ahead] != self.op["SET_ROWS"]:
                continue
            elif self.sources[ahead][0] == self.nodes[view]:
                self._bring_pair(index, view, ahead, chosen)
                return

    def _bring_pair(self, index: int, view: int, write: int, chosen: list[int]) -> None:
        if not self.graph.fuses([index, view, write], [write]):
            return
        for between in range(index + 1, write):
            if not self.used[between] and between != view and not self.empty[between] and self._reads(write, between):
                return
        self._bring(view, chosen)
        self._bring(write, chosen)

    def _bring_next(self, index: int, name: str, chosen: list[int]) -> None:
        """The next operation of a name that takes this node first and whose other operand is ready."""
        for ahead in self._ahead(index):
            first, second = self.sources[ahead][:2]
            if self.ops[ahead] == self.op[name] and first == self.nodes[index] and self._ready(second):
                self._bring(ahead, chosen)
                return

    def _bring_activation(self, index: int, chosen: list[int]) -> None:
        for ahead in self._ahead(index):
            if self.ops[ahead] == self.op["UNARY"] and self.sources[ahead][0] == self.nodes[index]:
                self._bring(ahead, chosen)
                return

    def _bring_product(self, index: int, chosen: list[int]) -> None:
        node = self.nodes[index]
        for ahead in self._ahead(index):
            pair = self.sources[ahead][:2]
            if self.ops[ahead] != self.op["MUL"] or node not in pair:
                continue
            other = pair[1] if pair[0] == node else pair[0]
            if self._ready(other) and self._one_shader(index, ahead, other):
                self._bring(ahead, chosen)
                return

    def _one_shader(self, index: int, product: int, other: int) -> bool:
        """Whether an activation and a product are done in one go (``ggml_vk_can_fuse_unary_mul``)."""
        t = self.rules.t
        unary, mul = self.nodes[index], self.nodes[product]
        kind = t.type(unary)
        if t.param(unary, 0) not in self.rules.joined_unary or kind not in self.rules.narrow:
            return False
        if not kind == t.type(mul) == t.type(other):
            return False
        if not t.contiguous_1(other) or not t.contiguous_1(t.operand(unary, 0)):
            return False
        whole, part = (unary, other) if self.sources[product][0] == unary else (other, unary)
        return all(a % b == 0 for a, b in zip(t.shape(whole), t.shape(part)))  # noqa: B905 - as Python 3.9 has it


def _numbers(ops: dict[str, int], names: tuple[str, ...]) -> tuple[int, ...]:
    return tuple(ops[name] for name in names)
