"""Large buffers stay unwritten while a question is asked, and only then."""

import subprocess
import sys
from pathlib import Path

import pytest

import planner.engine

pytestmark = pytest.mark.engine
WORKER = Path(planner.engine.__file__).parent / "worker"

PROGRAM = """
import ctypes, sys
sys.path.insert(0, sys.argv[1])
from llama import engine
from untouched import untouched_state

eng = engine()
ggml, buft = eng.ggml, eng.ggml_cpu_buffer_type()
ggml.ggml_backend_buft_alloc_buffer.restype = ctypes.c_void_p
ggml.ggml_backend_buft_alloc_buffer.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
ggml.ggml_backend_buffer_clear.argtypes = [ctypes.c_void_p, ctypes.c_uint8]
ggml.ggml_backend_buffer_get_base.restype = ctypes.c_void_p
ggml.ggml_backend_buffer_get_base.argtypes = [ctypes.c_void_p]
ggml.ggml_backend_buffer_free.argtypes = [ctypes.c_void_p]


def cleared(size):
    buffer = ggml.ggml_backend_buft_alloc_buffer(buft, size)
    ggml.ggml_backend_buffer_clear(buffer, 0xAB)
    told = ctypes.string_at(ggml.ggml_backend_buffer_get_base(buffer), 1)[0] == 0xAB
    ggml.ggml_backend_buffer_free(buffer)
    return told


before = cleared(8 << 20)
with untouched_state(eng):
    large, small = cleared(8 << 20), cleared(4096)
try:
    with untouched_state(eng):
        raise KeyError
except KeyError:
    pass
print(before, large, small, cleared(8 << 20))
"""


def test_large_buffers_are_not_cleared_inside_and_everything_is_outside():
    """Before: cleared. Inside: 8 MiB are not, 4 KiB are. After, an exception on the way out included: cleared again."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(WORKER)], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.split() == ["True", "False", "True", "True"]
