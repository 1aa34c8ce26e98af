"""Holds what runs against what was planned: machine, file, memory and speed, asked of a real server.

The mistake it prevents is a plan that is believed because it was made: each promise is looked at where it can be, and
what could not be looked at is told as unknown, never as kept.
"""

import contextlib
import time
import urllib.parse
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from planner import __version__
from planner.apply.load import ChatClient
from planner.apply.receipts import find_receipt
from planner.apply.serve import ServeRequest, default_deadline_s, log_path, prepared, start_server
from planner.apply.serve_command import first_key
from planner.apply.serve_health import Health, HealthCheck
from planner.apply.serve_place import free_port, listener, port_lock
from planner.apply.serve_signals import signals_interrupt
from planner.apply.serve_weights import Weights
from planner.apply.supervise import await_ready
from planner.apply.verify_file import file_checks
from planner.apply.verify_machine import machine_checks
from planner.apply.verify_memory import memory_checks, resident_bytes
from planner.apply.verify_speed import FULL, QUICK, SpeedChecks
from planner.errors import UnavailableError, UsageError
from planner.measure.conditions import Watch
from planner.measure.lock import measurement_lock
from planner.render.deployment import deployment, is_loopback
from planner.types.deployment import Deployment
from planner.types.machine import Machine
from planner.types.measurement import Conditions
from planner.types.plan import Candidate, Plan
from planner.types.serving import ServerKind
from planner.types.verification import ChatTiming, Check, Verification

__all__ = ["VerifyRequest", "verify"]

_LOCK_WAIT_S = 5.0


class VerifyRequest(NamedTuple):
    """What stands beside the plan. Without ``url`` a server is started on a free port and ended afterwards."""

    plan_name: str = "PLAN"
    url: str | None = None
    weights: str | None = None
    server: str | None = None
    api_key_file: str | None = None
    deadline_s: float | None = None
    log: Path | None = None
    phantom: bool = False
    quick: bool = False
    engine_python: str | None = None


class _Running(NamedTuple):
    """A server to ask: where, whose, which process (``None``: cannot be told), whether it was started for this."""

    url: str
    kind: ServerKind | None
    pid: int | None
    started: bool
    weights: Weights | None
    notes: tuple[str, ...] = ()


class _Measured(NamedTuple):
    checks: list[Check]
    timings: list[ChatTiming]
    loaded_bytes: int | None
    most_bytes: int | None
    conditions: Conditions


def verify(plan: Plan, request: VerifyRequest, now: Machine, *, tell: Callable[[str], None]) -> Verification:
    """Every promise of the plan beside what is found; ``now`` is the machine as it is.

    Only from the main thread. Raises what :func:`planner.apply.serve.serve` raises before it runs, and
    :class:`UnavailableError` (code ``server-failed``) for a server that does not answer chat requests.
    """
    began = time.monotonic()
    # Checked first: a plan without a choice is no reason to look at anything.
    wanted = deployment(plan)
    chosen = plan.chosen
    assert chosen is not None  # noqa: S101 - deployment refuses a plan without a choice
    with signals_interrupt(), measurement_lock(wait_s=_LOCK_WAIT_S), _running(plan, request, tell) as running:
        held = resident_bytes(running.pid) if running.pid is not None else None
        checks = list(machine_checks(plan, now, held_bytes=held or 0))
        if running.weights is not None:
            tell("comparing the file")
            checks += file_checks(
                chosen,
                running.weights,
                hashed=not request.quick,
                engine_python=request.engine_python,
                tell=tell,
            )
        else:
            text = "the server does not tell which file it has loaded"
            checks.append(Check(area="file", name="weights", status="unknown", text=text))
        measured = _measured(chosen, wanted, running, request, tell)
    checks += measured.checks
    return Verification(
        model=chosen.model,
        quantization=chosen.quantization,
        verified_at=datetime.now(UTC).isoformat(timespec="seconds"),
        created_by=f"planner {__version__}",
        url=running.url,
        server=running.kind,
        started=running.started,
        phantom=running.weights is not None and running.weights.origin == "phantom",
        quick=request.quick,
        drifted=any(check.status == "missed" for check in checks),
        checks=tuple(checks),
        timings=tuple(measured.timings),
        loaded_bytes=measured.loaded_bytes,
        resident_bytes=measured.most_bytes,
        conditions=measured.conditions,
        seconds=round(time.monotonic() - began, 1),
        notes=running.notes,
    )


def _measured(
    chosen: Candidate,
    wanted: Deployment,
    running: _Running,
    request: VerifyRequest,
    tell: Callable[[str], None],
) -> _Measured:
    """The server's own words, its memory and its speeds."""
    pids = () if running.pid is None else (running.pid,)
    one_at_a_time = running.kind == "llama-cpp-python"
    with ChatClient(
        running.url,
        model=wanted.name,
        kind=running.kind,
        api_key=first_key(request.api_key_file),
        connections=max(16, 2 * chosen.settings.parallel),
    ) as client:
        checks = list(_server_checks(chosen, client))
        speeds = SpeedChecks(client, chosen, QUICK if request.quick else FULL, one_at_a_time=one_at_a_time, tell=tell)
        speeds.first_answer()
        checks.append(Check(area="server", name="chat", status="met", text="it answers chat requests, streaming"))
        loaded = most = _held(running)
        speeds.warm_up()
        watch = Watch(pids, threads=chosen.settings.threads)
        timed = []
        for check in speeds.run():
            timed.append(check)
            most = max(filter(None, (most, _held(running))), default=None)
        conditions = watch.finish()
    checks += memory_checks(chosen, kind=running.kind, started=running.started, loaded_bytes=loaded, most_bytes=most)
    return _Measured(checks + timed, speeds.timings, loaded, most, conditions)


