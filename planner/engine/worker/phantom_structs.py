"""The structs and functions of ggml's backend interface that phantom devices are made of (``ggml-backend-impl.h``).

They are no public interface: their layout may change with any build. The mistake to prevent is believing an answer of
another layout, so the interface's version is asked first, and ``devices.py`` asks ggml about each device it makes.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from errors import Refused

__all__ = ["BufferInterface", "Callbacks", "Caps", "Props", "declare", "functions", "keeper", "phantom_buffer"]

_API_VERSION = 2
_BUFFER_BASE = 1 << 32  # an address that is never read; only differences to it are

_Pointer, _Size = ctypes.c_void_p, ctypes.c_size_t


class Caps(NamedTuple):
    """``ggml_backend_dev_caps``, in its order."""

    asynchronous: bool
    host_buffer: bool
    buffer_from_host_pointer: bool
    events: bool
    mmap: bool = True


class BufferInterface(ctypes.Structure):
    """``ggml_backend_buffer_i``: passed by value."""

    _fields_ = [("function", _Pointer * 11)]


class Props(ctypes.Structure):
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


class Callbacks:
    """C functions made of Python's, kept alive as long as the structs that point at them: for good."""

    def __init__(self) -> None:
        self._kept: list[Any] = []
        self._failure: BaseException | None = None

    def __call__(self, result: Any, arguments: Sequence[Any], python: Callable[..., Any]) -> int:
        """The address of a C function that calls ``python``; where that raises, C gets no, 0 or NULL."""
        nothing = None if result is None else result().value

        def guarded(*given: Any) -> Any:
            try:
                return python(*given)
            except BaseException as failure:  # noqa: BLE001 - C knows no exceptions; see raise_failure
                self._failure = self._failure or failure
                return nothing

        made = ctypes.CFUNCTYPE(result, *arguments)(guarded)
        self._kept.append(made)
        return int(ctypes.cast(made, _Pointer).value or 0)

    def raise_failure(self) -> None:
        """Raise the first failure since this was last asked: through C it would look like an answer of no or 0."""
        failure, self._failure = self._failure, None
        if failure is not None:
            raise failure

    def text(self, value: str) -> int:
        """The address of a C string."""
        kept = ctypes.create_string_buffer(value.encode())
        self._kept.append(kept)
        return ctypes.addressof(kept)


def keeper(params: int, made: dict[int, Any]) -> Callable[[int, int], None]:
    """The function of ``ggml_backend_graph_optimize_params`` that keeps a tensor; ``made`` remembers it by address."""
    address, user_data = (_Pointer.from_address(params + offset).value or 0 for offset in (0, ctypes.sizeof(_Pointer)))
    if address not in made:
        made[address] = ctypes.CFUNCTYPE(None, _Pointer, _Pointer, _Pointer)(address)
    function = made[address]
    return lambda tensor, until: function(user_data, tensor, until)


functions = Callbacks()
"""Where all callbacks are made: one keeper for the life of the process."""

_buffer: list[BufferInterface] = []


def phantom_buffer() -> BufferInterface:
    """The functions of a buffer that has an address and a size and no memory: writing to it does nothing."""
    if not _buffer:
        iface = BufferInterface()
        iface.function[0] = functions(None, [_Pointer], lambda _buffer: None)
        iface.function[1] = functions(_Pointer, [_Pointer], lambda _buffer: _BUFFER_BASE)
        iface.function[9] = functions(None, [_Pointer, ctypes.c_uint8], lambda _buffer, _value: None)
        _buffer.append(iface)
    return _buffer[0]


def declare(ggml: Any) -> None:
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
        ("ggml_backend_buffer_init", _Pointer, [_Pointer, BufferInterface, _Pointer, _Size]),
        ("ggml_backend_buffer_get_size", _Size, [_Pointer]),
        ("ggml_backend_buffer_free", None, [_Pointer]),
    ):
        function = getattr(ggml, name, None)
        if function is None:
            raise Refused(f"this llama.cpp has no {name}; devices that are not here cannot be planned with it")
        function.restype, function.argtypes = result, arguments
    version = ctypes.c_int.from_address(ggml.ggml_backend_dev_backend_reg(ggml.ggml_backend_dev_by_type(0))).value
    if version != _API_VERSION:
        raise Refused(f"ggml's backend interface is version {version}, known here is {_API_VERSION}: update planner")
