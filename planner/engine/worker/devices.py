"""Phantom devices: GPUs that are not here, built of ggml's own structs, for the engine to plan with.

A phantom model has a shape and no weights; a phantom device has properties and no memory. Given one, llama.cpp itself
assigns layers, places the cache, splits the graph and sizes every buffer, as it would with the card in the machine. The
mistake this prevents is writing those rules down again: a formula for compute buffers is wrong with the next build,
and the staging copies of a partial offload were forgotten by every estimate that had to be told of them.

Only what a backend says of itself is stated here: alignment, padding, pinned host memory, what it can compute, when it
wants a host weight copied. One file for each backend (``device_cuda.py``, …) holds these rules with their source. They
work under ``no_alloc`` alone: nothing is computed, and a buffer that the engine does ask for is an address and a size.

The structs are those of ``ggml-backend-impl.h``. Each device that is made is asked about through ggml's own functions
first (:func:`_check`), so that another layout is noticed instead of believed.
"""

from __future__ import annotations

import ctypes
import importlib
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from errors import Refused
from tensors import Tensors

__all__ = ["Caps", "Rules", "device_list"]

_API_VERSION = 2
_TYPE_DEVICE, _DEVICE_REG, _STREAM_DEVICE = 6, 15, 17  # words before these members in their structs
_BUFFER_BASE = 1 << 32  # an address that is never read; only differences to it are
_GPU, _INTEGRATED = 1, 2  # ggml_backend_dev_type
_BACKENDS = ("cuda", "rocm", "vulkan", "metal", "sycl")

_Pointer, _Size = ctypes.c_void_p, ctypes.c_size_t


class Caps(NamedTuple):
    """``ggml_backend_dev_caps``, in its order."""

    asynchronous: bool
    host_buffer: bool
    buffer_from_host_pointer: bool
    events: bool
    mmap: bool = True


class Rules(NamedTuple):
    """What a backend says of itself, as far as planning memory depends on it.

    ``prefix`` names devices (``CUDA`` → ``CUDA0``), ``host`` the pinned buffer type (``None``: there is none).
    ``alloc_size`` tells the bytes of a tensor (by address) where they are more than ``ggml_nbytes``, ``supports``
    whether the device computes an operation, ``offloads`` whether it wants one whose weights lie in host memory.
    ``integrated`` devices may read host buffers.
    """

    prefix: str
    host: str | None
    alignment: int
    caps: Caps
    supports: Callable[[int], bool]
    offloads: Callable[[int], bool]
    alloc_size: Callable[[int], int] | None = None
    max_buffer_bytes: int | None = None


class _Iface(ctypes.Structure):
    """``ggml_backend_buffer_i``: passed by value."""

    _fields_ = [("function", _Pointer * 11)]


class _Props(ctypes.Structure):
    """``ggml_backend_dev_props``."""

    _fields_ = [
        ("name", ctypes.c_char_p),
        ("description", ctypes.c_char_p),
        ("free", _Size),
        ("total", _Size),
        ("type", ctypes.c_int),
        ("device_id", ctypes.c_char_p),
        ("caps", ctypes.c_bool * len(Caps._fields)),
    ]


class _Callbacks:
    """C functions made of Python's, kept alive as long as the structs that point at them: for good."""

    def __init__(self) -> None:
        self._kept: list[Any] = []

    def __call__(self, result: Any, arguments: Sequence[Any], python: Callable[..., Any]) -> int:
        made = ctypes.CFUNCTYPE(result, *arguments)(python)
        self._kept.append(made)
        return int(ctypes.cast(made, _Pointer).value or 0)

    def text(self, value: str) -> int:
        """The address of a C string."""
        kept = ctypes.create_string_buffer(value.encode())
        self._kept.append(kept)
        return ctypes.addressof(kept)


_functions = _Callbacks()
_backends: dict[str, _Backend] = {}


def device_list(eng: Any, wanted: Sequence[dict[str, Any]]) -> Any:
    """A NULL-terminated array of devices for ``llama_model_params.devices``; keep it while the model loads.

    Each of ``wanted`` has ``backend`` (``cuda``, …), ``free_bytes``, ``total_bytes``, ``integrated`` and, where the
    backend's rules depend on it, ``compute_capability``. Devices of one backend are numbered in their order. Empty:
    no device but the CPU. Raises :class:`Refused` where this build's structs are not those known here.
    """
    array = (_Pointer * (len(wanted) + 1))()
    counts: dict[str, int] = {}
    for place, spec in enumerate(wanted):
        name = str(spec["backend"])
        if name not in _BACKENDS:
            raise Refused(f"no rules are known for devices of {name!r}; known are {', '.join(_BACKENDS)}")
        if name not in _backends:
            _declare(eng.ggml)
            _backends[name] = _Backend(eng, name)
        index = counts.get(name, 0)
        counts[name] = index + 1
        array[place] = _backends[name].device(index, spec)
    for name, count in counts.items():
        _backends[name].count = count
    return array


