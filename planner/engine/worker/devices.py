"""Phantom devices: GPUs that are not here, built of ggml's own structs, for the engine to plan with.

A phantom model has a shape and no weights; a phantom device has properties and no memory. Given one, llama.cpp itself
assigns layers, places the cache, splits the graph and sizes every buffer, as it would with the card in the machine. The
mistake this prevents is writing those rules down again: a formula for compute buffers is wrong with the next build,
and the staging copies of a partial offload were forgotten by every estimate that had to be told of them.

Only what a backend says of itself is stated here: alignment, padding, pinned host memory, what it can compute, what it
joins, when it wants a host weight copied. One file for each backend (``device_cuda.py``, …) holds these rules with
their source. They work under ``no_alloc`` alone: nothing is computed, and a buffer that the engine does ask for is an
address and a size.

Each device that is made is asked about through ggml's own functions first (:func:`_check`), so that another layout of
its structs is noticed instead of believed.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from errors import Refused
from graphs import Arrangement, Graph, Replay, fusion_test
from op_rules import outside
from phantom_structs import Caps, Props, declare, keeper, phantom_buffer
from phantom_structs import functions as _functions
from tensors import Tensors

__all__ = ["Caps", "Rules", "device_list", "plain_sizes", "raise_failure", "taken"]

_TYPE_DEVICE, _DEVICE_REG, _STREAM_ARRANGE, _STREAM_DEVICE = 6, 15, 16, 17  # words before these members
_GPU, _INTEGRATED = 1, 2  # ggml_backend_dev_type
_BACKENDS = ("cuda", "rocm", "vulkan", "metal", "sycl")
_WHOLE = "whole"  # the stand-in of ``device_whole.py``, which is nobody's card
_MOST_DEVICES = 15  # GGML_SCHED_MAX_BACKENDS of 16, one of which is the CPU; with more the engine aborts

_Pointer, _Size = ctypes.c_void_p, ctypes.c_size_t
_Allocate = ctypes.CFUNCTYPE(_Pointer, _Pointer, _Size)


class Rules(NamedTuple):
    """What a backend says of itself, as far as planning memory depends on it.

    ``prefix`` names devices (``CUDA`` → ``CUDA0``), ``host`` the pinned buffer type (``None``: there is none).
    ``alloc_size`` tells the bytes of a tensor (by address) where they are more than ``ggml_nbytes``, ``supports``
    whether the device computes an operation, ``offloads`` whether it wants one whose weights lie in host memory,
    ``arrange`` what it does to a graph before memory is planned. ``own_sources``: it computes nothing whose operands
    lie on a neighbour. ``plain_graphs``: only quantized tensors and attention over another cache than f16 take
    more than their bytes. ``always_discrete``: it calls itself a GPU though its memory is the host's.
    ``max_buffer_bytes`` is the largest allocation, and the ``host_…`` ones stand where they are not the CPU's.
    """

    prefix: str
    host: str | None
    alignment: int
    caps: Caps
    supports: Callable[[int], bool]
    offloads: Callable[[int], bool]
    alloc_size: Callable[[int], int] | None = None
    arrange: Arrangement | None = None
    max_buffer_bytes: int | None = None
    host_alignment: int | None = None
    host_max_buffer_bytes: int | None = None
    own_sources: bool = False
    plain_graphs: bool = False
    always_discrete: bool = False


_backends: dict[str, _Backend] = {}
_keepers: dict[int, Any] = {}


def device_list(eng: Any, wanted: Sequence[dict[str, Any]]) -> Any:
    """A NULL-terminated array of devices for ``llama_model_params.devices``; keep it while the model loads.

    Each of ``wanted`` has ``backend`` (``cuda``, …), ``free_bytes``, ``total_bytes``, ``integrated`` and, where the
    backend's rules depend on it, ``compute_capability``. Devices of one backend are numbered in their order; those
    that the engine would leave alone (:func:`taken`) have a number and are not in the array. Empty: no device but the
    CPU. Raises :class:`Refused` where this build's structs are not those known here, and for too many devices.
    """
    if len(wanted) > _MOST_DEVICES:
        raise Refused(f"the engine schedules {_MOST_DEVICES} devices beside the CPU at most, not {len(wanted)}")
    counts: dict[str, int] = {}
    devices: list[_Device] = []
    for spec in wanted:
        name = str(spec["backend"])
        index = counts.get(name, 0)
        counts[name] = index + 1
        devices.append(_backend(eng, name).device(index, spec))
    for name, count in counts.items():
        _backends[name].open(count)
    chosen = [device.address for device in taken(devices)]
    return (_Pointer * (len(chosen) + 1))(*chosen, None)


def raise_failure() -> None:
    """Raise what a rule raised while the engine asked it, if any did; ask after each question to the engine."""
    _functions.raise_failure()


@contextlib.contextmanager
def plain_sizes(*, plain: bool) -> Iterator[None]:
    """While this lasts, and if ``plain``, the engine counts the bytes of a graph's tensors itself, thousands of them.

    Say so only where no graph has a tensor for which ``Rules.plain_graphs`` leaves room: a quantized weight that is
    staged, or attention over a cache that is not f16.
    """
    devices = [device for backend in _backends.values() for device in backend.devices[: backend.count]]
    for device in devices:
        device.count_bytes(asked=not plain)
    try:
        yield
    finally:
        for device in devices:
            device.count_bytes(asked=True)


def taken(devices: Sequence[_Device]) -> list[_Device]:
    """The devices that the engine uses when nobody names any.

    Discrete ones if there are, else the integrated ones of the first one's backend; source:
    ``llama_prepare_model_devices`` in ``llama.cpp`` at commit 0c1e57098.
    """
    discrete = [device for device in devices if device.kind == _GPU]
    return discrete or [device for device in devices if device.backend is devices[0].backend]


def _backend(eng: Any, name: str) -> _Backend:
    if name not in (*_BACKENDS, _WHOLE):
        raise Refused(f"no rules are known for devices of {name!r}; known are {', '.join(_BACKENDS)}")
    if name not in _backends:
        declare(eng.ggml)
        _backends[name] = _Backend(eng, name)
    return _backends[name]


class _Backend:
    """A backend's registry entry with its devices; made once, since the engine may keep pointers."""

    def __init__(self, eng: Any, name: str) -> None:
        self.eng = eng
        self.name = name
        self.tensors = Tensors(eng)
        self.can_fuse = fusion_test(eng.ggml)
        self.module = importlib.import_module(f"device_{name}")
        self.devices: list[_Device] = []
        self.count = 0
        self.host: Any = None
        self._rules: dict[tuple[Any, ...], Rules] = {}
        self.replays: dict[tuple[int, ...], Replay] = {}
        title = _functions.text(name.upper())
        self.reg = (_Pointer * 6)()
        ctypes.c_int.from_buffer(self.reg).value = 2
        self.reg[1] = _functions(_Pointer, [_Pointer], lambda _reg: title)
        self.reg[2] = _functions(_Size, [_Pointer], lambda _reg: self.count)
        self.reg[3] = _functions(_Pointer, [_Pointer, _Size], lambda _reg, i: self.devices[i or 0].address)
        self.reg[4] = _functions(_Pointer, [_Pointer, ctypes.c_char_p], lambda _reg, _name: None)

    def rules(self, spec: dict[str, Any]) -> Rules:
        """The rules for a device; they depend on what it is, not on its memory."""
        key = tuple(sorted((name, value) for name, value in spec.items() if not name.endswith("_bytes")))
        if key not in self._rules:
            self._rules[key] = self.module.rules(self.tensors, spec)
        return self._rules[key]

    def device(self, index: int, spec: dict[str, Any]) -> _Device:
        """A device with the memory and rules that ``spec`` asks for."""
        rules = self.rules(spec)
        while len(self.devices) <= index:
            self.devices.append(_Device(self, len(self.devices)))
            self.devices[-1].become(spec, rules)
            _check(self.eng.ggml, self.devices[-1])
        self.devices[index].become(spec, rules)
        return self.devices[index]

    def open(self, count: int) -> None:
        """Let the first ``count`` devices be there, and know of one another."""
        self.count = count
        self.replays.clear()
        present = self.devices[:count]
        for device in present:
            device.meet(frozenset(other.buffer_type for other in present if other is not device))

    def host_buffer_type(self, name: str, rules: Rules) -> int:
        """The pinned host memory of this backend: the CPU's buffer type under another name."""
        alignment, most = rules.host_alignment, rules.host_max_buffer_bytes
        if self.host is None:
            title = _functions.text(name)
            cpu = (_Pointer * 8).from_address(self.eng.ggml_cpu_buffer_type())
            self.host = (_Pointer * 8)(*cpu)
            self.host[0] = _functions(_Pointer, [_Pointer], lambda _buft: title)
            self.host[1] = _functions(_Pointer, [_Pointer, _Size], self._allocate_on_host)
            if alignment is not None:
                self.host[2] = _functions(_Size, [_Pointer], lambda _buft: alignment)
            if most is not None:
                self.host[3] = _functions(_Size, [_Pointer], lambda _buft: most)
            self.host[_TYPE_DEVICE] = self.devices[0].address  # the host buffers of all cards are the first one's
        return ctypes.addressof(self.host)

    def _allocate_on_host(self, buffer_type: int, size: int) -> int | None:
        """What the CPU's buffer type does at this moment: others put a function of their own there for a while."""
        allocate = _Allocate.from_address(self.eng.ggml_cpu_buffer_type() + ctypes.sizeof(_Pointer))
        return int(allocate(buffer_type, size) or 0) or None


