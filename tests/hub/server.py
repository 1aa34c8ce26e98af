"""A server that speaks as Hugging Face and ModelScope do, a content server beside it, and faults on order.

Nothing of a file but its header is stored: what lies behind it is zeros, made when they are asked for; where bytes must
not be mistaken for one another, a file brings a body of its own.
"""

import hashlib
import json
import random
import struct
import sys
import threading
import time
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit

COMMIT = "0123456789abcdef0123456789abcdef01234567"
CHUNK = 1 << 16


def gguf(*, tokens=0, merges=0, data_bytes=4096, split=None, template=None) -> tuple[bytes, int]:
    """The header of a small qwen3 with a vocabulary of any size, and the size of the file it would stand in."""
    keys = [
        _pair("general.architecture", _text("qwen3"), 8),
        _pair("qwen3.block_count", struct.pack("<I", 1), 4),
        _pair("qwen3.context_length", struct.pack("<I", 4096), 4),
        _pair("qwen3.embedding_length", struct.pack("<I", 64), 4),
    ]
    if split is not None:
        part, parts = split
        keys += [
            _pair("split.no", struct.pack("<H", part), 2),
            _pair("split.count", struct.pack("<H", parts), 2),
            _pair("split.tensors.count", struct.pack("<i", parts), 5),
        ]
    if template is not None:
        keys.append(_pair("tokenizer.chat_template", _text(template), 8))
    if tokens:
        keys.append(_strings("tokenizer.ggml.tokens", (b"t%07d" % number for number in range(tokens)), tokens))
        types = struct.pack("<IQ", 5, tokens) + b"\1\0\0\0" * tokens
        keys.append(_pair("tokenizer.ggml.token_type", types, 9))
        keys.append(_pair("tokenizer.ggml.scores", struct.pack("<IQ", 6, tokens) + bytes(4 * tokens), 9))
    if merges:
        keys.append(_strings("tokenizer.ggml.merges", (b"m%04d %06d" % (n % 9999, n) for n in range(merges)), merges))
    row = _text("blk.0.attn_norm.weight") + struct.pack("<IQIQ", 1, data_bytes // 4, 0, 0)
    header = b"GGUF" + struct.pack("<IQQ", 3, 1, len(keys)) + b"".join(keys) + row
    return header, len(header) + -len(header) % 32 + data_bytes


def _text(value: str) -> bytes:
    return struct.pack("<Q", len(value)) + value.encode()


def _pair(key: str, value: bytes, kind: int) -> bytes:
    return _text(key) + struct.pack("<I", kind) + value


def _strings(key: str, values, count: int) -> bytes:
    body = b"".join(struct.pack("<Q", len(value)) + value for value in values)
    return _pair(key, struct.pack("<IQ", 8, count) + body, 9)


@dataclass
class Blob:
    """A file: its header, its size, and what the servers say about it."""

    head: bytes
    size: int
    sha256: str = "a" * 64
    etag: str = '"cdn-1"'
    body: bytes | None = None

    def read(self, start: int, end: int) -> bytes:
        """The bytes from ``start`` up to ``end``."""
        if self.body is not None:
            return self.body[start:end]
        taken = self.head[start:end]
        return taken + bytes(max(0, min(end, self.size) - start - len(taken)))


def whole(*, seed=0, **how) -> Blob:
    """A file with a body of its own, no two bytes alike for long, and its true hash."""
    head, size = gguf(**how)
    body = head + random.Random(seed).randbytes(size - len(head))  # noqa: S311 - the same each time, nothing secret
    return Blob(head, size, hashlib.sha256(body).hexdigest(), body=body)


@dataclass
class Fault:
    """What goes wrong with the next answers of one kind: ``api``, ``head``, ``resolve`` or ``content``."""

    kind: str
    times: int = 1
    after: int = 0
    status: int | None = None
    headers: dict = field(default_factory=dict)
    body: bytes | None = None
    cut_at: int | None = None
    drip_s: float | None = None
    drip_after: int | None = None
    pause_s: float | None = None
    drip_head_s: float | None = None
    ignore_range: bool = False
    total: int | None = None
    etag: str | None = None
    shift: int = 0
    short: int | None = None
    location: str | None = None
    flip_at: int | None = None
    commit: str | None = None


@dataclass
class Seen:
    """One request as it arrived, and how many bytes of a body were written in answer."""

    kind: str
    path: str
    headers: dict
    sent: int = 0


class Hub:
    """Both servers; ``seen`` is the log, ``faults`` what goes wrong."""

    def __init__(self) -> None:
        self.repos: dict[str, dict[str, Blob]] = {}
        self.gated: set[str] = set()
        self.token: str | None = None
        self.tags = ["license:apache-2.0", "base_model:Qwen/Qwen3-8B", "base_model:quantized:Qwen/Qwen3-8B"]
        self.seen: list[Seen] = []
        self.faults: list[Fault] = []
        self.lock = threading.Lock()
        self.stopping = threading.Event()
        self._servers = [self._start("hub"), self._start("content")]
        self.endpoint, self.content = (f"http://127.0.0.1:{server.server_port}" for server in self._servers)

    def _start(self, role: str) -> ThreadingHTTPServer:
        handler = type("Handler", (_Handler,), {"hub": self, "role": role})
        server = _Server(("127.0.0.1", 0), handler)
        server.daemon_threads = True
        server.block_on_close = False
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return server

    def stop(self) -> None:
        """Close both."""
        self.stopping.set()
        for server in self._servers:
            server.shutdown()
            server.server_close()

    def fail(self, kind: str, **how) -> None:
        """Order a fault."""
        self.faults.append(Fault(kind, **how))

    def take(self, kind: str) -> Fault:
        """The fault for this answer, an empty one when none was ordered."""
        with self.lock:
            for fault in self.faults:
                if fault.kind == kind and fault.times > 0:
                    if fault.after > 0:
                        fault.after -= 1
                        continue
                    fault.times -= 1
                    return fault
        return Fault(kind)

    def of(self, *kinds: str) -> list[Seen]:
        """The requests of these kinds."""
        return [seen for seen in self.seen if seen.kind in kinds]


class _Server(ThreadingHTTPServer):
    """A server to which a client that hangs up is no event: half of the faults end that way, some after their test."""

    def handle_error(self, request, client_address) -> None:  # noqa: ARG002 - socketserver's signature
        error = sys.exc_info()[1]
        if not isinstance(error, OSError):
            raise error  # a fault of the server itself fails the test that is running


class _Handler(BaseHTTPRequestHandler):
    hub: Hub
    role: str
    protocol_version = "HTTP/1.1"

    def log_message(self, *words) -> None:
        pass

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        address = urlsplit(self.path)
        path = unquote(address.path)
        kind = "content" if self.role == "content" else "resolve" if _is_file(path) else "api"
        kind = "head" if self.command == "HEAD" and kind == "resolve" else kind
        self.note = Seen(kind, self.path, {name.lower(): value for name, value in self.headers.items()})
        with self.hub.lock:
            self.hub.seen.append(self.note)
        fault = self.hub.take(kind)
        try:
            self._answer(kind, path, parse_qs(address.query), fault)
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True

    def _answer(self, kind: str, path: str, query: dict, fault: Fault) -> None:
        if fault.location is not None:
            self._plain(302, {"Location": fault.location, **fault.headers})
        elif fault.status is not None:
            self._plain(fault.status, fault.headers, fault.body or b"{}", fault)
        elif fault.body is not None:
            self._plain(200, fault.headers, fault.body, fault)
        elif kind == "content":
            self._content(path, fault)
        elif kind in {"head", "resolve"}:
            self._resolve(path, query, fault)
        else:
            self._listing(path, fault)

    def _refused(self, repo: str) -> bool:
        hub = self.hub
        offered = self.headers.get("authorization")
        allowed = hub.token is not None and offered == f"Bearer {hub.token}"
        if repo not in hub.repos:
            self._plain(404, {"X-Error-Code": "RepoNotFound"})
        elif repo in hub.gated and not allowed:
            self._plain(401 if offered is None else 403, {"X-Error-Code": "GatedRepo"})
        else:
            return False
        return True

    def _listing(self, path: str, fault: Fault) -> None:
        words = path.strip("/").split("/")
        modelscope = words[1] == "v1"
        repo = "/".join(words[3:5] if modelscope else words[2:4])
        if repo not in self.hub.repos:
            self._plain(404, {"X-Error-Code": "RepoNotFound"})
            return
        files = self.hub.repos[repo].items()
        if not modelscope:
            document = {
                "id": repo,
                "sha": COMMIT,
                "gated": "manual" if repo in self.hub.gated else False,
                "private": False,
                "tags": self.hub.tags,
                "siblings": [{"rfilename": "README.md", "size": 3}] + [_sibling(name, blob) for name, blob in files],
            }
        elif path.endswith("/repo/files"):
            rows = [{"Path": n, "Type": "blob", "Size": b.size, "Sha256": b.sha256, "IsLFS": True} for n, b in files]
            document = {"Code": 200, "Data": {"Files": rows, "LatestCommitter": {"Id": COMMIT}}, "Success": True}
        else:
            facts = {"License": "Apache License 2.0", "Tags": ["gguf"], "BaseModel": ["Qwen/Qwen3-8B"]}
            document = {"Code": 200, "Data": facts, "Success": True}
        self._plain(200, {"Content-Type": "application/json"}, json.dumps(document).encode(), fault)

    def _resolve(self, path: str, query: dict, fault: Fault) -> None:
        words = path.strip("/").split("/")
        if words[0] == "api":
            repo, name = "/".join(words[3:5]), query.get("FilePath", [""])[0]
        else:
            repo, name = "/".join(words[:2]), "/".join(words[4:])
        if self._refused(repo):
            return
        blob = self.hub.repos[repo].get(name)
        if blob is None:
            self._plain(404, {"X-Error-Code": "EntryNotFound"})
            return
        commit = fault.commit or COMMIT
        headers = {"X-Linked-Etag": f'"{blob.sha256}"', "X-Linked-Size": str(blob.size), "X-Repo-Commit": commit}
        if words[0] != "api":  # as for every large file there; a client that follows it finds no such service here
            headers |= {"X-Xet-Hash": blob.sha256[::-1], "Link": f'<{self.hub.endpoint}/xet>; rel="xet-auth"'}
        signed = f"{self.hub.content}/{repo}/{name}?X-Signature=of-the-content-server"
        self._plain(302, {**headers, "Location": signed, **fault.headers})

    def _content(self, path: str, fault: Fault) -> None:
        repo, _, name = path.strip("/").partition("/")
        owner, repo = repo, name.split("/")[0]
        blob = self.hub.repos.get(f"{owner}/{repo}", {}).get(name.partition("/")[2])
        if blob is None:
            self._plain(404, {})
            return
        etag = fault.etag or blob.etag
        asked = None if fault.ignore_range else self.headers.get("range")
        if self.headers.get("if-range") not in {None, etag}:
            asked = None
        start, end, status = 0, blob.size, 200
        if asked is not None:
            first, _, last = asked.removeprefix("bytes=").partition("-")
            start, end, status = int(first), min(int(last) + 1, blob.size) if last else blob.size, 206
            if start >= blob.size:
                self._plain(416, {"Content-Range": f"bytes */{blob.size}"})
                return
            end = end if fault.short is None else min(end, start + fault.short)
        headers = {"ETag": etag, "Accept-Ranges": "bytes", **fault.headers}
        if status == 206:
            total = fault.total or blob.size
            headers["Content-Range"] = f"bytes {start + fault.shift}-{end - 1 + fault.shift}/{total}"
        self.send_response(status)
        length = fault.total if fault.total and status == 200 else end - start
        for name_, value in {**headers, "Content-Length": str(length)}.items():
            self.send_header(name_, value)
        self._end(fault)
        self._send(blob.read, start, end, fault)

    def _end(self, fault: Fault) -> None:
        if fault.drip_head_s is not None:
            for _ in range(1000):
                if self.hub.stopping.wait(fault.drip_head_s):
                    break
                self.wfile.write(b"X-Drop: 1\r\n")
        self.end_headers()

    def _send(self, read, start: int, end: int, fault: Fault) -> None:
        while start < end:
            late = fault.drip_after is not None and self.note.sent >= fault.drip_after
            if late and self.hub.stopping.wait(0.05):
                return
            if fault.pause_s is not None and self.hub.stopping.wait(fault.pause_s):
                return
            size = 1 if fault.drip_s is not None or late else CHUNK
            if fault.cut_at is not None:
                size = min(size, fault.cut_at - self.note.sent)
            data = read(start, min(end, start + size))
            if fault.flip_at is not None and start <= fault.flip_at < start + len(data):
                at = fault.flip_at - start
                data = data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]
            self.wfile.write(data)
            self.note.sent += len(data)
            start += len(data)
            if fault.cut_at is not None and self.note.sent >= fault.cut_at:
                self.close_connection = True
                self.connection.shutdown(2)
                return
            if fault.drip_s is not None and self.hub.stopping.wait(fault.drip_s):
                return

    def _plain(self, status: int, headers: dict, body: bytes = b"", fault: Fault | None = None) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "HEAD":
            return
        self._send(lambda start, end: body[start:end], 0, len(body), fault or Fault("none"))


def _sibling(name: str, blob: Blob) -> dict:
    lfs = {"sha256": blob.sha256, "size": blob.size, "pointerSize": 134}
    return {"rfilename": name, "size": blob.size, "blobId": "b" * 40, "lfs": lfs}


def _is_file(path: str) -> bool:
    return "/resolve/" in path or (path.startswith("/api/v1/") and path.endswith("/repo"))


def wait_until(true, seconds: float = 5.0) -> bool:
    """Whether something became true in time."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if true():
            return True
        time.sleep(0.01)
    return bool(true())
