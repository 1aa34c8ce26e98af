"""A token goes to its own server and to nothing else: no other host, no message, no log, no file."""

import logging
import os
import subprocess
import sys

import pytest

from planner.errors import PlannerError
from planner.files import cache_dir
from planner.hub import find, header_files, parse_reference
from planner.hub.access import Access

CANARY = "hf_canary0123456789abcdefghijklmnopqrst"


@pytest.fixture(params=["hf", "ms"])
def scheme(request, monkeypatch):
    """Each hub with its own token."""
    monkeypatch.setenv({"hf": "HF_TOKEN", "ms": "MODELSCOPE_API_TOKEN"}[request.param], CANARY)
    return request.param


def everything_written() -> str:
    """The text of every file in the cache."""
    return "".join(path.read_bytes().decode("latin-1") for path in cache_dir().rglob("*") if path.is_file())


def test_the_token_reaches_its_hub_and_no_other_server(hub, ask, scheme):
    """The content server is a stranger, and the signed address is enough for it."""
    ask(f"{scheme}:org/Small-GGUF:Q4_K_M")
    at_hub = [seen for seen in hub.seen if seen.kind != "content"]
    assert at_hub
    assert all(CANARY in seen.headers["authorization"] for seen in at_hub)
    assert all(CANARY not in str(seen.headers) for seen in hub.of("content"))
    assert all(CANARY not in seen.path for seen in hub.seen)


@pytest.mark.parametrize(
    "fault",
    [
        {"kind": "api", "status": 401},
        {"kind": "api", "status": 403},
        {"kind": "api", "status": 404},
        {"kind": "api", "status": 429, "headers": {"Retry-After": "600"}},
        {"kind": "api", "status": 500},
        {"kind": "api", "body": b"<html>"},
        {"kind": "resolve", "status": 403, "headers": {"X-Error-Code": "GatedRepo"}},
        {"kind": "resolve", "location": f"ftp://x/?token={CANARY}"},
        {"kind": "resolve", "location": f"http://127.0.0.1:9/?token={CANARY}"},
        {"kind": "content", "status": 401, "headers": {"X-Error-Message": CANARY}, "body": CANARY.encode()},
        {"kind": "content", "cut_at": 5},
        {"kind": "content", "shift": 5},
        {"kind": "content", "etag": f'"{CANARY}"', "cut_at": 5},
    ],
    ids=str,
)
def test_no_fault_tells_the_token(hub, ask, scheme, fault, caplog, capfd):
    """Messages, hints, chains of exceptions, logs at their loudest, both streams, and every file written."""
    caplog.set_level(logging.DEBUG)
    hub.fail(**{"times": 100, **fault})
    with pytest.raises(PlannerError) as caught:
        ask(f"{scheme}:org/Small-GGUF:Q4_K_M")
    told = [repr(caught.value), caught.value.message, caught.value.hint, caplog.text, *capfd.readouterr()]
    cause = caught.value.__cause__
    while cause is not None:
        told.append(repr(cause))
        cause = cause.__cause__
    if CANARY in str(fault):  # the HTTP client logs what a server says, and this one says our token
        told.remove(caplog.text)
    assert not [text for text in told if CANARY in text]
    assert CANARY not in everything_written()


def test_no_success_tells_the_token(hub, ask, scheme, caplog):
    """Structs, files and logs of a question that went well."""
    caplog.set_level(logging.DEBUG)
    (file,) = ask(f"{scheme}:org/Small-GGUF:Q4_K_M")
    repository = find(parse_reference(f"{scheme}:org/Small-GGUF"))
    assert CANARY not in repr(file) + repr(repository) + caplog.text + everything_written()
    assert "X-Signature" not in everything_written() + repr(repository)
    assert hub.seen


def test_the_holder_of_a_token_does_not_show_it():
    """Not by accident, in a debugger or a traceback."""
    who = Access("https://hub.example", {"authorization": f"Bearer {CANARY}"})
    assert CANARY not in repr(who) + str(who) + f"{who}"
    assert "signed in" in repr(who)


@pytest.mark.parametrize(
    "url",
    [
        "https://hub.example.evil/x",
        "http://hub.example/x",
        "https://hub.example:8443/x",
        "https://evil/hub.example",
        "https://cdn.hub.example/x",
    ],
)
def test_a_token_belongs_to_one_origin(url):
    """Scheme, host and port, all three."""
    who = Access("https://hub.example", {"authorization": CANARY})
    assert who.headers_for("https://HUB.example:443/y")
    assert not who.headers_for(url)


def test_the_token_can_be_held_back(hub, ask, monkeypatch):
    """HF_HUB_DISABLE_IMPLICIT_TOKEN keeps an account out of questions about public models."""
    monkeypatch.setenv("HF_TOKEN", CANARY)
    monkeypatch.setenv("HF_HUB_DISABLE_IMPLICIT_TOKEN", "1")
    ask()
    assert all("authorization" not in seen.headers for seen in hub.seen)


def test_an_address_gets_no_token(hub, hasty, monkeypatch):
    """Even on the hub's own host: nobody said that it is one."""
    monkeypatch.setenv("HF_TOKEN", CANARY)
    url = f"{hub.endpoint}/org/Small-GGUF/resolve/main/Small-Q4_K_M.gguf"
    header_files(find(parse_reference(url), patience=hasty).models[0], patience=hasty)
    assert hub.seen
    assert all(CANARY not in str(seen.headers) for seen in hub.seen)


def test_a_token_in_a_file_is_found_and_held(hub, home):
    """HF_HOME/token, as `hf auth login` writes it; in a process of its own, for the library reads its home once."""
    folder = home / "hf"
    folder.mkdir()
    (folder / "token").write_text(CANARY)
    hub.gated.add("org/Small-GGUF")
    hub.token = CANARY
    program = (
        "from planner.hub import find, header_files, parse_reference\n"
        "r = find(parse_reference('hf:org/Small-GGUF:Q4_K_M'))\n"
        "print(r, header_files(r.models[0]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        env={**os.environ, "HF_HOME": str(folder)},
    )
    assert done.returncode == 0, done.stderr
    assert "header_sha256=" in done.stdout
    assert CANARY not in done.stdout + done.stderr + everything_written()


def test_a_stored_login_of_modelscope_is_not_unpickled(hub, ask, home, tmp_path):  # noqa: ARG001 - there has to be a hub
    """Its package keeps cookies as a pickle; one that runs a program must not run."""
    trace = tmp_path / "ran"
    folder = home / ".modelscope" / "credentials"
    folder.mkdir(parents=True)
    (folder / "cookies").write_bytes(b"cos\nsystem\n(S'touch " + str(trace).encode() + b"'\ntR.")
    ask("ms:org/Small-GGUF:Q4_K_M")
    assert not trace.exists()


def test_the_library_tells_nothing_of_its_own(hub, home):  # noqa: ARG001 - an empty home, so nothing is cached
    """No question but ours, and no word about other packages or the calling program."""
    program = (
        "from planner.hub import find, header_files, parse_reference\n"
        "header_files(find(parse_reference('hf:org/Small-GGUF:Q4_K_M')).models[0])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        env={**os.environ, "AI_AGENT": "somebody", "HF_HUB_DISABLE_TELEMETRY": ""},
    )
    assert done.returncode == 0, done.stderr
    assert [seen.kind for seen in hub.seen] == ["api", "resolve", "content"]
    assert not [seen for seen in hub.seen if "agent/" in seen.headers["user-agent"]]