class _Backend:
    """A backend's registry entry with its devices; made once, since the engine may keep pointers."""

    def __init__(self, eng: Any, name: str) -> None:
        self.eng = eng
        self.name = name
        self.tensors = Tensors(eng)
        self.module = importlib.import_module(f"device_{name}")
        self.devices: list[_Device] = []
        self.count = 0
        self.host: Any = None
        title = _functions.text(name.upper())
        self.reg = (_Pointer * 6)()
        ctypes.c_int.from_buffer(self.reg).value = _API_VERSION
        self.reg[1] = _functions(_Pointer, [_Pointer], lambda _reg: title)
        self.reg[2] = _functions(_Size, [_Pointer], lambda _reg: self.count)
        self.reg[3] = _functions(_Pointer, [_Pointer, _Size], lambda _reg, i: self.devices[i or 0].address)
        self.reg[4] = _functions(_Pointer, [_Pointer, ctypes.c_char_p], lambda _reg, _name: None)

    def device(self, index: int, spec: dict[str, Any]) -> int:
        """The address of a device, with the memory and rules that ``spec`` asks for."""
        rules = self.module.rules(self.tensors, spec)
        while len(self.devices) <= index:
            self.devices.append(_Device(self, len(self.devices)))
            self.devices[-1].become(spec, rules)
            _check(self.eng.ggml, self.devices[-1])
        self.devices[index].become(spec, rules)
        return self.devices[index].address

    def host_buffer_type(self, name: str) -> int:
        """The pinned host memory of this backend: the CPU's buffer type under another name."""
        if self.host is None:
            title = _functions.text(name)
            cpu = (_Pointer * 8).from_address(self.eng.ggml_cpu_buffer_type())
            self.host = (_Pointer * 8)(*cpu)
            self.host[0] = _functions(_Pointer, [_Pointer], lambda _buft: title)
            self.host[_TYPE_DEVICE] = self.devices[0].address
        return ctypes.addressof(self.host)


class _Device:
    """One device with its buffer type and its stream; what it says of itself may change between questions."""

    def __init__(self, backend: _Backend, index: int) -> None:
        self.backend = backend
        self.index = index
        self.free = self.total = 0
        self.kind = _GPU
        self.rules: Rules | None = None
        self.supports: Callable[[int], bool] = lambda _op: False
        self.offloads: Callable[[int], bool] = lambda _op: False
        self.title = 0
        self._device = (_Pointer * 17)()
        self._type = (_Pointer * 8)()
        self._stream = (_Pointer * 19)()
        self._event = (_Pointer * 2)(self.address, None)
        self._buffer = _phantom_buffer()
        self._make_device()
        self._make_buffer_type()
        self._make_stream()

    @property
    def address(self) -> int:
        """Where the engine finds it."""
        return ctypes.addressof(self._device)

    def become(self, spec: dict[str, Any], rules: Rules) -> None:
        """Take on what a question says about this device."""
        self.free, self.total = int(spec.get("free_bytes") or 0), int(spec.get("total_bytes") or 0)
        self.kind = _INTEGRATED if spec.get("integrated") else _GPU
        self.supports, self.offloads = rules.supports, rules.offloads
        if self.rules is None:
            self.title = _functions.text(f"{rules.prefix}{self.index}")
        self.rules = rules
        nothing = None
        self._type[3] = self._max_size if rules.max_buffer_bytes else nothing
        self._type[4] = self._alloc_size if rules.alloc_size else nothing
        self._device[7] = self._host_type if rules.host else nothing

    def _make_device(self) -> None:
        device = self._device
        device[0] = device[1] = _functions(_Pointer, [_Pointer], lambda _dev: self.title)
        device[2] = _functions(None, [_Pointer, _Pointer, _Pointer], self._memory)
        device[3] = _functions(ctypes.c_int, [_Pointer], lambda _dev: self.kind)
        device[4] = _functions(None, [_Pointer, _Pointer], self._props)
        device[5] = _functions(_Pointer, [_Pointer, _Pointer], lambda _dev, _how: ctypes.addressof(self._stream))
        device[6] = _functions(_Pointer, [_Pointer], lambda _dev: ctypes.addressof(self._type))
        self._host_type = _functions(_Pointer, [_Pointer], self._host_buffer_type)
        device[9] = _functions(ctypes.c_bool, [_Pointer, _Pointer], lambda _dev, op: self.supports(op))
        device[10] = _functions(ctypes.c_bool, [_Pointer, _Pointer], self._supports_type)
        device[11] = _functions(ctypes.c_bool, [_Pointer, _Pointer], lambda _dev, op: self.offloads(op))
        device[12] = _functions(_Pointer, [_Pointer], lambda _dev: ctypes.addressof(self._event))
        device[13] = device[14] = _functions(None, [_Pointer, _Pointer], lambda _dev, _event: None)
        device[_DEVICE_REG] = ctypes.addressof(self.backend.reg)

    def _make_buffer_type(self) -> None:
        buffer_type = self._type
        buffer_type[0] = self._device[0]
        buffer_type[1] = _functions(_Pointer, [_Pointer, _Size], self.allocate)
        buffer_type[2] = _functions(_Size, [_Pointer], lambda _buft: self._rules().alignment)
        self._max_size = _functions(_Size, [_Pointer], lambda _buft: self._rules().max_buffer_bytes)
        self._alloc_size = _functions(_Size, [_Pointer, _Pointer], self._bytes_of)
        buffer_type[_TYPE_DEVICE] = self.address

    def _make_stream(self) -> None:
        stream = self._stream
        stream[0] = _functions.text("phantom stream 0")  # a GUID: 16 bytes that no backend has
        stream[1] = self._device[0]
        stream[2] = _functions(None, [_Pointer], lambda _stream: None)
        stream[_STREAM_DEVICE] = self.address

    def _rules(self) -> Rules:
        if self.rules is None:
            raise Refused("a phantom device was asked before it had rules")
        return self.rules

    def _memory(self, _device: int, free: int, total: int) -> None:
        _Size.from_address(free).value, _Size.from_address(total).value = self.free, self.total

    def _props(self, _device: int, address: int) -> None:
        props = _Props.from_address(address)
        props.name = props.description = ctypes.string_at(self.title)
        props.free, props.total, props.type, props.device_id = self.free, self.total, self.kind, None
        props.caps[:] = self._rules().caps

    def _host_buffer_type(self, _device: int) -> int | None:
        name = self._rules().host
        return self.backend.host_buffer_type(name) if name else None

    def _supports_type(self, _device: int, buffer_type: int) -> bool:
        host = self.backend.host
        shared = self.kind == _INTEGRATED and host is not None and buffer_type == ctypes.addressof(host)
        return shared or buffer_type == ctypes.addressof(self._type)

    def _bytes_of(self, _type: int, tensor: int) -> int:
        told = self._rules().alloc_size
        return told(tensor) if told is not None else self.backend.tensors.nbytes(tensor)

    def allocate(self, buffer_type: int, size: int) -> int | None:
        """A buffer without memory; the engine asks for one even under ``no_alloc`` (recurrent state)."""
        return int(self.backend.eng.ggml.ggml_backend_buffer_init(buffer_type, self._buffer, None, size) or 0) or None


