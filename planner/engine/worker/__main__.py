"""The engine's worker, run as a folder: ``PYTHON -E FOLDER REPLY_FD [follow-thread]``.

It runs under any interpreter from Python 3.9 on that has ``llama_cpp``, so it uses the standard library and nothing
of planner: an interpreter with a CUDA or ROCm build needs no second installation. Python puts the folder in front of
``sys.path``, hence no file here may bear the name of a module of the standard library.
"""

from __future__ import annotations

import sys

__all__ = ["OPS", "main"]

OPS = {
    "ping": "loop:ping",
    "system": "system:describe",
    "header": "header:read",
    "header.verdicts": "header:verdicts",
    "types": "quantize:types",
    "weights": "memory:weights",
    "buffers": "memory:ask",
    "projector": "projector:ask",
    "holdings": "holdings:ask",
    "touched": "touched:ask",
    "costs": "costs:ask",
    "place": "placing:place",
    "timing.open": "timing:open_model",
    "timing.run": "timing:run",
    "timing.close": "timing:close",
}


def main(argv: list[str], operations: dict[str, str]) -> None:
    """Serve ``operations``; ``argv`` holds the reply pipe's descriptor and, it may be, ``follow-thread``."""
    if sys.version_info < (3, 9):  # noqa: UP036 - the interpreter is the user's choice
        sys.exit("the engine's worker needs Python 3.9 or newer, this is {}.{}".format(*sys.version_info[:2]))
    import lifetime
    import loop

    lifetime.die_with_the_parent(follow_thread="follow-thread" in argv)
    lifetime.dump_no_core()
    lifetime.volunteer_for_the_oom_killer()
    loop.serve(operations, requests=lifetime.silence_standard_streams(), replies=int(argv[1]))


if __name__ == "__main__":
    main(sys.argv, OPS)
