"""What Metal joins into one kernel; source: ``ggml-metal-fusion.cpp`` of llama.cpp at commit 0c1e57098.

What is joined is moved as one (``metal_order.py``), and whatever it reads stays until it is done. The mistake to
prevent is a group that is a little longer or shorter than Metal's: every order after it would be another one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from graphs import Graph
from tensors import Tensors  # noqa: TC002 - plain files import each other by bare name, at run time

__all__ = ["EMPTY", "Fusion"]

EMPTY = ("NONE", "RESHAPE", "TRANSPOSE", "VIEW", "PERMUTE")
"""Operations that neither read nor write."""

_MOST_NODES = 16  # GGML_METAL_FUSION_MAX
_MOST_SUMMED_EXPERTS = 8
_MOST_EXPERTS = 1024
_LONGEST_SUM = 7
_CHOICE = ("SOFT_MAX", "RESHAPE", "ARGSORT", "VIEW", "GET_ROWS")
_NORMED = ("RESHAPE", "SUM_ROWS", "CLAMP", "DIV", "RESHAPE")

_Check = Callable[[Graph, "_Pattern", "list[int]"], bool]


class _Pattern(NamedTuple):
    """Operations in a row: ``full`` as the graph has them, ``ops`` without those that are empty."""

    full: tuple[int, ...]
    ops: tuple[int, ...]
    chain: bool
    check: _Check


class Fusion:
    """Metal's table of joins."""

    def __init__(self, tensors: Tensors) -> None:
        self.t = tensors
        self.op = tensors.ops
        self.empty = frozenset(tensors.ops[name] for name in EMPTY)
        self.f32, self.i32 = tensors.types["f32"], tensors.types["i32"]
        self.floats = tensors.kinds("f32", "f16", "bf16")
        self.silu = tensors.unary["SILU"]
        self.patterns = self._table()
        self.by_start: dict[int, list[_Pattern]] = {}
        for pattern in self.patterns:
            self.by_start.setdefault(pattern.full[0], []).append(pattern)

    def _table(self) -> list[_Pattern]:
        norms: list[tuple[str, ...]] = []
        for name in ("NORM", "RMS_NORM"):
            norms += [(name, "MUL"), (name, "MUL", "ADD"), (name, "SCALE")]
        sums = [("ADD",) * count for count in range(2, _LONGEST_SUM + 1)]
        choices = [_CHOICE, (*_CHOICE, "SCALE"), (*_CHOICE, *_NORMED), (*_CHOICE, *_NORMED, "SCALE")]
        experts = [("MUL", *("VIEW",) * count, *("ADD",) * (count - 1)) for count in range(2, _MOST_SUMMED_EXPERTS + 1)]
        return [
            *(self._pattern(each, self._norm, chain=True) for each in norms),
            *(self._pattern(each, self._sum, chain=True) for each in sums),
            self._pattern(("MUL", "SIN", "SQR", "MUL", "ADD"), self._snake, chain=True),
            self._pattern(("GATED_DELTA_NET", "CPY"), self._state, chain=False),
            *(self._pattern(each, self._choice, chain=False) for each in choices),
            *(self._pattern(each, self._experts, chain=False) for each in experts),
            self._pattern(("SSM_CONV", "UNARY"), self._convolution, chain=True),
        ]

    def _pattern(self, names: tuple[str, ...], check: _Check, *, chain: bool) -> _Pattern:
        full = tuple(self.op[name] for name in names)
        return _Pattern(full, tuple(op for op in full if op not in self.empty), chain, check)

    def longest_raw(self, graph: Graph, first: int) -> int:
        """How many nodes from ``first`` on look like the longest pattern, by their operations alone."""
        return max(
            (len(each.full) for each in self.by_start.get(graph.ops[first], ()) if graph.starts(first, each.full)),
            default=0,
        )

    def span(self, graph: Graph, first: int) -> int:
        """How many nodes from ``first`` on are moved as one: joins that follow one another, with the views between."""
        if graph.ops[first] not in self.by_start:
            return 1
        places: list[int] = []
        index = first
        while index < len(graph.nodes) and len(places) < _MOST_NODES:
            if graph.ops[index] not in self.empty:
                places.append(index)
            index += 1
        done = 0
        while done < len(places):
            length = self._longest(graph, places[done:])
            if length == 1 or done + length > _MOST_NODES:
                break
            done += length
        return min(_MOST_NODES, places[done - 1] - first + 1) if done else 1

    def _longest(self, graph: Graph, places: list[int]) -> int:
        best = 1
        for pattern in self.by_start.get(graph.ops[places[0]], ()):
            count = len(pattern.ops)
            if best < count <= len(places) and self._holds(graph, pattern, places[:count]):
                best = count
        return best

    def _holds(self, graph: Graph, pattern: _Pattern, places: list[int]) -> bool:
        if tuple(graph.ops[place] for place in places) != pattern.ops:
            return False
        nodes = [graph.nodes[place] for place in places]
        if pattern.chain:
            for before, node in zip(nodes, nodes[1:]):  # noqa: B905, RUF007 - as Python 3.9 has it
                if before not in self.t.sources(node)[:2] or not self.t.same_shape(node, before):
                    return False
            if not graph.fuses(places, [places[-1]]):
                return False
        return pattern.check(graph, pattern, places)

    # what each join asks for

    def _norm(self, graph: Graph, _pattern: _Pattern, places: list[int]) -> bool:
        nodes = [graph.nodes[place] for place in places]
        if graph.ops[places[1]] == self.op["SCALE"]:
            scale = nodes[1]
            return self.t.sources(scale)[:2] == [nodes[0], 0] and self.t.type(scale) == self.f32
        width = self.t.shape(nodes[0])[0]
        for before, node in zip(nodes, nodes[1:]):  # noqa: B905, RUF007 - as above
            first, second = self.t.sources(node)[:2]
            if first != before or self.t.shape(second)[0] != width:
                return False
            if not self.t.contiguous_rows(second) or self.t.type(node) != self.f32:
                return False
        return True

    def _sum(self, graph: Graph, _pattern: _Pattern, places: list[int]) -> bool:
        nodes = [graph.nodes[place] for place in places]
        return all(
            self.t.operand(node, 0) == before and self._alike(self.t.operand(node, 1), self.t.operand(before, 1))
            for before, node in zip(nodes, nodes[1:])  # noqa: B905, RUF007 - as above
        )

    def _alike(self, a: int, b: int) -> bool:
        t = self.t
        return t.type(a) == t.type(b) and t.shape(a) == t.shape(b) and t.strides(a) == t.strides(b)

    def _snake(self, graph: Graph, _pattern: _Pattern, places: list[int]) -> bool:
        # An activation of speech decoders: no language model has it, and what it needs is not looked at further.
        return self.t.type(graph.nodes[places[0]]) in self.floats

    def _convolution(self, graph: Graph, _pattern: _Pattern, places: list[int]) -> bool:
        convolution, activation = graph.nodes[places[0]], graph.nodes[places[1]]
        if self.t.sources(activation)[:2] != [convolution, 0] or self.t.param(activation, 0) != self.silu:
            return False
        typed = self.t.type(convolution) == self.f32 == self.t.type(activation)
        return typed and self.t.contiguous_rows(activation)

    def _state(self, graph: Graph, _pattern: _Pattern, places: list[int]) -> bool:
        """The delta net writes its state into the cache itself."""
        t = self.t
        net, copy = graph.nodes[places[0]], graph.nodes[places[1]]
        if t.type(net) != self.f32 or graph.is_output(net) or graph.is_output(copy):
            return False
        values = t.shape(t.operand(net, 2))
        size, heads, tokens, sequences = values
        tail, target = t.operand(copy, 0), t.operand(copy, 1)
        state = size * size * heads
        shown = t.op(tail) == self.op["VIEW"] and t.view_source(tail) == net and t.contiguous(tail)
        if not shown or t.view_offset(tail) != 4 * size * heads * tokens * sequences:
            return False
        expected = (state, sequences, min(tokens, t.param(net, 0)), 1)
        return t.type(target) == self.f32 and t.shape(target) == expected and t.strides(target)[:2] == (4, 4 * state)

    def _choice(self, graph: Graph, pattern: _Pattern, places: list[int]) -> bool:
        """The choice of experts: plain softmax of at most 1024 experts, with the views between as they must be."""
        first, count = places[0], len(pattern.full)
        if first + count > len(graph.nodes) or not graph.starts(first, pattern.full):
            return False
        nodes = graph.nodes[first : first + count]
        # A pattern may end with a view, which ``places`` leaves out.
        if places[-1] not in (first + count - 1, first + count - 2):
            return False
        softmax, ids, last = nodes[0], nodes[3], nodes[-1]
        if not self._plain_softmax(softmax) or not self._choice_wired(nodes):
            return False
        return self._choice_shaped(softmax, ids, last) and graph.fuses(
            list(range(first, first + count)), [first + 3, first + count - 1]
        )

    def _plain_softmax(self, softmax: int) -> bool:
        plain = self.t.real_param(softmax, 0) == 1.0 and self.t.real_param(softmax, 1) == 0.0
        return plain and not any(self.t.sources(softmax)[1:3])

    def _choice_shaped(self, softmax: int, ids: int, last: int) -> bool:
        t, logits = self.t, self.t.operand(softmax, 0)
        experts, tokens, depth, outer = t.shape(logits)
        chosen = t.shape(ids)[0]
        kinds = [t.type(tensor) for tensor in (logits, softmax, last)]
        if kinds != [self.f32] * 3 or t.type(ids) != self.i32 or not 0 < chosen <= experts <= _MOST_EXPERTS:
            return False
        shaped = (depth, outer) == (1, 1) and t.shape(ids)[1:] == (tokens, 1, 1)
        if not shaped or t.shape(last) != (1, chosen, tokens, 1):
            return False
        return t.contiguous(logits) and t.contiguous(last) and t.strides(ids)[:2] == (4, 4 * experts)

    def _choice_wired(self, nodes: list[int]) -> bool:
        softmax, reshaped, sort, ids, rows = nodes[:5]
        wanted = [(reshaped, softmax), (sort, softmax), (ids, sort), (rows, reshaped)]
        if len(nodes) >= len(_CHOICE) + len(_NORMED):
            weights, total, clamped, quotient, last = nodes[5:10]
            wanted += [(weights, rows), (total, weights), (clamped, total), (quotient, weights), (last, quotient)]
            if self.t.source(quotient, 1) != clamped:
                return False
        if len(nodes) in (len(_CHOICE) + 1, len(_CHOICE) + len(_NORMED) + 1):
            wanted.append((nodes[-1], nodes[-2]))
        return self.t.source(rows, 1) == ids and all(self.t.source(node, 0) == operand for node, operand in wanted)

    def _experts(self, graph: Graph, pattern: _Pattern, places: list[int]) -> bool:
        """Chosen experts weighted and summed."""
        first, count = places[0], len(pattern.full)
        if not graph.starts(first, pattern.full) or places[-1] != first + count - 1:
            return False
        nodes, t = graph.nodes[first : first + count], self.t
        product, last, chosen = nodes[0], nodes[-1], count // 2
        experts, weights = t.sources(product)[:2]
        if any(t.type(tensor) != self.f32 for tensor in (product, experts, weights, last)):
            return False
        width, number, tokens, outer = t.shape(experts)
        shapes = (t.shape(weights), t.shape(last))
        if (number, outer) != (chosen, 1) or shapes != ((1, chosen, tokens, 1), (width, tokens, 1, 1)):
            return False
        if not all(map(t.contiguous, (experts, weights, last))):
            return False
        views, sums = nodes[1 : chosen + 1], nodes[chosen + 1 :]
        shown = all(self._shows(view, product, index) for index, view in enumerate(views))
        # Each sum adds the next view to the one before it, the first of them to the first view.
        running = [views[0], *sums]
        added = all(t.sources(total)[:2] == [running[index], views[index + 1]] for index, total in enumerate(sums))
        return shown and added and graph.fuses(list(range(first, first + count)), [first + count - 1])

    def _shows(self, view: int, product: int, index: int) -> bool:
        t, strides = self.t, self.t.strides(product)
        width, _, tokens, _ = t.shape(product)
        return (
            t.view_source(view) == product == t.source(view, 0)
            and t.view_offset(view) == index * strides[1]
            and t.shape(view)[:2] == (width, tokens)
            and t.strides(view)[1] == strides[2]
        )
