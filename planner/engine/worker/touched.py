"""How much of a planned compute buffer is ever written when less is run than was planned for.

The engine plans for logits of a whole batch and masks of a whole context, and gives every tensor its place for good.
A chat with one output and a short history writes to the beginning of those places only. What is left of the buffer
cannot be told from a second, smaller plan: there the tensors would move together, here they stay apart. So both
graphs are built, the larger one is placed by the engine's own allocator, the smaller one put into its places, and the
pages under it are counted.

Only for the CPU alone. ``ggml-alloc.h`` of llama.cpp at commit 0c1e57098.
"""

from __future__ import annotations

import contextlib
import ctypes
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from errors import Refused
from llama import Engine, engine
from loaded import loaded
from reserve import Reserve
from tensors import Tensors
from untouched import untouched_state

__all__ = ["ask"]

_COUNT, _NODES = 4, 16  # of ggml_cgraph
_BUFFER, _DATA = 8, 248  # of ggml_tensor
_PAGE = 4096
_SOMEWHERE = 1 << 32
"""Stands for the address of a weight or a cache, which have none under ``no_alloc``; nobody reads there."""


def ask(args: dict[str, Any], _emit: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
    """``{"path", "settings": [planned, *runs], "outputs"}`` → ``{"touched_bytes"}``, ``None`` where it cannot be told.

    Of the ``runs`` (with so many ``outputs`` each) the first counts whose graph has as many nodes as the planned one:
    only then does the engine keep the places.
    """
    eng = engine()
    with loaded(eng, args, args["settings"][0]) as found, untouched_state(eng), contextlib.ExitStack() as contexts:
        if found is None:
            return {"unknown": True}
        graphs: list[int] = []
        for place, settings in enumerate(args["settings"]):
            outputs = int(args["outputs"] if place else settings.get("outputs_max", 0))
            eng.take_lines()
            try:
                context = eng.make_context(found.model, settings)
            except Refused:
                return {"touched_bytes": None}
            contexts.callback(eng.api.llama_free, context)
            graph = Reserve(eng).graph(context, outputs=outputs, even=bool(place))
            if graph is None:
                return {"touched_bytes": None}
            graphs.append(graph)
        alike = [each for each in graphs[1:] if _nodes(each) == _nodes(graphs[0])]
        return {"touched_bytes": _touched(eng, Tensors(eng), graphs[0], (alike or graphs[1:])[0])}


def _touched(eng: Engine, tensors: Tensors, planned: int, run: int) -> int | None:
    """Bytes of the pages that ``run`` writes in the buffer that ``planned`` was given."""
    try:
        make, reserve, place = (
            eng.ggml.ggml_gallocr_new,
            eng.ggml.ggml_gallocr_reserve,
            eng.ggml.ggml_gallocr_alloc_graph,
        )
        free = eng.ggml.ggml_gallocr_free
    except AttributeError:
        return None
    pointer = ctypes.c_void_p
    make.restype, make.argtypes = pointer, [pointer]
    for function in (reserve, place):
        function.restype, function.argtypes = ctypes.c_bool, [pointer, pointer]
    free.restype, free.argtypes = None, [pointer]
    with _addressed(tensors, planned), _addressed(tensors, run) as own:
        allocator = make(eng.ggml_cpu_buffer_type())
        try:
            if not reserve(allocator, planned) or not place(allocator, run):
                return None
            spans = [(_data(each), _data(each) + int(tensors.nbytes(each))) for each in own]
        finally:
            free(allocator)
    return sum(_joined((start // _PAGE, -(-end // _PAGE)) for start, end in spans if start)) * _PAGE


@contextlib.contextmanager
def _addressed(tensors: Tensors, graph: int) -> Iterator[list[int]]:
    """The tensors that the allocator places; meanwhile all others of the graph seem to lie somewhere."""
    own: list[int] = []
    foreign: list[int] = []
    for each in _all(tensors, graph):
        if tensors.view_source(each) is not None or _data(each):
            continue
        (foreign if tensors.buffer(each) else own).append(each)
    for each in foreign:
        ctypes.c_uint64.from_address(each + _DATA).value = _SOMEWHERE
    try:
        yield own
    finally:
        for each in (*own, *foreign):
            ctypes.c_uint64.from_address(each + _DATA).value = 0
        for each in own:
            ctypes.c_uint64.from_address(each + _BUFFER).value = 0


def _all(tensors: Tensors, graph: int) -> set[int]:
    """Every tensor of a graph: its nodes, what they read, and what those are views of."""
    count = _nodes(graph)
    nodes = (ctypes.c_uint64 * count).from_address(ctypes.c_uint64.from_address(graph + _NODES).value)
    found: set[int] = set()
    for node in nodes:
        found.update(each for each in (node, *tensors.sources(node)) if each)
    found.update(source for each in list(found) if (source := tensors.view_source(each)))
    return found


def _nodes(graph: int) -> int:
    return ctypes.c_int.from_address(graph + _COUNT).value


def _data(tensor: int) -> int:
    return int(ctypes.c_uint64.from_address(tensor + _DATA).value)


def _joined(spans: Iterable[tuple[int, int]]) -> list[int]:
    """Lengths of the spans, what they share counted once."""
    lengths, reached = [], 0
    for start, end in sorted(spans):
        lengths.append(max(0, end - max(start, reached)))
        reached = max(reached, end)
    return lengths
