"""A supervised server is waited for, watched, started again, stopped and never left behind, with real processes."""

import os
import signal
import socket
import sys

import httpx2
import pytest


def test_a_good_server_is_told_ready_answers_and_stops_cleanly(served, wayward, gone):
    """SIGTERM ends both with exit code 0, and the report says what was served."""
    server = wayward("good")
    serving = served(server.program)
    serving.until("is ready")
    assert httpx2.get(f"{serving.url}/health", trust_env=False).status_code == 200
    code, report = serving.end(signal.SIGTERM)
    assert (code, report["stopped_by"], report["deaths"]) == (0, "SIGTERM", [])
    assert all(gone(pid) for pid in server.pids)


def test_ready_is_said_to_the_service_manager_only_when_it_is(served, wayward, tmp_path):
    """READY=1 comes after the health answer, STOPPING=1 at the end."""
    path = tmp_path / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(path))
        manager.settimeout(20)
        serving = served(wayward("late:0.5").program, environment={"NOTIFY_SOCKET": str(path)})
        assert b"READY=1" in manager.recv(4096)
        assert "is ready" in serving.notes
        serving.end(signal.SIGINT)
        rest = manager.recv(4096)
        while b"STOPPING=1" not in rest:
            rest = manager.recv(4096)


def test_a_server_that_dies_at_once_is_not_started_again(served, wayward):
    """Exit code 13, with the server's last words; one start."""
    server = wayward("dies")
    code, report = served(server.program).end()
    assert code == 13
    assert "cheese" in report["error"]["message"]
    assert len(server.pids) == 1


@pytest.mark.parametrize("mode", ["loading", "silent"])
def test_a_server_that_never_gets_ready_is_given_up(served, wayward, gone, mode):
    """After the deadline it is killed: exit code 13, the place of the log and the remedy in the hint."""
    server = wayward(mode)
    code, report = served(server.program, deadline_s=1.0).end()
    assert code == 13
    assert "--deadline" in report["error"]["hint"]
    assert "server.log" in report["error"]["hint"]
    assert all(gone(pid) for pid in server.pids)


def test_a_crash_is_followed_by_a_restart(served, wayward):
    """It is ready again afterwards, and the report counts the deaths."""
    server = wayward("crashes:2")
    serving = served(server.program)
    serving.until("is ready", count=3)
    code, report = serving.end(signal.SIGTERM)
    assert code == 0
    assert [death["was_ready"] for death in report["deaths"]] == [True, True]
    assert "SIGABRT" in report["deaths"][0]["how"]
    assert len(set(server.pids)) == 3


def test_restarts_end(served, wayward):
    """A server that crashes for ever is given up with exit code 13 after as many restarts as are allowed."""
    server = wayward("crashes:99")
    code, report = served(server.program, restarts=2).end()
    assert code == 13
    assert "death number 3" in report["error"]["message"]
    assert len(server.pids) == 3


def test_a_stopped_server_is_hung_and_replaced(served, wayward, gone):
    """One that neither answers nor computes is killed and started again."""
    server = wayward("good")
    serving = served(server.program)
    serving.until("is ready")
    os.kill(server.pids[0], signal.SIGSTOP)
    serving.until("is ready", count=2)
    assert gone(server.pids[0])
    assert "neither answered nor computed" in serving.notes
    assert serving.end(signal.SIGTERM)[0] == 0


def test_a_busy_server_is_not_hung(served, wayward):
    """One that computes and has no time for a question stays, long after the time that a hung one is given."""
    server = wayward("busy")
    serving = served(server.program, hang_s=1.0, watch_s=0.3)
    serving.until("is ready")
    with pytest.raises(httpx2.ReadTimeout):
        httpx2.get(f"{serving.url}/health", timeout=3, trust_env=False)
    assert serving.end(signal.SIGTERM)[0] == 0
    assert len(server.pids) == 1


def test_a_server_that_ignores_sigterm_is_killed(served, wayward, gone):
    """After the grace; and with a second signal at once."""
    server = wayward("deaf")
    serving = served(server.program, grace_s=0.3)
    serving.until("is ready")
    assert serving.end(signal.SIGTERM)[0] == 0
    patient = served(server.program, grace_s=600.0)
    patient.until("is ready")
    patient.process.send_signal(signal.SIGINT)
    patient.until("stopping")
    assert patient.end(signal.SIGINT, seconds=10)[0] == 0
    assert all(gone(pid) for pid in server.pids)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has a signal for the parent's death")
@pytest.mark.parametrize("phase", ["is ready", "starting tiny"])
def test_a_killed_planner_takes_its_server_with_it(served, wayward, gone, phase):
    """No orphan, whether the server was ready or still loading."""
    server = wayward("good" if phase == "is ready" else "loading")
    serving = served(server.program)
    serving.until(phase)
    while not server.pids:
        assert serving.process.poll() is None
    serving.process.kill()
    serving.process.wait()
    assert gone(server.pids[0])


def test_the_children_of_a_server_end_with_it(served, wayward, gone):
    """The whole group is ended, and what a crashed server leaves behind too."""
    server = wayward("parent")
    serving = served(server.program)
    serving.until("is ready")
    first = server.pids
    os.kill(first[0], signal.SIGKILL)
    serving.until("is ready", count=2)
    assert gone(first[1])
    assert serving.end(signal.SIGTERM)[0] == 0
    assert all(gone(pid) for pid in server.pids)


def test_a_talking_server_fills_no_disk_and_never_blocks(served, wayward, tmp_path):
    """Its log is bounded, its output is drained as fast as it comes."""
    serving = served(wayward("chatty").program)
    serving.until("is ready")
    log = tmp_path / "server.log"
    while not log.with_name("server.log.1").exists():
        assert serving.process.poll() is None
    assert serving.end(signal.SIGTERM)[0] == 0
    assert log.stat().st_size <= 8 << 20
    assert len(list(tmp_path.glob("server.log*"))) == 2


def test_the_shell_around_it_changes_nothing(served, wayward):
    """Neither llama-server's options in variables nor secrets reach the server; the plan's own environment does."""
    shell = {"LLAMA_ARG_CTX_SIZE": "1", "HF_TOKEN": "hf_secret", "N_CTX": "7", "OMP_WAIT_POLICY": "active"}
    serving = served(wayward("good").program, environment=shell)
    serving.until("is ready")
    told = httpx2.get(f"{serving.url}/", trust_env=False).json()["environment"]
    assert not set(told) & {"LLAMA_ARG_CTX_SIZE", "HF_TOKEN", "N_CTX", "NOTIFY_SOCKET"}
    assert told["OMP_WAIT_POLICY"] == "passive"
    serving.end(signal.SIGTERM)
