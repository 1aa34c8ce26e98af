"""A real HTTP program that takes llama-server's words and misbehaves on purpose: ``PYTHON FILE MODE STATE … --port N``.

MODE is one word: ``good``, ``loading`` (503 for ever), ``silent`` (never listens), ``dies`` (exit 3 with last words),
``crashes:N`` (aborts after the first answer, N times in all), ``deaf`` (ignores SIGTERM), ``parent`` (has a child),
``busy`` (computes and answers nothing after the first question), ``chatty`` (prints without end), ``late:S``.
"""

import http.server
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path


def main() -> None:
    """Listen as told, and go wrong as told."""
    mode, _, detail = sys.argv[1].partition(":")
    state = Path(sys.argv[2])
    with state.open("a", encoding="utf-8") as file:
        file.write(f"{os.getpid()}\n")
    starts = len(state.read_text(encoding="utf-8").split())
    _before_listening(mode, detail, state)
    listen(mode, crashes=mode == "crashes" and starts <= int(detail), port=int(sys.argv[sys.argv.index("--port") + 1]))


def _before_listening(mode: str, detail: str, state: Path) -> None:
    if mode == "dies":
        sys.exit("the model is made of cheese")
    if mode == "silent":
        time.sleep(600)
    if mode == "deaf":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if mode == "late":
        time.sleep(float(detail))
    if mode == "parent":
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
        state.write_text(f"{os.getpid()}\n{child.pid}\n", encoding="utf-8")
    if mode == "chatty":
        threading.Thread(target=_talk, daemon=True).start()


def listen(mode: str, *, crashes: bool, port: int) -> None:
    """Answer every question with what this process was given."""
    answered = threading.Event()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            while mode == "busy" and answered.is_set():
                pass
            body = json.dumps({"environment": dict(os.environ), "argv": sys.argv}).encode()
            self.send_response(503 if mode == "loading" else 200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)
            self.wfile.flush()
            answered.set()
            if crashes:
                threading.Timer(0.2, os.abort).start()

    http.server.ThreadingHTTPServer.allow_reuse_address = True
    with http.server.ThreadingHTTPServer(("127.0.0.1", port), Handler) as server:
        server.daemon_threads = True
        server.serve_forever()


def _talk() -> None:
    while True:
        sys.stdout.write("words " * 100 + "\n")


if __name__ == "__main__":
    main()
