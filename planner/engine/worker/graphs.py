"""Reads the part of a graph that a backend is given to arrange before memory is planned.

A backend that joins several operations into one must keep their inputs until the last of them is done, so what it
joins changes the size of the compute buffer. The mistake to prevent is planning for a graph that no backend runs.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from typing import Any

from errors import Refused
from tensors import Tensors  # noqa: TC002 - plain files import each other by bare name, at run time

__all__ = ["Arrangement", "Graph", "Keep", "Replay", "fusion_test"]

_COUNT, _NODES, _USES, _HASH_SIZE, _HASH_USED, _HASH_KEYS = 4, 16, 48, 56, 64, 72  # of ggml_cgraph
_SMALL_NODES = 200
_OUTPUT = 2  # GGML_TENSOR_FLAG_OUTPUT

Keep = Callable[[int, int], None]
"""``keep(tensor, until)``: the tensor's memory stays taken until that node is computed."""
Arrangement = Callable[["Graph", Keep], None]
"""What a backend does with the graph it is given, as far as memory depends on it."""


class Graph:
    """The nodes of one part of a graph, by address, in the order in which they are computed."""

    def __init__(self, tensors: Tensors, can_fuse: Any, address: int) -> None:
        self.tensors = tensors
        self._can_fuse = can_fuse
        self._address = address
        count = ctypes.c_int.from_address(address + _COUNT).value
        self._array = (ctypes.c_uint64 * count).from_address(_word(address + _NODES))
        self.nodes: list[int] = list(self._array)
        self.ops = [tensors.op(node) for node in self.nodes]
        self._sources: list[list[int]] | None = None

    @property
    def sources(self) -> list[list[int]]:
        """The operands of each node, in the order in which the graph came."""
        if self._sources is None:
            self._sources = [self.tensors.sources(node) for node in self.nodes]
        return self._sources

    def likeness(self) -> tuple[int, ...]:
        """What graphs that are arranged alike have in common, among those of one model.

        Whole graphs are told apart by their operations; of the small parts of a split graph two may have the same
        ones and yet read one another otherwise, so for those it is told too who reads whom, and whose memory.
        """
        if len(self.nodes) > _SMALL_NODES:
            return tuple(self.ops)
        view, numbers = self.tensors.view_source, {0: -1}
        told = list(self.ops)
        for node, row in zip(self.nodes, self.sources):  # noqa: B905 - as Python 3.9 has it
            for tensor in (node, *row):
                told.append(numbers.setdefault(tensor, len(numbers)))
                if tensor:
                    told.append(numbers.setdefault(view(tensor) or tensor, len(numbers)))
        return tuple(told)

    def is_output(self, node: int) -> bool:
        """Whether the result is asked for outside the graph."""
        return bool(self.tensors.flags(node) & _OUTPUT)

    def reorder(self, nodes: Sequence[int]) -> None:
        """Compute the same nodes in another order."""
        self._array[:] = list(nodes)
        self.nodes = list(nodes)
        self.ops = [self.tensors.op(node) for node in nodes]

    def starts(self, index: int, ops: Sequence[int]) -> bool:
        """Whether the nodes from ``index`` on have just these operations."""
        return self.ops[index : index + len(ops)] == list(ops)

    def fits_in_one(self, first: int, ops: Sequence[int], outputs: Sequence[int]) -> bool:
        """Whether nobody else uses what ``ops`` from node ``first`` on make, ``outputs`` apart: ggml's own answer."""
        places = list(range(first, first + len(ops)))
        return (
            places[-1] < len(self.nodes)
            and self.ops[first : places[-1] + 1] == list(ops)
            and self.fuses(places, outputs)
        )

    def fuses(self, places: Sequence[int], outputs: Sequence[int]) -> bool:
        """The same for nodes that do not stand side by side."""
        ints = ctypes.c_int * len(places)
        kept = (ctypes.c_int * len(outputs))(*outputs)
        ops = ints(*(self.ops[place] for place in places))
        return bool(self._can_fuse(self._address, ints(*places), len(places), ops, kept, len(outputs)))

    def used_once(self, index: int) -> bool:
        """Whether one node alone uses a result that is no view and no output (``ggml_node_has_n_uses`` of 1)."""
        node = self.nodes[index]
        if self.tensors.view_source(node) or self.tensors.flags(node) & _OUTPUT:
            return False
        return self.uses(node) == 1

    def uses(self, node: int) -> int:
        """How many nodes of the whole graph take this one as an operand."""
        size = _word(self._address + _HASH_SIZE)
        keys, used = _word(self._address + _HASH_KEYS), _word(self._address + _HASH_USED)
        place = (node >> 4) % size
        for _ in range(size):
            if not (ctypes.c_uint32.from_address(used + 4 * (place >> 5)).value >> (place & 31)) & 1:
                return 0
            if _word(keys + 8 * place) == node:
                return int(ctypes.c_int32.from_address(_word(self._address + _USES) + 4 * place).value)
            place = (place + 1) % size
        return 0

    def chained(self, first: int, ops: Sequence[int]) -> bool:
        """Whether ``ops`` from node ``first`` on feed one another alone and keep the shape (``ggml_can_fuse``)."""
        if not self.starts(first, ops):
            return False
        for index in range(first, first + len(ops) - 1):
            node, following = self.nodes[index], self.nodes[index + 1]
            if not self.used_once(index) or node not in self.tensors.sources(following)[:2]:
                return False
            if not self.tensors.same_shape(node, following):
                return False
        return True


class Replay:
    """What a backend did to one graph, to be done to others like it (:meth:`Graph.likeness`).

    One context is planned with several graphs that differ in the number of tokens alone. Those of another model are not
    told apart, so nobody keeps this longer than a question.
    """

    def __init__(self, graph: Graph, arrange: Arrangement) -> None:
        before = {node: index for index, node in enumerate(graph.nodes)}
        places = {node: (index, -1) for node, index in before.items()}
        for index, row in enumerate(graph.sources):
            for slot, source in enumerate(row):
                if source:
                    places.setdefault(source, (index, slot))
        self._kept: list[tuple[int, int, int]] = []
        arrange(graph, lambda tensor, until: self._kept.append((*places[tensor], before[until])))
        order = [before[node] for node in graph.nodes]
        self._order = order if order != sorted(order) else None

    def apply(self, graph: Graph, keep: Keep) -> None:
        """Do it to ``graph``, which is in the order in which it came."""
        nodes, operand = graph.nodes, graph.tensors.operand
        for index, slot, until in self._kept:
            keep(nodes[index] if slot < 0 else operand(nodes[index], slot), nodes[until])
        if self._order is not None:
            graph.reorder([nodes[index] for index in self._order])


def _word(address: int) -> int:
    return int(ctypes.c_uint64.from_address(address).value)


def fusion_test(ggml: Any) -> Any:
    """The function of ggml behind :meth:`Graph.fits_in_one`; :class:`Refused` where this build lacks it."""
    function = getattr(ggml, "ggml_can_fuse_subgraph_ext", None)
    if function is None:
        raise Refused("this llama.cpp does not tell which operations fuse: update planner or the engine")
    pointer = ctypes.c_void_p
    function.restype = ctypes.c_bool
    function.argtypes = [pointer, pointer, ctypes.c_int, pointer, pointer, ctypes.c_int]
    return function
