"""Every way in which native code has been seen to end a process, each done for real."""

from __future__ import annotations

import ctypes
import json
import mmap
import os
import platform
import resource
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

__all__ = [
    "abort",
    "allocate",
    "answer_twice",
    "bad_number",
    "bus_error",
    "close_pipe",
    "die_slowly",
    "divide_by_zero",
    "emit_and_answer",
    "emit_for_ever",
    "environment",
    "exit_quietly",
    "exit_with",
    "file_exists",
    "flood",
    "garbage",
    "grandchild",
    "half_a_line",
    "hang",
    "hold_the_interpreter",
    "illegal_instruction",
    "kill_self",
    "load_model",
    "print_to_stdout",
    "raise_python_error",
    "refuse",
    "segmentation_fault",
    "start_and_report",
    "status",
    "stop_politely",
    "too_long",
    "wrong_id",
]


def _reply_descriptor() -> int:
    return int(sys.argv[1])


def _write_reply(text: bytes) -> None:
    while text:
        text = text[os.write(_reply_descriptor(), text) :]


def abort(args: dict, _emit) -> dict:
    """What GGML_ASSERT does: a line on stderr, then the abort."""
    sys.stderr.write(args.get("words", "") + "\n")
    sys.stderr.flush()
    os.abort()


def allocate(_args: dict, _emit) -> dict:
    """Touch memory until the kernel objects."""
    kept = []
    while True:
        kept.append(bytearray(b"x" * 2**20))


def bad_number(_args: dict, _emit) -> dict:
    """A value that is no JSON."""
    return {"value": float("nan")}


def bus_error(_args: dict, _emit) -> dict:
    """Read a mapped file that was truncated behind our back."""
    with tempfile.TemporaryFile() as file:
        file.truncate(1 << 20)
        view = mmap.mmap(file.fileno(), 1 << 20, mmap.MAP_PRIVATE, mmap.PROT_READ)
        file.truncate(0)
        return {"byte": view[4096]}


def close_pipe(_args: dict, _emit) -> dict:
    """Close the reply pipe and live on."""
    os.close(_reply_descriptor())
    time.sleep(60)
    return {}


def die_slowly(_args: dict, _emit) -> dict:
    """Close the pipe as a dying process does, and be dead of SIGABRT only when somebody insists."""
    signal.signal(signal.SIGTERM, lambda *_: os.abort())
    os.close(_reply_descriptor())
    while True:
        time.sleep(60)


def divide_by_zero(_args: dict, _emit) -> dict:
    """SIGFPE; by hand, because ARM divides by zero without complaint."""
    os.kill(os.getpid(), signal.SIGFPE)
    return {}


def answer_twice(_args: dict, _emit) -> dict:
    """Leave a stray line in the pipe, where the next question would take it for its answer."""
    _write_reply(b'{"id":1,"ok":{"first":true}}\n')
    return {"first": False}


def emit_and_answer(args: dict, emit) -> dict:
    """Some events, then a result."""
    for step in range(args["events"]):
        emit({"step": step})
    return {"done": True}


def emit_for_ever(_args: dict, emit) -> dict:
    """Progress without an end."""
    while True:
        emit({"still": "at it"})


def environment(_args: dict, _emit) -> dict:
    """What the worker sees of the environment."""
    return dict(os.environ)


def exit_quietly(_args: dict, _emit) -> dict:
    """End with status 0 and no reply."""
    os._exit(0)


def exit_with(args: dict, _emit) -> dict:
    """End with a status and a word."""
    sys.stderr.write("cannot open shared object\n")
    sys.stderr.flush()
    os._exit(args["status"])


def file_exists(args: dict, _emit) -> dict:
    """Whether a path leads somewhere from here."""
    return {"exists": Path(args["path"]).exists()}


def flood(args: dict, _emit) -> dict:
    """Write megabytes to stdout and stderr, then answer or abort."""
    block = (b"noise " * 200)[:1023] + b"\n"
    for _ in range(args["mib"] * 512):
        os.write(1, block)
        os.write(2, block)
    if args.get("then") == "abort":
        os.write(2, b"/src/ggml.c:12: GGML_ASSERT(after the flood) failed\n")
        os.abort()
    return {"written_mib": args["mib"]}


def garbage(_args: dict, _emit) -> dict:
    """A line that is no JSON."""
    _write_reply(b"llama_model_loader: loaded\n")
    time.sleep(60)
    return {}


def grandchild(args: dict, _emit) -> dict:
    """Fork a process that holds every pipe open, then end as told."""
    if os.fork() == 0:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        time.sleep(60)
        os._exit(0)
    if args["then"] == "abort":
        os.abort()
    if args["then"] == "exit":
        os._exit(0)
    time.sleep(60)
    return {}


