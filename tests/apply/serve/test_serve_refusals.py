"""What cannot be served is refused before anything is started, with its exit code, its place and its remedy."""

import json
import signal
import socket
import subprocess
import sys

import msgspec
import pytest

from planner.apply.serve import ServeRequest, serve
from planner.apply.serve_command import find_server
from planner.apply.serve_log import ServerLog
from planner.apply.serve_place import PortTakenError, check_port, free_port, port_lock
from planner.errors import BadInputError, FileIOError, MissingInputError, PlannerError, UnavailableError
from planner.workflow.plan_file import read_plan


def quietly(_note: str) -> None:
    """Nobody listens."""


def test_missing_weights_say_how_to_get_them(make_plan, wayward):
    """Exit code 66, and the very command."""
    path = make_plan()
    request = ServeRequest(plan_name=str(path), server=str(wayward("good").program), port=free_port())
    with pytest.raises(MissingInputError, match="not on this machine") as error:
        serve(read_plan(path), request, tell=quietly)
    assert f"planner fetch {path}" in error.value.hint
    assert error.value.exit_code == 66


def test_cut_weights_are_refused_before_a_server_starts(make_plan, wayward, tiny_weights, tmp_path):
    """Exit code 65 for a file that ends in its data, in its header, or is none; no server saw it."""
    whole = tiny_weights.read_bytes()
    server = wayward("good")
    for length in (len(whole) - 1, 5000, 3, 0):
        cut = tmp_path / "cut.gguf"
        cut.write_bytes(whole[:length])
        request = ServeRequest(server=str(server.program), weights=str(cut), port=free_port())
        with pytest.raises(BadInputError, match=r"cut\.gguf") as error:
            serve(read_plan(make_plan()), request, tell=quietly)
        assert error.value.exit_code == 65
    assert server.pids == []


def test_a_taken_port_is_told_with_its_holder(make_plan, wayward, tiny_weights):
    """Exit code 75, naming the process."""
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        request = ServeRequest(server=str(wayward("good").program), weights=str(tiny_weights), port=port)
        with pytest.raises(PortTakenError, match=rf"port {port} is in use by .+ \(process \d+\)") as error:
            serve(read_plan(make_plan()), request, tell=quietly)
        assert error.value.exit_code == 75
    check_port("127.0.0.1", port)


def test_a_port_is_one_planners_at_a_time(tmp_path):
    """The second one hears who has it; afterwards it is free."""
    with (
        port_lock(8080, "tiny from plan.json", tmp_path),
        pytest.raises(PortTakenError, match=r"tiny from plan\.json"),
        port_lock(8080, "another", tmp_path),
    ):
        pytest.fail("locked twice")
    with port_lock(8080, "another", tmp_path):
        pass


def test_without_any_server_the_remedy_is_named(tmp_path, monkeypatch):
    """Exit code 69 where neither llama-server nor llama-cpp-python's server is there; 66 for a name that is nothing."""
    bare = tmp_path / "python"
    bare.write_text("#!/bin/sh\necho uvicorn fastapi\n")
    bare.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path / "nothing"))
    monkeypatch.setattr(sys, "executable", str(tmp_path / "bin" / "python"))
    with pytest.raises(UnavailableError, match="lacks uvicorn, fastapi") as error:
        find_server(None, engine_python=str(bare))
    assert "make llama-server" in error.value.hint
    with pytest.raises(MissingInputError, match="no server"):
        find_server(str(tmp_path / "absent"))
    (tmp_path / "text").write_text("no program")
    with pytest.raises(UnavailableError, match="cannot be run"):
        find_server(str(tmp_path / "text"))


def test_a_plan_without_a_choice_is_not_served(make_plan, wayward):
    """Exit code 10."""
    plan = msgspec.structs.replace(read_plan(make_plan()), chosen=None, commands=None)
    with pytest.raises(PlannerError) as error:
        serve(plan, ServeRequest(server=str(wayward("good").program), port=free_port()), tell=quietly)
    assert error.value.exit_code == 10


def test_the_same_plan_is_not_served_twice(served, wayward):
    """The second planner ends with 75 and the first serves on."""
    server = wayward("good")
    first = served(server.program)
    first.until("is ready")
    code, report = subprocess_of(first)
    assert (code, report["error"]["code"]) == (75, "port-taken")
    assert first.end(signal.SIGTERM)[0] == 0
    assert len(server.pids) == 1


def subprocess_of(first):
    """The very same command once more."""
    done = subprocess.run(first.process.args, capture_output=True, timeout=30, check=False)
    return done.returncode, json.loads(done.stdout)


def test_a_log_that_cannot_be_written_is_an_error_and_a_full_disk_is_not(tmp_path):
    """Nobody starts a server whose words are lost; a disk that fills up later stops nothing."""
    with pytest.raises(FileIOError, match="log"):
        ServerLog(tmp_path)
    log = ServerLog(tmp_path / "log", most_bytes=1000)
    log.note("x" * 600)
    log.note("y" * 600)
    assert (tmp_path / "log.1").stat().st_size <= 1000
    log.close()
    log.note("late")
    assert log.dropped_bytes == len("planner: late\n")
