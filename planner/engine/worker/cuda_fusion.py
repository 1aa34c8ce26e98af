"""What CUDA keeps in memory longer because it joins operations; source: ``ggml-cuda.cu`` of llama.cpp at 0c1e57098.

It is ``ggml_backend_cuda_graph_optimize`` as it is where the environment sets nothing. The mistake it prevents:
planning a mixture of experts as if each operation freed its inputs. CUDA weighs and adds the chosen experts in one
kernel, and picks them in another; what these read stays until they are done.
"""

from __future__ import annotations

from typing import NamedTuple

from graphs import Graph, Keep  # noqa: TC002 - plain files import each other by bare name, at run time
from tensors import Tensors  # noqa: TC002 - as above

__all__ = ["Fusion"]

_MOST_EXPERTS = 15  # more would not fit the 31 nodes that may be joined
_SIZES_BEYOND_POWERS = (288, 576)  # expert counts that have a kernel of their own
_MOST_CHOICES = 512


class _Choice(NamedTuple):
    """The nodes that choose experts: their operations, and the places of the two results that others read."""

    ops: list[int]
    ids: int


class Fusion:
    """The joins of CUDA's build that change how long memory stays taken."""

    def __init__(self, tensors: Tensors) -> None:
        self.t = tensors
        self.op = tensors.ops
        self.f32 = tensors.types["f32"]
        self.gates = {self.op["UNARY"], self.op["SOFT_MAX"]}
        self.sigmoid, self.softplus = tensors.unary["SIGMOID"], tensors.unary["SOFTPLUS"]

    def arrange(self, graph: Graph, keep: Keep) -> None:
        """Tell what must stay; the order of nodes stays as it is."""
        ops, after, product = graph.ops, (self.op["VIEW"], self.op["MUL"]), self.op["MUL"]
        places = [index for index, op in enumerate(ops) if op == product or op in self.gates]
        done = 0
        for index in places:
            if index < done or index + 1 >= len(ops):
                continue
            if ops[index] != product:
                done = index + 1 + self._choice(graph, index, keep)
            elif ops[index + 1] in after:
                done = index + 1 + self._weighted_sum(graph, index, keep)

    # experts times weights, summed

    def _weighted_sum(self, graph: Graph, first: int, keep: Keep) -> int:
        """Keep experts and weights until their sum is made; how many nodes beyond the first were joined."""
        nodes = graph.nodes
        if self.t.type(nodes[first]) != self.f32 or not self.t.contiguous(nodes[first]):
            return 0
        weighted, kept = self._product(graph, first)
        if not kept:
            return 0
        products = len(kept) - 1
        chosen = self.t.shape(weighted)[1]
        count = 2 * chosen + products - 1
        if not 2 <= chosen <= _MOST_EXPERTS or first + count > len(nodes):
            return 0
        if not self._is_sum(nodes[first + products : first + count], weighted):
            return 0
        if not graph.fits_in_one(first, graph.ops[first : first + count], [first + count - 1]):
            return 0
        for tensor in kept:
            keep(tensor, nodes[first + count - 1])
        return count - 1

    def _product(self, graph: Graph, first: int) -> tuple[int, list[int]]:
        """The weighted experts, and what they are made of: experts and weights, or experts, scale and weights."""
        mul = graph.nodes[first]
        inner = self._parts(mul)
        if first + 1 < len(graph.nodes) and graph.ops[first + 1] == self.op["MUL"]:
            second = graph.nodes[first + 1]
            outer = self._parts(second) if self.t.type(second) == self.f32 and self.t.contiguous(second) else None
            if outer and inner and outer[0] == mul:
                return second, [inner[0], outer[1], inner[1]]
        return mul, list(inner or ())

    def _parts(self, mul: int) -> tuple[int, int] | None:
        """The operand of the product's own shape and the one with one value for each expert and token."""
        a, b = self.t.source(mul, 0), self.t.source(mul, 1)
        for full, weights in ((a, b), (b, a)):
            if full and weights and self._plain(full) and self._plain(weights) and self.t.same_shape(full, mul):
                shape = self.t.shape(weights)
                if shape[0] == 1 and shape[1:] == self.t.shape(mul)[1:]:
                    return full, weights
        return None

    def _plain(self, tensor: int) -> bool:
        return self.t.type(tensor) == self.f32 and self.t.contiguous(tensor)

    def _is_sum(self, nodes: list[int], weighted: int) -> bool:
        """Whether the nodes show one expert after the other and add them up in that order."""
        view_op, add_op = self.op["VIEW"], self.op["ADD"]
        width, chosen, depth, outer = self.t.shape(weighted)
        row, expert, token, _ = self.t.strides(weighted)
        shown = [width, depth * outer, 1, 1, row, token]
        views: list[int] = []
        sums: list[int] = []
        for node in nodes:
            kind, _, *rest = self.t.record(node)
            if kind == self.f32 and rest[8] == view_op and len(views) < chosen:
                if rest[:6] != shown or (rest[10], rest[20], rest[21]) != (weighted, weighted, len(views) * expert):
                    return False
                views.append(node)
            elif kind == self.f32 and rest[8] == add_op and len(sums) + 1 < len(views):
                if rest[10:12] != [sums[-1] if sums else views[0], views[len(sums) + 1]]:
                    return False
                sums.append(node)
            else:
                return False
        whole = len(views) == chosen and len(sums) == chosen - 1
        return whole and self.t.contiguous(sums[-1]) and self.t.shape(sums[-1])[1:] == (depth * outer, 1, 1)

    # choosing experts

    def _choice(self, graph: Graph, first: int, keep: Keep) -> int:
        """Keep what the choice of experts reads until it is made; how many nodes beyond the first were joined."""
        choice = self._match(graph, first)
        if choice is None:
            return 0
        count = len(choice.ops)
        if not graph.fits_in_one(first, choice.ops, [first + choice.ids, first + count - 1]):
            return 0
        if not self._has_kernel(graph.nodes[first], graph.nodes[first + count - 1], graph.nodes[first + choice.ids]):
            return 0
        # The node after the last is what all waits for: it reads the weights.
        if first + count >= len(graph.nodes):
            return count - 1
        until = graph.nodes[first + count]
        joined = graph.nodes[first : first + count]
        kept = dict.fromkeys(tensor for node in joined for tensor in (node, *self.t.sources(node)) if tensor)
        for tensor in kept:
            keep(tensor, until)
        return count - 1

    def _match(self, graph: Graph, first: int) -> _Choice | None:
        """The operations from a gate to the weights of the chosen experts, if the graph goes on as it must."""
        ops = self._gate(graph, first)
        if ops is None:
            return None
        ids_after_gate = 3
        tail = ["RESHAPE", "ARGSORT", "VIEW", "GET_ROWS"]
        if graph.starts(first + len(ops) + 1, [self.op["ADD"]]):
            tail.insert(1, "ADD")
            ids_after_gate = 4
        gate = len(ops) - 1
        ops += [self.op[name] for name in tail]
        if not graph.starts(first, ops) or not self._wired(graph.nodes[first + gate :], biased=len(tail) > 4):
            return None
        norm = [self.op[name] for name in ("RESHAPE", "SUM_ROWS", "CLAMP", "DIV", "RESHAPE")]
        if graph.starts(first + len(ops), norm) and self._normed(graph.nodes[first + len(ops) - 1 :]):
            ops += norm
        following = first + len(ops)
        scaled = graph.starts(following, [self.op["SCALE"]])
        if scaled and self.t.source(graph.nodes[following], 0) == graph.nodes[following - 1]:
            ops.append(self.op["SCALE"])
        return _Choice(ops, gate + ids_after_gate)

    def _gate(self, graph: Graph, first: int) -> list[int] | None:
        """Softmax, sigmoid, or the root of softplus."""
        kind = graph.ops[first]
        if kind == self.op["SOFT_MAX"]:
            return [kind]
        function = self.t.param(graph.nodes[first], 0)
        if function == self.sigmoid:
            return [kind]
        root = [kind, self.op["SQRT"]]
        if function == self.softplus and graph.starts(first, root):
            return root if self.t.source(graph.nodes[first + 1], 0) == graph.nodes[first] else None
        return None

    def _wired(self, nodes: list[int], *, biased: bool) -> bool:
        """Whether gate, reshape, (bias,) sort, view and rows read one another as they must."""
        probabilities, reshaped = nodes[0], nodes[1]
        source = self.t.source
        if source(reshaped, 0) != probabilities:
            return False
        if biased and source(nodes[2], 0) != probabilities:
            return False
        sort, view, rows = nodes[3:6] if biased else nodes[2:5]
        sorted_ = nodes[2] if biased else probabilities
        picked = source(rows, 0) == reshaped and source(rows, 1) == view
        return source(sort, 0) == sorted_ and source(view, 0) == sort and picked

    def _normed(self, nodes: list[int]) -> bool:
        """Whether the chosen weights are divided by their sum: rows, reshape, sum, clamp, division, reshape."""
        rows, reshaped, total, clamped, quotient, last = nodes[:6]
        wanted = ((reshaped, rows), (total, reshaped), (clamped, total), (quotient, reshaped), (last, quotient))
        chained = all(self.t.source(node, 0) == operand for node, operand in wanted)
        return chained and self.t.source(quotient, 1) == clamped

    def _has_kernel(self, gate: int, weights: int, ids: int) -> bool:
        """Whether the kernel exists for this many experts (``topk-moe.cu``)."""
        strides = self.t.strides(ids)
        experts = strides[1] // strides[0]
        power = experts & (experts - 1) == 0 and experts <= _MOST_CHOICES
        logits = self.t.operand(gate, 0)
        if not (power or experts in _SIZES_BEYOND_POWERS):
            return False
        if not self.t.contiguous(weights) or not self.t.contiguous(logits):
            return False
        if self.t.op(gate) != self.op["SOFT_MAX"]:
            return True
        plain = self.t.real_param(gate, 0) == 1.0 and self.t.real_param(gate, 1) == 0.0
        return plain and not self.t.source(gate, 1) and not self.t.source(gate, 2)
