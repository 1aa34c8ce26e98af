"""Programs of ``bench/`` as modules, beside which they find one another."""

import importlib
import sys
from pathlib import Path

import pytest

BENCH = Path(__file__).parents[2] / "bench"


@pytest.fixture(scope="module")
def bench(request):
    """The program that the test's module names as ``PROGRAM``; what it imports from beside it goes with it."""
    before = set(sys.modules)
    sys.path.insert(0, str(BENCH))
    try:
        yield importlib.import_module(request.module.PROGRAM)
    finally:
        sys.path.remove(str(BENCH))
        for name in set(sys.modules) - before:
            if (BENCH / f"{name}.py").exists():
                del sys.modules[name]
