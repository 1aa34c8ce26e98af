"""Starts what a plan says and keeps it running: ``planner serve``.

The mistake it prevents is a server of one's own making: program, settings, address and weights come from the plan file
and what was named beside it, and each thing that could be wrong is looked at before anything is started.
"""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from planner.apply.serve_command import ServerProgram, StartableServer, find_server, prepare
from planner.apply.serve_health import HealthCheck
from planner.apply.serve_log import ServerLog
from planner.apply.serve_phantom import phantom_weights
from planner.apply.serve_place import check_port, port_lock
from planner.apply.serve_process import ServerProcess
from planner.apply.serve_signals import signals_interrupt
from planner.apply.serve_weights import Weights, check_whole, find_weights
from planner.apply.supervise import Limits, supervise
from planner.errors import UnavailableError
from planner.files import cache_dir
from planner.render.deployment import DEFAULT_HOST, DEFAULT_PORT, deployment, label
from planner.types.plan import Plan
from planner.types.serving import ServeReport

__all__ = ["Prepared", "ServeRequest", "default_deadline_s", "log_path", "prepared", "serve", "start_server"]

_LEAST_DEADLINE_S = 60.0
_SLOWEST_READ_BYTES_PER_S = 50e6  # a network disk


class ServeRequest(NamedTuple):
    """What stands beside the plan: where to listen, which program and file, how patient to be.

    ``plan_name`` is how the plan is named in hints. ``limits`` replaces all patience at once.
    """

    plan_name: str = "PLAN"
    weights: str | None = None
    server: str | None = None
    host: str = DEFAULT_HOST
    port: int = DEFAULT_PORT
    api_key_file: str | None = None
    deadline_s: float | None = None
    log: Path | None = None
    phantom: bool = False
    engine_python: str | None = None
    limits: Limits | None = None


def serve(plan: Plan, request: ServeRequest, *, tell: Callable[[str], None]) -> ServeReport:
    """Serve the plan until SIGINT, SIGTERM or SIGHUP; ``tell`` hears a line for all that happens.

    Only from the main thread. Raises: :class:`PortTakenError` (75), weights missing (66) or cut (65), no server (69), a
    plan that chose nothing (10), :class:`EngineDiedError` (13) for a server that does not become ready or dies too
    often.
    """
    checked = deployment(plan, host=request.host, port=request.port, api_key_file=request.api_key_file)
    with contextlib.ExitStack() as stack:
        stack.enter_context(signals_interrupt())
        stack.enter_context(port_lock(request.port, f"{checked.name} from {request.plan_name}"))
        ready = stack.enter_context(prepared(plan, request, tell=tell))
        program, weights, startable, log, check = ready
        for sentence in startable.differences:
            tell(f"otherwise than planned: {sentence}")
        limits = request.limits or Limits(deadline_s=request.deadline_s or default_deadline_s(plan))
        tell(f"starting {checked.name} on {startable.url} with {_program_words(program)}; its log is {log.path}")

        def start() -> ServerProcess:
            check_port(request.host, request.port)
            return start_server(startable, log)

        told = supervise(start, check, limits, port=request.port, name=checked.name, tell=tell)
    return ServeReport(
        name=checked.name,
        server=program.kind,
        url=f"{startable.url}/v1",
        weights=str(weights.paths[0]),
        phantom=request.phantom,
        log=str(log.path),
        stopped_by=told.stopped_by,
        ready_after_s=round(told.ready_after_s, 3),
        served_s=round(told.served_s, 3),
        deaths=told.deaths,
    )


class Prepared(NamedTuple):
    """All that a start needs: the program, the weights, its command, where its words go, and how to ask for health."""

    program: ServerProgram
    weights: Weights
    startable: StartableServer
    log: ServerLog
    check: HealthCheck


@contextlib.contextmanager
def prepared(plan: Plan, request: ServeRequest, *, tell: Callable[[str], None]) -> Iterator[Prepared]:
    """What is needed to start the plan's server, looked at and open; a phantom lives as long as the context."""
    program = find_server(request.server, engine_python=request.engine_python)
    with contextlib.ExitStack() as stack:
        check_port(request.host, request.port)
        weights = stack.enter_context(_opened_weights(plan, request, tell))
        startable = stack.enter_context(
            prepare(
                plan,
                program,
                weights.paths,
                host=request.host,
                port=request.port,
                api_key_file=request.api_key_file,
            )
        )
        log_file = request.log or log_path(startable.deployment.name, request.port)
        log = stack.enter_context(contextlib.closing(ServerLog(log_file)))
        check = stack.enter_context(HealthCheck(startable.url, startable.health_path))
        yield Prepared(program, weights, startable, log, check)


@contextlib.contextmanager
def _opened_weights(plan: Plan, request: ServeRequest, tell: Callable[[str], None]) -> Iterator[Weights]:
    """The weights to serve, whole."""
    if request.phantom and plan.chosen is not None:
        with phantom_weights(plan.chosen, engine_python=request.engine_python, tell=tell) as made:
            yield made
        return
    weights = find_weights(plan, request.weights, plan_name=request.plan_name)
    check_whole(weights)
    yield weights


def start_server(startable: StartableServer, log: ServerLog) -> ServerProcess:
    """One start; raises :class:`UnavailableError` when the system makes no process."""
    log.note(f"starting {' '.join(startable.argv)}")
    try:
        return ServerProcess(startable.argv, startable.environment, log)
    except OSError as error:
        raise UnavailableError(
            f"no process can be made for {startable.argv[0]}: {error.strerror or error}",
            hint="check the limits on processes and memory",
        ) from error


def default_deadline_s(plan: Plan) -> float:
    """Seconds until a server must be ready: a minute, and time to read the weights from a slow disk."""
    size_bytes = plan.chosen.file_bytes if plan.chosen is not None else 0
    return _LEAST_DEADLINE_S + size_bytes / _SLOWEST_READ_BYTES_PER_S


def log_path(name: str, port: int | None = None) -> Path:
    """Where the log of a server goes when nobody names a place."""
    return cache_dir() / "logs" / f"{label(name)}{'' if port is None else f'-{port}'}.log"


def _program_words(program: ServerProgram) -> str:
    return program.words[0] if program.kind == "llama-server" else f"llama-cpp-python's server ({program.words[0]})"
