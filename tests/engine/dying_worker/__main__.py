"""The real worker's loop with operations that die: run as a folder exactly as the real one is."""

from __future__ import annotations

import importlib.util
import os
import sys
import time
from pathlib import Path

REAL = Path(__file__).resolve().parents[3] / "planner" / "engine" / "worker"
sys.path.insert(1, str(REAL))


def main() -> None:
    """Serve the real operations and the deaths, after the misfortunes that the environment orders."""
    time.sleep(float(os.environ.get("SLOW_START_S", "0")))
    if "DIE_AT_START" in os.environ:
        sys.exit(os.environ["DIE_AT_START"])
    if "ABORT_AT_START" in os.environ:
        os.abort()
    spec = importlib.util.spec_from_file_location("real_worker", REAL / "__main__.py")
    assert spec is not None
    assert spec.loader is not None
    real = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(real)
    import deaths

    real.main(sys.argv, {**real.OPS, **{name: f"deaths:{name}" for name in deaths.__all__}})


if __name__ == "__main__":
    main()
