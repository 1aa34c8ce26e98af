"""What ``planner export`` writes for other programs, started for real with a tiny model: it loads, and it answers."""

import json
import os
import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from planner.apply.serve_place import free_port
from planner.render.deployment import deployment
from planner.render.export import export
from planner.workflow.plan_file import read_plan

pytestmark = pytest.mark.engine


@pytest.fixture
def exported(make_plan, tiny_weights, tmp_path):
    """Writes a format for the tiny model into a folder; gives the folder, the deployment's name and its port."""

    def write(form: str) -> tuple[Path, str, int]:
        port = free_port()
        made = deployment(read_plan(make_plan()), weights=str(tiny_weights), port=port)
        for name, text in export(form, made).items():
            (tmp_path / name).write_text(text)
        return tmp_path, made.name, port

    return write


@pytest.fixture
def running(tmp_path):
    """Starts a server and ends it with the test."""
    started = []

    def start(*words: str) -> subprocess.Popen[bytes]:
        env = os.environ | {"LLAMA_CACHE": str(tmp_path), "HF_HUB_CACHE": str(tmp_path)}
        with (tmp_path / "log").open("wb") as log:
            server = subprocess.Popen(words, cwd=tmp_path, stdout=log, stderr=log, env=env, start_new_session=True)
        started.append(server)
        return server

    yield start
    for server in started:
        server.terminate()
        try:
            server.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(server.pid, 9)
            server.wait()


def chat(server: subprocess.Popen[bytes], port: int, model: str, log: Path) -> dict:
    """One answer of a few tokens, asked for until the server is up."""
    body = {"model": model, "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 4}
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/v1/chat/completions",
        data=json.dumps(body).encode(),
        headers={"Content-Type": "application/json"},
    )
    until = time.monotonic() + 90
    while server.poll() is None and time.monotonic() < until:
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:  # noqa: S310 - the same
                return json.load(answer)
        except urllib.error.HTTPError as error:
            if error.code != 503:
                raise AssertionError(error.read().decode()) from error
        except (urllib.error.URLError, ConnectionError):
            pass
        time.sleep(0.1)
    raise AssertionError(log.read_text(errors="replace")[-2000:])


@pytest.fixture
def llama_server() -> str:
    """A real llama-server."""
    program = os.environ.get("LLAMA_SERVER") or shutil.which("llama-server")
    if program is None:
        pytest.skip("no llama-server on PATH, and LLAMA_SERVER names none")
    return program


def test_a_preset_makes_the_router_load_the_model_and_answer(exported, running, llama_server):
    """llama-server as router, started as the file's own comment says, with the port that was asked for."""
    folder, name, port = exported("preset")
    server = running(
        llama_server, "--models-preset", f"{name}.ini", "--host", "127.0.0.1", "--port", str(port), "--offline"
    )
    answer = chat(server, port, name, folder / "log")
    assert answer["usage"]["completion_tokens"] == 4


def test_the_configuration_makes_the_python_server_answer(exported, running):
    """``python -m llama_cpp.server`` with the file alone."""
    pytest.importorskip("llama_cpp.server.app", reason="the extra 'server' is not installed")
    folder, name, port = exported("python")
    server = running(sys.executable, "-m", "llama_cpp.server", "--config_file", f"{name}.config.json")
    answer = chat(server, port, name, folder / "log")
    assert answer["model"] == name
    assert answer["usage"]["completion_tokens"] > 0


def test_the_program_asks_its_question(exported):
    """As it was written, run from start to end."""
    folder, name, _ = exported("python")
    done = subprocess.run([sys.executable, f"{name}.py"], cwd=folder, capture_output=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout
