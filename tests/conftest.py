"""Every test starts from the same process: what the caller's shell left behind must not decide a result.

Tests that time the machine, hold its measurement lock or count on deadlines are marked ``alone``: ``make test`` runs
the others as many at a time as there are cores, then these one after the other.
"""

import os
import signal
from pathlib import Path

import pytest

# Both hide faults: a stdout that is never buffered has no last flush that could fail, a path lends modules that the
# installation lacks. PYTHONDONTWRITEBYTECODE changes no result.
for name in ("PYTHONUNBUFFERED", "PYTHONPATH", "PYTHONWARNINGS"):
    os.environ.pop(name, None)

# A shell starts `make test &` with Ctrl-C ignored, and every process below would inherit that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

ALONE = (
    "apply/serve",
    "engine/test_child_deaths.py",
    "engine/test_child_lifetime.py",
    "measure",
    "workflow/test_measure.py",
    "workflow/test_measured_plan.py",
    "workflow/test_tuning.py",
)


def pytest_collection_modifyitems(items):
    """Mark what must run alone by where it lies."""
    here = Path(__file__).parent
    for item in items:
        place = item.path.relative_to(here)
        if any(place.is_relative_to(each) for each in ALONE):
            item.add_marker(pytest.mark.alone)