def _phantom_buffer() -> _Iface:
    """The functions of a buffer that has an address and a size and no memory: writing to it does nothing."""
    iface = _Iface()
    iface.function[0] = _functions(None, [_Pointer], lambda _buffer: None)
    iface.function[1] = _functions(_Pointer, [_Pointer], lambda _buffer: _BUFFER_BASE)
    iface.function[9] = _functions(None, [_Pointer, ctypes.c_uint8], lambda _buffer, _value: None)
    return iface


def _declare(ggml: Any) -> None:
    """Tell ctypes the functions of ggml that are used here; :class:`Refused` where this build lacks one."""
    for name, result, arguments in (
        ("ggml_backend_dev_by_type", _Pointer, [ctypes.c_int]),
        ("ggml_backend_dev_backend_reg", _Pointer, [_Pointer]),
        ("ggml_backend_dev_buffer_type", _Pointer, [_Pointer]),
        ("ggml_backend_dev_init", _Pointer, [_Pointer, ctypes.c_char_p]),
        ("ggml_backend_get_device", _Pointer, [_Pointer]),
        ("ggml_backend_buft_get_device", _Pointer, [_Pointer]),
        ("ggml_backend_buft_get_alignment", _Size, [_Pointer]),
        ("ggml_backend_dev_offload_op", ctypes.c_bool, [_Pointer, _Pointer]),
        ("ggml_backend_buffer_init", _Pointer, [_Pointer, _Iface, _Pointer, _Size]),
        ("ggml_backend_buffer_get_size", _Size, [_Pointer]),
    ):
        function = getattr(ggml, name, None)
        if function is None:
            raise Refused(f"this llama.cpp has no {name}; devices that are not here cannot be planned with it")
        function.restype, function.argtypes = result, arguments
    version = ctypes.c_int.from_address(ggml.ggml_backend_dev_backend_reg(ggml.ggml_backend_dev_by_type(0))).value
    if version != _API_VERSION:
        raise Refused(f"ggml's backend interface is version {version}, known here is {_API_VERSION}: update planner")


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
    if wrong:
        raise Refused(f"ggml's structs have changed ({', '.join(wrong)}): update planner")
