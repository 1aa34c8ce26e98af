"""Runs llama-cpp-python's server with one thread that computes: a plain file, ``PYTHON FILE ARGUMENT…``.

The server hands each piece of work to a pool of threads, and GNU's OpenMP keeps a team for each thread that ever
computed. As soon as two teams have more threads than there are cores, their threads sleep where they would wait for
each other: on two cores answers fell from 43 to 21 tokens a second when a first request had ended, until the pool gave
the thread of that one up. What this file prevents is the second team: the model is loaded, and computes, in one thread.
"""

import asyncio
import contextvars
import functools
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

__all__ = ["main"]

_END = object()


def main() -> None:
    """The server's own ``main``, whose work goes to one thread."""
    # A plain file: its folder stands first, and what lies there has names of its own.
    here = Path(__file__).resolve().parent
    sys.path[:] = [each for each in sys.path if not each or Path(each).resolve() != here]
    from llama_cpp.server import app  # noqa: PLC0415 - only now can it be found

    thread = ThreadPoolExecutor(1, "computing")

    async def run(work: Callable[..., Any], *args: object, **named: object) -> object:
        call = functools.partial(contextvars.copy_context().run, work, *args, **named)
        return await asyncio.get_running_loop().run_in_executor(thread, call)

    async def iterate(pieces: Iterator[object]) -> AsyncIterator[object]:
        while (piece := await run(next, pieces, _END)) is not _END:
            yield piece

    create = app.create_app
    app.create_app = lambda *args, **named: thread.submit(create, *args, **named).result()
    app.run_in_threadpool, app.iterate_in_threadpool = run, iterate
    # Takes the name of the first when it is imported.
    from llama_cpp.server import __main__ as server  # noqa: PLC0415

    server.main()


if __name__ == "__main__":
    main()
