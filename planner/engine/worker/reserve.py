"""Lets a context plan other graphs than the one it was made with: other outputs, and what the CPU's kernels work in.

A context plans its compute buffers for one number of outputs. A second context only to learn them for another number
costs as much as the first; here the graph alone is built again, and nothing is allocated. The same graph says how much
work space the CPU's kernels take, which stands in no buffer and in no log line. The mistake to prevent is leaving it
out because a GPU computes the rest.

llama.cpp's own functions do all of it (``llama_context::graph_reserve``). They are C++ without a stable interface, so
the kind of cache is recognised by its table of virtual functions and its functions are called by name; a build that
lacks a name, or an unknown kind, is not called at all.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any, NamedTuple

from devices import raise_failure
from llama import Engine  # noqa: TC002 - plain files import each other by bare name, at run time

__all__ = ["Planned", "Reserve"]

_KINDS = (
    "llama_kv_cache", "llama_kv_cache_iswa", "llama_kv_cache_dsa", "llama_kv_cache_dsa_iswa", "llama_kv_cache_dsv4",
    "llama_kv_cache_msa", "llama_memory_hybrid", "llama_memory_hybrid_iswa", "llama_memory_hybrid_idx",
    "llama_memory_recurrent",
)  # fmt: skip
_RESERVE = "_ZN13llama_context13graph_reserveEjjjPK22llama_memory_context_ibPm"
_SCHEDULER = "_ZNK13llama_context9get_schedEv"
_COUNT, _NODES, _GRAPH_BYTES = 4, 16, 128  # of ggml_cgraph: its number of nodes, their array; enough of it to copy
_VTABLE = 16  # an object points this far into its class's table

_Pointer = ctypes.c_void_p


class Planned(NamedTuple):
    """Compute bytes by the name of the buffer type, and the work space of the CPU's kernels."""

    compute: dict[str, int]
    work_bytes: int | None


class _Plan(ctypes.Structure):
    """ggml_cplan: only ``work_size``, its first field, is read; large enough to be returned through memory."""

    _fields_ = [("work_size", ctypes.c_size_t), ("rest", ctypes.c_uint64 * 8)]