def half_a_line(args: dict, _emit) -> dict:
    """Begin a reply and never end it."""
    _write_reply(b'{"id": 1, "ok": {"val')
    if args["then"] == "exit":
        os._exit(0)
    time.sleep(60)
    return {}


def hang(args: dict, emit) -> dict:
    """Sleep for ever, deaf to SIGTERM if so told."""
    if args.get("deaf"):
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    emit({"hanging": os.getpid()})
    while True:
        time.sleep(60)


def hold_the_interpreter(_args: dict, emit) -> dict:
    """Hang in native code without giving the interpreter's lock back."""
    emit({"stuck": os.getpid()})
    ctypes.PyDLL(None).sleep(60)
    return {}


def illegal_instruction(_args: dict, _emit) -> dict:
    """Execute the instruction that every CPU defines as undefined."""
    undefined = {"x86_64": b"\x0f\x0b", "aarch64": b"\x00\x00\x00\x00", "arm64": b"\x00\x00\x00\x00"}
    code = undefined.get(platform.machine())
    if code is None:
        os.kill(os.getpid(), signal.SIGILL)
        return {}
    page = mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    page.write(code)
    address = ctypes.addressof(ctypes.c_char.from_buffer(page))
    ctypes.CFUNCTYPE(None)(address)()
    return {}


def kill_self(args: dict, _emit) -> dict:
    """What somebody with kill(1) does."""
    os.kill(os.getpid(), args["signal"])
    time.sleep(60)
    return {}


def load_model(args: dict, _emit) -> dict:
    """Have the real engine load a model file."""
    import llama_cpp

    llama_cpp.llama_backend_init()
    model = llama_cpp.llama_model_load_from_file(args["path"].encode(), llama_cpp.llama_model_default_params())
    return {"loaded": bool(model)}


def print_to_stdout(_args: dict, _emit) -> dict:
    """What ggml does with backtraces: native output on stdout, made to look like a reply."""
    ctypes.CDLL(None).puts(b'{"id":1,"ok":{"from":"stdout"}}')
    ctypes.CDLL(None).fflush(None)
    return {"from": "reply"}


def raise_python_error(_args: dict, _emit) -> dict:
    """A bug in an operation."""
    return {"value": {}["absent"]}


def refuse(args: dict, _emit) -> dict:
    """What an operation raises when the engine says no."""
    import errors

    raise getattr(errors, args["kind"])(args["message"])


def segmentation_fault(_args: dict, _emit) -> dict:
    """Follow a null pointer."""
    return {"text": ctypes.string_at(0)}


def start_and_report(args: dict, emit) -> dict:
    """Start a process in our group and answer while it runs."""
    process = subprocess.Popen(["sleep", "60"])  # noqa: S607 - any sleep will do
    emit({"pid": process.pid})
    time.sleep(args.get("then_sleep_s", 0))
    return {"pid": process.pid}


def status(_args: dict, _emit) -> dict:
    """What the worker made of itself."""
    return {
        "pid": os.getpid(),
        "group": os.getpgid(0),
        "session": os.getsid(0),
        "core_limits": resource.getrlimit(resource.RLIMIT_CORE),
        "same_stdout_and_stderr": os.fstat(1).st_ino == os.fstat(2).st_ino,
        "stdin": os.read(0, 10).decode(),
        "interrupt_ignored": signal.getsignal(signal.SIGINT) == signal.SIG_IGN,
        "path_0": sys.path[0],
        "working_directory_on_path": "" in sys.path or str(Path.cwd()) in sys.path,
        "oom_score_adj": _read("/proc/self/oom_score_adj"),
        "inheritable_descriptors": [fd for fd in _descriptors() if fd > 2 and os.get_inheritable(fd)],
    }


def stop_politely(_args: dict, _emit) -> dict:
    """Stop, as a debugger or a job control signal does."""
    os.kill(os.getpid(), signal.SIGSTOP)
    return {}


def too_long(args: dict, _emit) -> dict:
    """A reply without an end."""
    block = b"x" * 2**20
    for _ in range(args["mib"]):
        _write_reply(block)
    time.sleep(60)
    return {}


def wrong_id(_args: dict, _emit) -> dict:
    """An answer to another question."""
    _write_reply(json.dumps({"id": 4711, "ok": {}}).encode() + b"\n")
    time.sleep(60)
    return {}


def _read(path: str) -> str | None:
    try:
        return Path(path).read_text("ascii").strip()
    except OSError:
        return None


def _descriptors() -> list[int]:
    found = []
    for fd in range(64):
        try:
            os.fstat(fd)
        except OSError:
            continue
        found.append(fd)
    return found