class _Device:
    """One device with its buffer type and its stream; what it says of itself may change between questions."""

    def __init__(self, backend: _Backend, index: int) -> None:
        self.backend = backend
        self.index = index
        self.free = self.total = 0
        self.kind = _GPU
        self.rules: Rules | None = None
        self._neighbours: frozenset[int] = frozenset()
        self.supports: Callable[[int], bool] = lambda _op: False
        self.bytes_of: Callable[[int], int] = backend.tensors.nbytes
        self.title = 0
        self._elsewhere = outside(backend.tensors, lambda: self._neighbours)
        self._device = (_Pointer * 17)()
        self._type = (_Pointer * 8)()
        self._stream = (_Pointer * 19)()
        self._event = (_Pointer * 2)(self.address, None)
        self._buffer = phantom_buffer()
        self._make_device()
        self._make_buffer_type()
        self._make_stream()

    @property
    def address(self) -> int:
        """Where the engine finds it."""
        return ctypes.addressof(self._device)

    @property
    def buffer_type(self) -> int:
        """Where the engine finds its buffer type."""
        return ctypes.addressof(self._type)

    def become(self, spec: dict[str, Any], rules: Rules) -> None:
        """Take on what a question says about this device."""
        self.free, self.total = int(spec.get("free_bytes") or 0), int(spec.get("total_bytes") or 0)
        self.kind = _INTEGRATED if spec.get("integrated") and not rules.always_discrete else _GPU
        self.supports, self.bytes_of = rules.supports, rules.alloc_size or self.backend.tensors.nbytes
        if rules is self.rules:
            return
        if self.rules is None:
            self.title = _functions.text(f"{rules.prefix}{self.index}")
        self.rules = rules
        nothing = None
        self._type[3] = self._max_size if rules.max_buffer_bytes else nothing
        self.count_bytes(asked=True)
        self._device[7] = self._host_type if rules.host else nothing
        self._stream[_STREAM_ARRANGE] = self._arrange if rules.arrange else nothing

    def count_bytes(self, *, asked: bool) -> None:
        """Tell the engine the bytes of tensors; not ``asked``, it counts itself where ``plain_graphs`` allows."""
        rules = self._rules()
        needed = rules.alloc_size is not None and (asked or not rules.plain_graphs)
        self._type[4] = self._alloc_size if needed else None

    def meet(self, neighbours: frozenset[int]) -> None:
        """Know the buffer types of the other devices of the backend."""
        self._neighbours = neighbours
        if neighbours and self._rules().own_sources:
            self.supports = self._supports_here

    def _make_device(self) -> None:
        device, own = self._device, self.buffer_type
        device[0] = device[1] = _functions(_Pointer, [_Pointer], lambda _dev: self.title)
        device[2] = _functions(None, [_Pointer, _Pointer, _Pointer], self._memory)
        device[3] = _functions(ctypes.c_int, [_Pointer], lambda _dev: self.kind)
        device[4] = _functions(None, [_Pointer, _Pointer], self._props)
        device[5] = _functions(_Pointer, [_Pointer, _Pointer], lambda _dev, _how: ctypes.addressof(self._stream))
        device[6] = _functions(_Pointer, [_Pointer], lambda _dev: self.buffer_type)
        self._host_type = _functions(_Pointer, [_Pointer], self._host_buffer_type)
        device[9] = _functions(ctypes.c_bool, [_Pointer, _Pointer], lambda _dev, op: self.supports(op))
        # Pinned host buffers are read by none of the backends here, not by integrated devices either.
        device[10] = _functions(ctypes.c_bool, [_Pointer, _Pointer], lambda _dev, kind: kind == own)
        device[11] = _functions(ctypes.c_bool, [_Pointer, _Pointer], lambda _dev, op: self._rules().offloads(op))
        device[12] = _functions(_Pointer, [_Pointer], lambda _dev: ctypes.addressof(self._event))
        device[13] = device[14] = _functions(None, [_Pointer, _Pointer], lambda _dev, _event: None)
        device[_DEVICE_REG] = ctypes.addressof(self.backend.reg)

    def _make_buffer_type(self) -> None:
        buffer_type = self._type
        buffer_type[0] = self._device[0]
        buffer_type[1] = _functions(_Pointer, [_Pointer, _Size], self.allocate)
        buffer_type[2] = _functions(_Size, [_Pointer], lambda _buft: self._rules().alignment)
        self._max_size = _functions(_Size, [_Pointer], lambda _buft: self._rules().max_buffer_bytes)
        self._alloc_size = _functions(_Size, [_Pointer, _Pointer], lambda _buft, tensor: self.bytes_of(tensor))
        buffer_type[_TYPE_DEVICE] = self.address

    def _make_stream(self) -> None:
        stream = self._stream
        stream[0] = _functions.text("phantom stream 0")  # a GUID: 16 bytes that no backend has
        stream[1] = self._device[0]
        stream[2] = _functions(None, [_Pointer], lambda _stream: None)
        self._arrange = _functions(None, [_Pointer, _Pointer, _Pointer], self._arrange_graph)
        stream[_STREAM_DEVICE] = self.address

    def _rules(self) -> Rules:
        if self.rules is None:
            raise Refused("a phantom device was asked before it had rules")
        return self.rules

    def _memory(self, _device: int, free: int, total: int) -> None:
        _Size.from_address(free).value, _Size.from_address(total).value = self.free, self.total

    def _props(self, _device: int, address: int) -> None:
        props = Props.from_address(address)
        props.name = props.description = ctypes.string_at(self.title)
        props.free, props.total, props.type, props.device_id = self.free, self.total, self.kind, None
        props.caps[:] = self._rules().caps

    def _host_buffer_type(self, _device: int) -> int | None:
        rules = self._rules()
        return self.backend.host_buffer_type(rules.host, rules) if rules.host else None

    def _supports_here(self, op: int) -> bool:
        return self._rules().supports(op) and not self._elsewhere(op)

    def _arrange_graph(self, _stream: int, graph: int, params: int) -> None:
        arrange = self._rules().arrange
        if arrange is None:
            return
        parts, known = Graph(self.backend.tensors, self.backend.can_fuse, graph), self.backend.replays
        alike = (id(arrange), *parts.likeness())
        if alike not in known:
            came = list(parts.nodes)
            known[alike] = Replay(parts, arrange)
            parts.reorder(came)
        known[alike].apply(parts, keeper(params, _keepers))

    def allocate(self, buffer_type: int, size: int) -> int | None:
        """A buffer without memory; the engine asks for one even under ``no_alloc`` (recurrent state)."""
        return int(self.backend.eng.ggml.ggml_backend_buffer_init(buffer_type, self._buffer, None, size) or 0) or None


def _check(ggml: Any, device: _Device) -> None:
    """Ask ggml about the device that was made; another layout of its structs shows as another answer."""
    at = device.address
    buffer_type, stream = ggml.ggml_backend_dev_buffer_type(at), ggml.ggml_backend_dev_init(at, None)
    buffer = device.allocate(buffer_type, 1 << 20)
    wrong = [
        name
        for name, seen, made in (
            ("device", ggml.ggml_backend_dev_backend_reg(at), ctypes.addressof(device.backend.reg)),
            ("buffer type", ggml.ggml_backend_buft_get_device(buffer_type), at),
            ("stream", ggml.ggml_backend_get_device(stream), at),
            ("buffer", ggml.ggml_backend_buffer_get_size(buffer), 1 << 20),
        )
        if seen != made
    ]
    ggml.ggml_backend_buffer_free(buffer)
    if wrong:
        raise Refused(f"ggml's structs have changed ({', '.join(wrong)}): update planner")
