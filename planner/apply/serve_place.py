"""The port that a server is to listen on: whether it is free, who has it, and that no other planner takes it meanwhile.

The mistakes it prevents: two servers on one port (llama-server shares it without a word, and each gets half of the
requests), and "address already in use" without a name.
"""

import contextlib
import errno
import fcntl
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import psutil  # type: ignore[import-untyped, unused-ignore]

from planner.errors import ExitCode, FileIOError, PlannerError, UnavailableError
from planner.files import cache_dir

__all__ = ["PortTakenError", "check_port", "free_port", "holder", "listener", "port_lock"]

_LONGEST_NOTE = 200


class PortTakenError(PlannerError):
    """Somebody listens on the port, or another planner is about to."""

    exit_code = ExitCode.BUSY
    code = "port-taken"


def check_port(host: str, port: int) -> None:
    """Return when ``port`` of ``host`` is free.

    Raises :class:`PortTakenError` naming who has it where the system tells, and :class:`UnavailableError` for an
    address that this machine does not have.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            # What a server does too: an old connection that is still being closed is in nobody's way.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
            probe.listen(1)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise _taken(port) from error
        if error.errno in (errno.EACCES, errno.EPERM):
            raise PlannerError(
                f"port {port} may not be used: {error.strerror}",
                hint="name one above 1023 with --port",
                code="not-permitted",
                exit_code=ExitCode.NOT_PERMITTED,
            ) from error
        raise UnavailableError(
            f"no server can listen on {host}: {error.strerror or error}", hint="name an address of this machine"
        ) from error


def free_port(host: str = "127.0.0.1") -> int:
    """A port of ``host`` that nobody has at this moment."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])


def listener(port: int) -> int | None:
    """The process that listens on ``port`` of this machine; ``None`` where the system does not tell."""
    with contextlib.suppress(psutil.Error, OSError, RuntimeError):
        for each in psutil.net_connections(kind="tcp"):
            if each.status == psutil.CONN_LISTEN and each.laddr and each.laddr.port == port and each.pid:
                return int(each.pid)
    return None


def holder(port: int) -> str | None:
    """Who listens on ``port``, as ``name (process 123)``; ``None`` where the system does not tell."""
    pid = listener(port)
    with contextlib.suppress(psutil.Error, OSError):
        return None if pid is None else f"{psutil.Process(pid).name()} (process {pid})"
    return None


@contextlib.contextmanager
def port_lock(port: int, note: str, folder: Path | None = None) -> Iterator[None]:
    """Hold ``port`` among planners: between the look at it and the server's own hold of it, nobody else takes it.

    ``note`` tells others who it is. The lock is the kernel's and ends with this process. Raises
    :class:`PortTakenError` with the note of whoever has it.
    """
    path = (folder or cache_dir() / "serve") / f"port-{port}.lock"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise FileIOError(
            f"cannot write {path}: {error.strerror or error}", hint="set PLANNER_CACHE_DIR to a folder you may write to"
        ) from error
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            other = os.pread(handle, _LONGEST_NOTE, 0).decode(errors="replace").strip()
            raise PortTakenError(
                f"port {port} is served by planner already: {other or 'it has just started'}",
                hint="stop that one, or name another --port",
            ) from error
        with contextlib.suppress(OSError):
            os.ftruncate(handle, 0)
            os.pwrite(handle, note.encode()[:_LONGEST_NOTE], 0)
        yield
    finally:
        os.close(handle)


def _taken(port: int) -> PortTakenError:
    who = holder(port)
    return PortTakenError(
        f"port {port} is in use{f' by {who}' if who else ''}",
        hint="stop that program, or name another --port" if who else "name another --port",
    )
