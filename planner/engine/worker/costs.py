"""Tells what a model computes for a micro-batch: the engine's own graph, node by node, equal nodes counted together.

What a token costs is what the engine does for it, and the engine says so before a single weight is there: the graph of
a context without memory has every operation with its types and shapes. The mistake it prevents is a list of our own of
what an architecture computes, which is wrong as soon as the engine joins two operations or adds a third.
"""

from __future__ import annotations

import ctypes
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

from errors import Refused
from llama import Engine, engine
from loaded import loaded
from reserve import Reserve
from tensors import Tensors
from untouched import untouched_state

__all__ = ["ask"]

Emit = Callable[[dict[str, Any]], None]
Operand = tuple[str, tuple[int, ...], str]

_COUNT, _NODES = 4, 16  # of ggml_cgraph: its number of nodes, their array
_NO_WORK = ("NONE", "VIEW", "RESHAPE", "PERMUTE", "TRANSPOSE")
_CACHE = "cache"  # weights are read whole; views of leaves are of what a context keeps from token to token
_NAMED = {"UNARY": "unary", "GLU": "glu"}  # operations whose first parameter says which of many they are

_tools: list[tuple[Reserve, Tensors]] = []


def ask(args: dict[str, Any], _emit: Emit) -> dict[str, Any]:
    """The graphs of one model: ``{"path", "key", "asked": [{"settings", "tokens", "sequences", "outputs"}]}``.

    Answers ``{"graphs": [{"nodes": [...], "window"}]}``. A node is ``[times, operation, type, shape, operands]``, an
    operand ``[type, shape, place]``: place is the buffer type of a weight, ``cache`` for what the context keeps, empty
    for what was computed. Shapes have no ones at the end. The cache counts as full: the context of the settings is the
    depth that the graph shows.
    ``refused`` takes the place of ``nodes`` with the engine's reason; ``{"unknown": true}`` asks for the file.
    All settings must share what belongs to the model (``MODEL_SETTINGS``).
    """
    eng = engine()
    asked = list(args["asked"])
    with loaded(eng, args, asked[0]["settings"]) as found, untouched_state(eng):
        if found is None:
            return {"unknown": True}
        graphs: dict[int, dict[str, Any]] = {}
        for places in _by_context(asked):
            told = _graphs(eng, found.model, [asked[place] for place in places])
            graphs.update(zip(places, told))  # noqa: B905 - as Python 3.9 has it
        return {"graphs": [graphs[place] for place in range(len(asked))]}


def _by_context(asked: list[dict[str, Any]]) -> Iterable[list[int]]:
    """The places of those questions that one context can answer."""
    groups: dict[str, list[int]] = {}
    for place, each in enumerate(asked):
        groups.setdefault(repr(sorted(each["settings"].items())), []).append(place)
    return groups.values()


def _graphs(eng: Engine, model: Any, asked: list[dict[str, Any]]) -> list[dict[str, Any]]:
    if not _tools:
        _tools.append((Reserve(eng), Tensors(eng)))
    reserve, tensors = _tools[0]
    try:
        context = eng.make_context(model, asked[0]["settings"])
    except Refused as refusal:
        return [{"refused": str(refusal)} for _ in asked]
    try:
        return [_graph(eng, reserve, tensors, context, each) for each in asked]
    finally:
        eng.api.llama_free(context)


def _graph(eng: Engine, reserve: Reserve, tensors: Tensors, context: Any, each: dict[str, Any]) -> dict[str, Any]:
    parallel = int(each["settings"].get("parallel", 1))
    if int(each["sequences"]) != parallel and not each["settings"].get("kv_unified"):
        # The engine would not refuse this but abort: a full cache has as many streams as there are sequences.
        return {"refused": f"a graph of {each['sequences']} sequences in a context made for {parallel}"}
    graph = reserve.graph(
        context, tokens=int(each["tokens"]), sequences=int(each["sequences"]), outputs=int(each["outputs"])
    )
    if graph is None:
        return {"refused": "this build does not show its graphs"}
    count = ctypes.c_int.from_address(graph + _COUNT).value
    nodes = (ctypes.c_uint64 * count).from_address(ctypes.c_uint64.from_address(graph + _NODES).value)
    told = _Reader(eng, tensors).nodes(nodes)
    return {"nodes": told, "window": int(eng.api.llama_model_n_swa(eng.api.llama_get_model(context)))}


class _Reader:
    """Words for the nodes of one graph."""

    def __init__(self, eng: Engine, tensors: Tensors) -> None:
        self._eng = eng
        self._tensors = tensors
        self._ops = {number: name for name, number in tensors.ops.items()}
        self._types = {number: name for name, number in tensors.types.items()}
        self._kinds = {
            "unary": {number: name for name, number in tensors.unary.items()},
            "glu": {number: name for name, number in tensors.glu.items()},
        }
        self._places: dict[int, str] = {}

    def nodes(self, addresses: Iterable[int]) -> list[list[Any]]:
        """Every node that works, equal ones counted together, in the order of their first."""
        counted: Counter[tuple[Any, ...]] = Counter()
        for address in addresses:
            name = self._ops.get(self._tensors.op(address), "?")
            if name not in _NO_WORK:
                counted[self._node(address, name)] += 1
        return [[times, *node] for node, times in counted.items()]

    def _node(self, address: int, name: str) -> tuple[Any, ...]:
        kinds = self._kinds.get(_NAMED.get(name, ""))
        if kinds is not None:
            name = f"{name}:{kinds.get(self._tensors.param(address, 0), '?')}"
        operands = tuple(self._operand(source) for source in self._tensors.sources(address) if source)
        return name, self._type(address), self._shape(address), operands

    def _operand(self, address: int) -> Operand:
        return self._type(address), self._shape(address), self._place(address)

    def _type(self, address: int) -> str:
        number = self._tensors.type(address)
        return self._types.get(number, str(number))

    def _shape(self, address: int) -> tuple[int, ...]:
        shape = list(self._tensors.shape(address))
        while len(shape) > 1 and shape[-1] == 1:
            shape.pop()
        return tuple(shape)

    def _place(self, address: int) -> str:
        """The buffer type that holds a leaf, ``cache`` for a view of one, empty for what is computed or an input."""
        root = self._tensors.view_source(address) or address
        if self._ops.get(self._tensors.op(root)) != "NONE":
            return ""
        buffer = self._tensors.buffer(root)
        if not buffer:
            return ""
        if root != address:
            return _CACHE
        kind = int(self._eng.ggml.ggml_backend_buffer_get_type(buffer))
        if kind not in self._places:
            self._places[kind] = str(self._eng.ggml.ggml_backend_buft_name(kind).decode())
        return self._places[kind]