class Reserve:
    """The functions of one engine that plan a graph; :meth:`plan` answers ``None`` where this build cannot."""

    def __init__(self, eng: Engine) -> None:
        self._eng = eng
        self._tables: dict[int, str] = {}
        for name in _KINDS:
            # The cache, and its state that a graph is built on.
            for each in (name, f"{name}_context"):
                address = self._address(f"_ZTV{len(each)}{each}")
                if address:
                    self._tables[address + _VTABLE] = each
        self._reserve = self._function(
            _RESERVE, _Pointer, [_Pointer, *[ctypes.c_uint32] * 3, _Pointer, ctypes.c_bool, _Pointer]
        )
        self._scheduler = self._function(_SCHEDULER, _Pointer, [_Pointer])
        self._memory = self._function("llama_get_memory", _Pointer, [_Pointer])
        self._graph_plan = self._function("ggml_graph_plan", _Plan, [_Pointer, ctypes.c_int, _Pointer])
        self._backends = self._function("ggml_backend_sched_get_n_backends", ctypes.c_int, [_Pointer])
        self._backend = self._function("ggml_backend_sched_get_backend", _Pointer, [_Pointer, ctypes.c_int])
        self._buffer_type = self._function("ggml_backend_sched_get_buffer_type", _Pointer, [_Pointer, _Pointer])
        self._place = self._function("ggml_backend_sched_get_tensor_backend", _Pointer, [_Pointer, _Pointer])
        self._missing = None in (
            self._reserve, self._scheduler, self._memory, self._backends, self._backend, self._buffer_type, self._place
        )  # fmt: skip

    def plan(
        self, context: Any, threads: int, *, outputs: int = 0, tokens: int | None = None, sequences: int | None = None
    ) -> Planned | None:
        """The graph of a micro-batch with ``outputs`` of its tokens (0: all); ``None`` where this build cannot tell.

        ``tokens`` and ``sequences`` are the context's own unless given. Only for contexts of a model without memory
        (``no_alloc``): one that holds buffers would lose them.
        """
        known, state = (False, None) if self._missing else self._state(context)
        if not known:
            return None
        api = self._eng.api
        batch = min(api.llama_n_ctx(context), api.llama_n_ubatch(context))
        count = min(batch, tokens or batch)
        kept = min(count, outputs or count)
        try:
            return self._planned(context, (count, sequences or api.llama_n_seq_max(context), kept), state, threads)
        finally:
            self._free(state)

    def graph(
        self,
        context: Any,
        *,
        outputs: int = 0,
        even: bool = False,
        tokens: int | None = None,
        sequences: int | None = None,
    ) -> int | None:
        """The address of the graph of a whole micro-batch as :meth:`plan` has it; the next one takes its place.

        ``even`` gives each sequence as many tokens, if need be some more: else the engine does, and keeps all outputs.
        """
        known, state = (False, None) if self._missing else self._state(context)
        if not known:
            return None
        api = self._eng.api
        batch = min(api.llama_n_ctx(context), api.llama_n_ubatch(context))
        batch = min(batch, tokens or batch)
        sequences = sequences or api.llama_n_seq_max(context)
        if even:
            batch = -(-batch // sequences) * sequences
        sizes = (ctypes.c_size_t * self._backends(self._scheduler(context)))()
        try:
            shape = (batch, sequences, min(batch, outputs or batch))
            graph = self._reserve(context, *shape, state, True, sizes)
            raise_failure()
            return int(graph) if graph else None
        finally:
            self._free(state)

    def _planned(self, context: Any, shape: tuple[int, int, int], state: int | None, threads: int) -> Planned | None:
        scheduler = self._scheduler(context)
        backends = [self._backend(scheduler, index) for index in range(self._backends(scheduler))]
        sizes = (ctypes.c_size_t * len(backends))()
        graph = self._reserve(context, *shape, state, True, sizes)
        raise_failure()
        if not graph:
            return None
        compute: dict[str, int] = {}
        for index, backend in enumerate(backends):
            name = str(self._eng.ggml.ggml_backend_buft_name(self._buffer_type(scheduler, backend)).decode())
            compute[name] = compute.get(name, 0) + int(sizes[index])
        return Planned(compute, self._work(scheduler, backends, graph, threads))

    def _work(self, scheduler: int, backends: Sequence[int], graph: int, threads: int) -> int | None:
        """The work space of the nodes that the CPU computes: its backend is the last."""
        if self._graph_plan is None:
            return None
        if len(backends) == 1:
            return int(self._graph_plan(graph, threads, None).work_size)
        count = ctypes.c_int.from_address(graph + _COUNT).value
        nodes = (ctypes.c_uint64 * count).from_address(ctypes.c_uint64.from_address(graph + _NODES).value)
        own = [node for node in nodes if self._place(scheduler, node) == backends[-1]]
        if not own:
            return 0
        part = ctypes.create_string_buffer(ctypes.string_at(graph, _GRAPH_BYTES), _GRAPH_BYTES)
        array = (ctypes.c_uint64 * len(own))(*own)
        ctypes.c_int.from_buffer(part, _COUNT).value = len(own)
        ctypes.c_uint64.from_buffer(part, _NODES).value = ctypes.addressof(array)
        return int(self._graph_plan(ctypes.addressof(part), threads, None).work_size)

    def _state(self, context: Any) -> tuple[bool, int | None]:
        """Whether the cache is of a known kind, and its state when full; a model without a cache has none."""
        cache = self._memory(context)
        if not cache:
            return True, None
        name = self._tables.get(_word(cache), "")
        make = self._function(f"_ZN{len(name)}{name}9init_fullEv", _Pointer, [_Pointer, _Pointer])
        if not name or make is None:
            return False, None
        state = _Pointer()
        # A unique_ptr is returned through memory: where it goes is the first argument.
        make(ctypes.byref(state), cache)
        return (True, state.value) if state.value else (False, None)

    def _free(self, state: int | None) -> None:
        name = "" if state is None else self._tables.get(_word(state), "")
        free = self._function(f"_ZN{len(name)}{name}D0Ev", None, [_Pointer]) if name else None
        if free is not None:
            free(state)

    def _address(self, symbol: str) -> int:
        try:
            return ctypes.addressof(ctypes.c_char.in_dll(self._eng.llama, symbol))
        except ValueError:
            return 0

    def _function(self, symbol: str, result: Any, arguments: list[Any]) -> Any:
        function = getattr(self._eng.llama, symbol, None)
        if function is not None:
            function.restype, function.argtypes = result, arguments
        return function


def _word(address: int) -> int:
    return int(ctypes.c_uint64.from_address(address).value)
