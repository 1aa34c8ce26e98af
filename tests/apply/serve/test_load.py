"""A chat request is timed as a client sees it, and a server that fails one is never counted as one that answers."""

import http.server
import json
import threading
import time

import pytest

from planner.apply.load import ChatClient, PromptMaker
from planner.errors import UnavailableError


def piece(**delta: str) -> str:
    """One chunk of a streamed answer."""
    return "data: " + json.dumps({"choices": [{"delta": delta, "finish_reason": None}]}) + "\n\n"


END = 'data: {"choices":[{"delta":{},"finish_reason":"length"}]}\n\ndata: [DONE]\n\n'
USAGE = 'data: {"choices":[],"usage":{"completion_tokens":7,"prompt_tokens":11}}\n\n'
HELLO = piece(role="assistant") + piece(content="Hel") + piece(content="lo")


@pytest.fixture
def stub():
    """A server that sends the given pieces, 50 ms apart, to every request; the bodies that it got are kept."""
    servers = []

    def start(*pieces: str, status: int = 200, cut: bool = False):
        bodies: list[dict] = []

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                bodies.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
                self.send_response(status)
                self.send_header("Transfer-Encoding", "chunked")
                self.end_headers()
                for text in pieces:
                    data = text.encode()
                    self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))
                    self.wfile.flush()
                    time.sleep(0.05)
                if not cut:
                    self.wfile.write(b"0\r\n\r\n")
                self.close_connection = True

            def log_message(self, *_: object) -> None:
                """Nothing."""

        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        servers.append(server)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        return f"http://127.0.0.1:{server.server_address[1]}", bodies

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def test_times_are_those_of_the_first_and_the_last_word(stub):
    """The role alone is no word; what the server counts is believed over what came in pieces."""
    url, bodies = stub(piece(role="assistant"), piece(content="a"), piece(reasoning_content="b"), END, USAGE)
    with ChatClient(url, model="m", kind="llama-server") as client:
        sample = client.chat("hi", tokens=7)
    assert 0.05 <= sample.first_token_s < 0.2
    assert 0.04 <= sample.total_s - sample.first_token_s < 0.15
    assert (sample.tokens, sample.prompt_tokens) == (7, 11)
    assert bodies[0]["stream"] is True
    assert bodies[0]["ignore_eos"] is True
    assert bodies[0]["cache_prompt"] is False


def test_a_server_that_counts_nothing_is_counted_by_pieces(stub):
    """And one that is not llama-server gets no extras of its protocol."""
    url, bodies = stub(HELLO, END)
    with ChatClient(url, model="m", kind=None) as client:
        sample = client.chat("hi", tokens=7)
    assert (sample.tokens, sample.prompt_tokens) == (2, None)
    assert not {"ignore_eos", "cache_prompt"} & set(bodies[0])


@pytest.mark.parametrize(
    ("pieces", "words"),
    [
        ((HELLO,), "cut off"),
        ((piece(role="assistant"), END), "empty"),
        ((HELLO, 'data: {"error": {"message": "out of slots"}}\n\n'), "out of slots"),
        ((HELLO, "data: {half\n\n"), "no JSON"),
    ],
)
def test_half_an_answer_is_a_failure(stub, pieces, words):
    """Whatever came before it went wrong."""
    url, _ = stub(*pieces)
    with ChatClient(url, model="m", kind=None) as client, pytest.raises(UnavailableError, match=words) as error:
        client.chat("hi", tokens=7)
    assert error.value.code == "server-failed"


def test_a_refusal_a_cut_connection_and_nobody_are_failures(stub):
    """Each with what the server said."""
    refusing, _ = stub('{"error": "no key"}', status=401)
    cutting, _ = stub(HELLO, cut=True)
    for url, words in ((refusing, "401.*no key"), (cutting, "."), ("http://127.0.0.1:9", "refused|connect")):
        with ChatClient(url, model="m", kind=None) as client, pytest.raises(UnavailableError, match=words):
            client.chat("hi", tokens=7)
    with ChatClient(refusing, model="m", kind=None) as client, pytest.raises(UnavailableError, match="401"):
        PromptMaker(client)


def test_requests_at_once_are_at_once(stub):
    """Four answers of 150 ms take less than two of them; one failure among them fails all."""
    url, bodies = stub(HELLO, END, USAGE)
    began = time.monotonic()
    with ChatClient(url, model="m", kind=None) as client:
        samples = client.together(["a", "b", "c", "d"], tokens=2)
    assert time.monotonic() - began < 0.45
    assert len(samples) == len(bodies) == 4
    failing, _ = stub(HELLO)
    with ChatClient(failing, model="m", kind=None) as client, pytest.raises(UnavailableError):
        client.together(["a", "b"], tokens=2)
