"""What a backend's rule raises is raised: C knows no exceptions, and no or 0 would look like an answer."""

import subprocess
import sys

from planner.engine.child import WORKER

RAISING = """
import ctypes
from phantom_structs import functions

def supports(op):
    raise LookupError(f"no rule for {op}")

asked = ctypes.CFUNCTYPE(ctypes.c_bool, ctypes.c_void_p)(functions(ctypes.c_bool, [ctypes.c_void_p], supports))
assert asked(7) is False
assert asked(8) is False
for _ in range(2):
    try:
        functions.raise_failure()
    except LookupError as failure:
        print(failure)
"""


def test_the_first_failure_of_a_callback_is_raised_once():
    """Both calls look like a no to C; asked for, the first failure comes out, and then it is forgotten."""
    done = subprocess.run([sys.executable, "-c", RAISING], cwd=WORKER, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["no rule for 7"]
    assert done.stderr == ""
