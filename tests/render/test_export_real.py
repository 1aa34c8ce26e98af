"""The script and the variables, started for real: two servers that answer and that have the same settings."""

import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from contextlib import contextmanager
from pathlib import Path

import pytest

from planner.catalogue import load
from planner.engine.byte_vocabulary import with_byte_vocabulary
from planner.engine.phantom import write_phantom
from planner.render.export import export


@pytest.fixture(scope="module")
def server():
    """A llama-server: named, on PATH, or beside the interpreter."""
    beside = Path(sys.executable).parent / "llama-server"
    found = os.environ.get("LLAMA_SERVER") or shutil.which("llama-server") or shutil.which(beside)
    if not found:
        pytest.skip("no llama-server here: make llama-server builds one, LLAMA_SERVER names one")
    return found


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """Two layers of a small model under a name that every grammar trips over."""
    catalogue = load()
    path = tmp_path_factory.mktemp("weights") / "it's a $(touch owned) %h;'\"\\.gguf"
    write_phantom(path, with_byte_vocabulary(catalogue.layout(catalogue.model("qwen3-0.6b"), 2)))
    return str(path)


def free_port():
    """A port that nobody has."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def ask(port, path, body=None, key=None):
    """The status and the JSON answer of one request."""
    headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {key}"} if key else {})
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", data=data, headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:  # noqa: S310 - the same
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, {}


@contextmanager
def running(words, port, folder):
    """A server that has come up, with nothing in its environment but PATH; ended afterwards."""
    with (folder / "log").open("wb") as log:
        environment = {"PATH": os.environ["PATH"]}
        process = subprocess.Popen(words, stdout=log, stderr=log, cwd=folder, env=environment)
    try:
        for _ in range(600):
            assert process.poll() is None, (folder / "log").read_text(errors="replace")[-2000:]
            try:
                if ask(port, "/health")[0] == 200:
                    break
            except OSError:
                pass
            time.sleep(0.1)
        yield process
    finally:
        process.terminate()
        process.wait(timeout=60)


CHAT = {"messages": [{"role": "user", "content": "hello"}], "max_tokens": 3}


def test_script_and_variables_start_the_same_server(server, weights, deployed, tmp_path):
    """Both answer a chat under the deployment's name; every setting that the servers tell is the same."""
    told = []
    for form in ("script", "env"):
        port = free_port()
        made = deployed(weights=weights, program=server, port=port)
        (text,) = export(form, made).values()
        file = tmp_path / form
        file.write_text(text)
        command = f'set -a; . {file}; exec "$1" $LLAMA_EXTRA_ARGS'
        words = ["/bin/sh", str(file)] if form == "script" else ["/bin/sh", "-c", command, "sh", server]
        with running(words, port, tmp_path):
            status, answer = ask(port, "/v1/chat/completions", CHAT)
            assert (status, answer["model"]) == (200, made.name)
            # A mark that is another one at each start.
            told.append({key: value for key, value in ask(port, "/props")[1].items() if key != "media_marker"})
    assert told[0] == told[1]
    assert told[0]["model_path"] == weights
    assert told[0]["total_slots"] == made.settings.parallel
    assert told[0]["default_generation_settings"]["n_ctx"] == made.settings.context_tokens
    assert not (tmp_path / "owned").exists()


def test_an_exposed_script_asks_for_a_key(server, weights, deployed, tmp_path):
    """Without one it says 401; the key stands in no argument."""
    (tmp_path / "keys").write_text("# whose\ns3cret\n")
    port = free_port()
    made = deployed(weights=weights, program=server, port=port, host="0.0.0.0", api_key_file=str(tmp_path / "keys"))  # noqa: S104 - it asks for a key
    (tmp_path / "script").write_text(export("script", made)[f"{made.name}.sh"])
    with running(["/bin/sh", str(tmp_path / "script")], port, tmp_path) as process:
        assert ask(port, "/v1/chat/completions", CHAT)[0] == 401
        assert ask(port, "/v1/chat/completions", CHAT, key="s3cret")[0] == 200
        told = Path(f"/proc/{process.pid}/cmdline")
        assert not told.exists() or b"s3cret" not in told.read_bytes()