def _held(running: _Running) -> int | None:
    return None if running.pid is None else resident_bytes(running.pid)


def _server_checks(chosen: Candidate, client: ChatClient) -> Iterator[Check]:
    """What llama-server says of its own settings, beside those that were planned."""
    told = client.properties()
    if told is None:
        return
    settings = chosen.settings
    slots = told.get("total_slots")
    context = (told.get("default_generation_settings") or {}).get("n_ctx")
    each = settings.context_tokens if settings.kv_unified else settings.context_tokens // settings.parallel
    for name, planned, found in (("slots", settings.parallel, slots), ("context", each, context)):
        status = "unknown" if not isinstance(found, int) else "met" if found >= planned else "missed"
        yield Check(
            area="server",
            name=name,
            status=status,  # type: ignore[arg-type] # one of three words of the type
            planned=str(planned),
            found=None if found is None else str(found),
        )


@contextlib.contextmanager
def _running(plan: Plan, request: VerifyRequest, tell: Callable[[str], None]) -> Iterator[_Running]:
    """A server that runs: the one at the address, or one that is started there or on a free port."""
    if request.url is None:
        # Nobody else knows this port, so nobody has to be kept from it.
        with _started(plan, request, "127.0.0.1", free_port(), tell) as started:
            yield started
        return
    host, port, url = _address(request.url)
    health = _settled(url, request.deadline_s or default_deadline_s(plan))
    if health.state != "silent":
        tell(f"asking the server that runs at {url}")
        yield _found(plan, request, url, host, port)
    elif is_loopback(host):
        tell(f"no server runs at {url}")
        note = f"planner verify {request.plan_name}"
        with port_lock(port, note), _started(plan, request, host, port, tell) as started:
            yield started
    else:
        raise UnavailableError(
            f"no server answers at {url}: {health.detail}", hint="start it there with: planner serve PLAN"
        )


def _settled(url: str, deadline_s: float) -> Health:
    """The state of a server at the address once it no longer loads."""
    until = time.monotonic() + deadline_s
    with HealthCheck(url, "/v1/models", patience_s=5.0) as check:
        while (health := check.ask()).state == "loading" and time.monotonic() < until:
            time.sleep(0.5)
    return health


def _found(plan: Plan, request: VerifyRequest, url: str, host: str, port: int) -> _Running:
    with ChatClient(url, model="", kind=None, api_key=first_key(request.api_key_file)) as client:
        told = client.properties()
    kind: ServerKind | None = "llama-server" if told is not None and "total_slots" in told else None
    loaded = told.get("model_path") if told is not None else None
    weights = None
    if is_loopback(host) and isinstance(loaded, str) and Path(loaded).is_file():
        paths = deployment(plan, weights=loaded).weights
        phantom = request.phantom or Path(loaded).name == "phantom.gguf"
        weights = Weights(tuple(Path(path) for path in paths), "phantom" if phantom else "given", find_receipt(plan))
    pid = listener(port) if is_loopback(host) else None
    notes = () if is_loopback(host) else ("the server is on another machine: the machine checks are of this one",)
    return _Running(url, kind, pid, started=False, weights=weights, notes=notes)


@contextlib.contextmanager
def _started(
    plan: Plan, request: VerifyRequest, host: str, port: int, tell: Callable[[str], None]
) -> Iterator[_Running]:
    serving = ServeRequest(
        plan_name=request.plan_name,
        weights=request.weights,
        server=request.server,
        host=host,
        port=port,
        api_key_file=request.api_key_file,
        log=request.log or log_path(f"verify-{deployment(plan).name}"),
        phantom=request.phantom,
        engine_python=request.engine_python,
    )
    with prepared(plan, serving, tell=tell) as ready:
        program, weights, startable, log, check = ready
        tell(f"starting {program.words[0]}; its log is {log.path}")
        with start_server(startable, log) as process:
            await_ready(process, check, deadline_s=request.deadline_s or default_deadline_s(plan), signals=None)
            yield _Running(
                startable.url, program.kind, process.pid, started=True, weights=weights, notes=startable.differences
            )


def _address(url: str) -> tuple[str, int, str]:
    """Host, port and the address without a path; raises :class:`UsageError` for what is none."""
    parts = urllib.parse.urlsplit(url if "//" in url else f"http://{url}")
    try:
        port = parts.port
    except ValueError as error:
        raise UsageError(f"{url!r} has no such port", hint="such as http://127.0.0.1:8080") from error
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise UsageError(f"{url!r} is no address of a server", hint="such as http://127.0.0.1:8080")
    port = port or (443 if parts.scheme == "https" else 80)
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return parts.hostname, port, f"{parts.scheme}://{host}:{port}"
