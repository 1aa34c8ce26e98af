"""Which program serves a plan, with which words: llama.cpp's own server where there is one, else the Python binding's.

The mistake it prevents is a server that is found by luck: the one that was named is taken or refused, and where there
is none the remedies stand in the error.
"""

import contextlib
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from planner.apply.serve_process import server_environment
from planner.engine.process import child_environment
from planner.errors import MissingInputError, UnavailableError
from planner.render.deployment import deployment
from planner.render.llama_cpp_server import server_config, server_differences
from planner.types.deployment import Deployment
from planner.types.plan import Plan
from planner.types.serving import ServerKind

__all__ = ["PYTHON_SERVER", "ServerProgram", "StartableServer", "find_server", "first_key", "prepare"]

PYTHON_SERVER: Final = "llama-cpp-python"
"""What ``--server`` calls the server of the Python binding."""

_NEEDED = ("llama_cpp", "uvicorn", "fastapi", "sse_starlette", "starlette_context", "pydantic_settings")
_PYTHON_SERVER_FILE = Path(__file__).with_name("python_server.py")
_PROBE_S = 30.0
_MOST_KEY_BYTES = 64 << 10
_REMEDY = (
    "build one with: make llama-server; or install llama-cpp-python's: pip install 'llama-planner[server]'; "
    "or name one with --server PATH"
)


class ServerProgram(NamedTuple):
    """A program that serves: its kind, and the words that start it without options."""

    kind: ServerKind
    words: tuple[str, ...]


class StartableServer(NamedTuple):
    """All that a start needs, and what of the plan this program cannot do (sentences)."""

    program: ServerProgram
    deployment: Deployment
    argv: tuple[str, ...]
    environment: dict[str, str]
    url: str
    health_path: str
    differences: tuple[str, ...]


def find_server(named: str | None, *, engine_python: str | None = None) -> ServerProgram:
    """The program to serve with: the one ``named`` (a path, or ``llama-cpp-python``), else the first that is there.

    That is ``llama-server`` on ``PATH``, one beside this interpreter (``make llama-server`` puts it there), then
    llama-cpp-python's. Raises :class:`UnavailableError` (exit 69) with the remedy, :class:`MissingInputError` for a
    path where nothing is.
    """
    if named is not None and named != PYTHON_SERVER:
        return ServerProgram("llama-server", (_named(named),))
    python = engine_python or sys.executable
    if named is None:
        beside = str(Path(sys.executable).parent / "llama-server")
        found = shutil.which("llama-server") or shutil.which(beside)
        if found is not None:
            return ServerProgram("llama-server", (found,))
    missing = _missing_modules(engine_python)
    if missing:
        lacks = f"{python} lacks {', '.join(missing)}"
        what = (
            f"llama-cpp-python's server cannot run: {lacks}"
            if named
            else f"no server is here: no llama-server, and {lacks}"
        )
        raise UnavailableError(what, hint=_REMEDY, code="server-missing")
    return ServerProgram(PYTHON_SERVER, (python, str(_PYTHON_SERVER_FILE)))


@contextlib.contextmanager
def prepare(
    plan: Plan,
    program: ServerProgram,
    weights: Sequence[Path],
    *,
    host: str,
    port: int,
    api_key_file: str | None = None,
) -> Iterator[StartableServer]:
    """The start of ``program`` for the plan with these weights; a configuration file lives as long as the context.

    Raises what :func:`planner.render.deployment.deployment` raises.
    """
    paths = tuple(str(path.absolute()) for path in weights)
    wanted = deployment(plan, weights=paths, program=program.words[0], host=host, port=port, api_key_file=api_key_file)
    environment = server_environment(os.environ, wanted.environment)
    shown = "127.0.0.1" if host in ("0.0.0.0", "::") else host  # noqa: S104 - compared, not bound
    url = f"http://{f'[{shown}]' if ':' in shown else shown}:{port}"
    if program.kind == "llama-server":
        yield StartableServer(program, wanted, wanted.argv, environment, url, "/health", ())
        return
    offload = bool(wanted.gpus)
    config = server_config(
        wanted.settings,
        weights_file=paths[0],
        name=wanted.name,
        host=host,
        port=port,
        offload=offload,
        yarn=_yarn(wanted.argv),
        thinking={"on": True, "off": False}.get(_after(wanted.argv, "--reasoning") or ""),
        api_key=first_key(api_key_file),
    )
    with tempfile.TemporaryDirectory(prefix="planner-server-") as folder:
        path = Path(folder) / "config.json"  # 0700 around it: it may hold a key
        path.write_text(json.dumps(config), encoding="utf-8")
        argv = (*program.words, "--config_file", str(path))
        # uvicorn listens only when the model is loaded, and this path waits for no lock.
        yield StartableServer(
            program,
            wanted,
            argv,
            environment,
            url,
            "/openapi.json",
            server_differences(wanted.settings, offload=offload),
        )


def _named(name: str) -> str:
    found = shutil.which(name)
    if found is not None:
        return str(Path(found).absolute())
    if Path(name).exists():
        raise UnavailableError(f"{name} cannot be run", hint="it must be an executable file", code="server-missing")
    raise MissingInputError(f"there is no server {name}", hint=_REMEDY, code="server-missing")


def _missing_modules(engine_python: str | None) -> list[str]:
    """The modules that llama-cpp-python's server needs and the interpreter lacks; found without importing any."""
    if engine_python is None:
        return [name for name in _NEEDED if importlib.util.find_spec(name) is None]
    probe = "import importlib.util as u, sys; print(*[n for n in sys.argv[1:] if u.find_spec(n) is None])"
    try:
        told = subprocess.run(
            [engine_python, "-c", probe, *_NEEDED],
            capture_output=True,
            text=True,
            timeout=_PROBE_S,
            check=True,
            env=child_environment(os.environ, {}),
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise UnavailableError(
            f"{engine_python} does not run: {error}", hint="name a Python interpreter with --engine-python"
        ) from error
    return told.stdout.split()


def _after(argv: Sequence[str], flag: str) -> str | None:
    """The word behind a flag."""
    return argv[argv.index(flag) + 1] if flag in argv[:-1] else None


def _yarn(argv: Sequence[str]) -> tuple[int, int] | None:
    scale, original = _after(argv, "--rope-scale"), _after(argv, "--yarn-orig-ctx")
    return None if scale is None or original is None else (int(scale), int(original))


def first_key(path: str | None) -> str | None:
    """The first key of a file of keys, one on a line, as llama-server reads it; this server knows one."""
    if path is None:
        return None
    try:
        with Path(path).open(encoding="utf-8") as file:
            lines = file.read(_MOST_KEY_BYTES).splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise MissingInputError(
            f"the file of keys {path} cannot be read: {error}", hint="check --api-key-file"
        ) from error
    for line in lines:
        if line.strip():
            return line.strip()
    raise MissingInputError(f"the file of keys {path} holds no key", hint="write one on its first line")
