"""llama-cpp-python's server as ``serve`` runs it: one thread loads and computes, whatever becomes of a request."""

import subprocess
import sys
from pathlib import Path

import pytest

from planner.apply import serve_command

APP = """
import threading
from starlette.concurrency import iterate_in_threadpool, run_in_threadpool

seen = []

def work(seconds):
    import time
    seen.append(threading.get_ident())
    time.sleep(seconds)
    return seconds

def pieces():
    for number in range(3):
        seen.append(threading.get_ident())
        yield number

def create_app(*, answer):
    seen.append(threading.get_ident())
    return answer

async def answer():
    import asyncio
    # A client that goes away: its task is cancelled while its thread still computes.
    left = asyncio.create_task(run_in_threadpool(work, 0.3))
    await asyncio.sleep(0.1)
    left.cancel()
    assert await run_in_threadpool(work, seconds=0.01) == 0.01
    assert [each async for each in iterate_in_threadpool(pieces())] == [0, 1, 2]
    try:
        await run_in_threadpool(work, "no number")
    except TypeError:
        return len(set(seen))
"""
MAIN = """
from llama_cpp.server import app
from llama_cpp.server.app import create_app

def main():
    import asyncio
    made = create_app(answer=app.answer)
    print(asyncio.run(made()))

if __name__ == "__main__":
    main()
"""


@pytest.fixture
def server(tmp_path: Path) -> Path:
    """A package that hands its work to threads as llama-cpp-python's server does, and prints how many computed."""
    package = tmp_path / "llama_cpp" / "server"
    package.mkdir(parents=True)
    for name, text in (("../__init__.py", ""), ("__init__.py", ""), ("app.py", APP), ("__main__.py", MAIN)):
        (package / name).write_text(text)
    return tmp_path


@pytest.mark.parametrize(
    ("words", "threads"), [(("-m", "llama_cpp.server"), 3), ((str(serve_command._PYTHON_SERVER_FILE),), 1)]
)
def test_one_thread_loads_and_computes_where_by_itself_the_server_takes_three(server, words, threads):
    """The main one loads, the pool has another for the next request, and a third while a cancelled one still runs."""
    done = subprocess.run(
        [sys.executable, *words],
        cwd=server,
        env={"PYTHONPATH": str(server)},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert (done.returncode, done.stdout.strip()) == (0, str(threads)), done.stderr


def test_serve_runs_the_binding_through_that_file():
    """And with the interpreter that has the binding."""
    program = serve_command.find_server(serve_command.PYTHON_SERVER)
    assert program.words == (sys.executable, str(serve_command._PYTHON_SERVER_FILE))
    assert Path(program.words[1]).read_text().count("ThreadPoolExecutor(1") == 1
