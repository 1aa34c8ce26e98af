"""Keeps the engine from writing zeros into memory that a question never uses.

With ``no_alloc`` the engine plans its buffers and holds none, with one exception: the state of recurrent layers is
allocated and set to zero, 150 MiB for Qwen3.5-27B and 590 MiB for the 2.4T, again for every context that is asked
about. Fresh memory from the system reads as zero already, so here the buffer's ``clear`` does nothing: the address
space is taken, the pages are not.

ggml's structs say how (``ggml-backend-impl.h``): the second function of a buffer type allocates, and one of the
functions of a buffer clears it. Which one depends on the version, so it is found by trying on a buffer of 64 bytes.
Where that finds nothing the engine stays as it is: the mistake to avoid is a wrong pointer, not a few seconds.
"""

from __future__ import annotations

import contextlib
import ctypes
from collections.abc import Iterator
from typing import Any

from llama import Engine  # noqa: TC002 - plain files import each other by bare name, at run time

__all__ = ["untouched_state"]

_ALLOC_SLOT = 1
_CLEAR_SLOTS = range(6, 12)
# Below this a memset costs nothing, and a buffer may share its pages with memory that is not fresh.
_LARGE_BYTES = 4 << 20

_Alloc = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t)
_Clear = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_uint8)

_found: list[int | None] = []


@contextlib.contextmanager
def untouched_state(eng: Engine) -> Iterator[None]:
    """While this lasts, large CPU buffers are not cleared; only for contexts that never compute."""
    buft = eng.ggml_cpu_buffer_type()
    if not _found:
        _found.append(_clear_slot(eng.ggml, buft))
    slot = _found[0]
    if slot is None:
        yield
        return
    table = (ctypes.c_void_p * (_ALLOC_SLOT + 1)).from_address(buft)
    original = int(table[_ALLOC_SLOT] or 0)
    allocate = _Alloc(original)
    nothing = _Clear(lambda _buffer, _value: None)

    def allocated(asked: int, size: int) -> int | None:
        buffer = allocate(asked, size)
        if buffer and size >= _LARGE_BYTES:
            _words(buffer)[slot] = ctypes.cast(nothing, ctypes.c_void_p)
        return int(buffer) if buffer else None

    hook = _Alloc(allocated)
    table[_ALLOC_SLOT] = ctypes.cast(hook, ctypes.c_void_p)
    try:
        yield
    finally:
        table[_ALLOC_SLOT] = original


def _words(buffer: int) -> Any:
    return (ctypes.c_void_p * _CLEAR_SLOTS.stop).from_address(buffer)


def _clear_slot(ggml: Any, buft: int) -> int | None:
    """The place of ``clear`` among a buffer's functions, by trying; ``None`` where not exactly one answers."""
    try:
        allocate, clear, free = (
            ggml.ggml_backend_buft_alloc_buffer,
            ggml.ggml_backend_buffer_clear,
            ggml.ggml_backend_buffer_free,
        )
    except AttributeError:
        return None
    allocate.restype, allocate.argtypes = ctypes.c_void_p, [ctypes.c_void_p, ctypes.c_size_t]
    clear.restype, clear.argtypes = None, [ctypes.c_void_p, ctypes.c_uint8]
    free.restype, free.argtypes = None, [ctypes.c_void_p]
    buffer = allocate(buft, 64)
    if not buffer:
        return None
    calls: list[int] = []
    probe = _Clear(lambda _buffer, value: calls.append(value))
    answered = []
    words = _words(buffer)
    for slot in _CLEAR_SLOTS:
        kept = words[slot]
        words[slot] = ctypes.cast(probe, ctypes.c_void_p)
        clear(buffer, 7)
        words[slot] = kept
        if calls:
            answered.append(slot)
            calls.clear()
    free(buffer)
    return answered[0] if len(answered) == 1 else None
