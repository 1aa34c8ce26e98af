"""A tiny model that can be served, a plan of it, and programs that serve it well or badly."""

import json
import os
import shutil
import stat
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

import msgspec
import psutil
import pytest

from planner import machine
from planner.apply.serve_place import free_port
from planner.engine.byte_vocabulary import with_byte_vocabulary
from planner.engine.phantom import write_phantom
from planner.gguf.ggml_types import tensor_bytes
from planner.render.llama_server import argv, environment
from planner.types.model import Layout, TensorSpec
from planner.types.plan import Candidate, Commands, DeviceMemory, Goal, Plan, Speed, Speeds
from planner.types.settings import Settings

HERE = Path(__file__).parent
MIB = 1 << 20
PATIENCE = {
    "deadline_s": 20.0, "grace_s": 3.0, "hang_s": 0.6, "poll_s": 0.02, "watch_s": 0.1, "restarts": 2, "backoff_s": 0.05,
}  # fmt: skip


def tiny_layout(layers: int = 2, width: int = 64, vocabulary: int = 512) -> Layout:
    """A Qwen3 of a few hundred kilobytes."""
    heads, head = 2, 32
    shape = {
        "attn_norm": (width,), "attn_q": (width, heads * head), "attn_k": (width, heads * head),
        "attn_v": (width, heads * head), "attn_q_norm": (head,), "attn_k_norm": (head,),
        "attn_output": (heads * head, width), "ffn_norm": (width,), "ffn_gate": (width, 2 * width),
        "ffn_up": (width, 2 * width), "ffn_down": (2 * width, width),
    }  # fmt: skip
    tensors = [TensorSpec(name="token_embd.weight", dims=(width, vocabulary), type="F16")]
    tensors += [
        TensorSpec(name=f"blk.{layer}.{name}.weight", dims=dims, type="F16" if len(dims) > 1 else "F32")
        for layer in range(layers)
        for name, dims in shape.items()
    ]
    tensors.append(TensorSpec(name="output_norm.weight", dims=(width,), type="F32"))
    numbers = {
        "context_length": 2048, "embedding_length": width, "block_count": layers, "feed_forward_length": 2 * width,
        "attention.head_count": heads, "attention.head_count_kv": heads, "attention.key_length": head,
        "attention.value_length": head,
    }  # fmt: skip
    metadata = {"general.architecture": "qwen3", **{f"qwen3.{key}": value for key, value in numbers.items()}}
    metadata["qwen3.attention.layer_norm_rms_epsilon"] = 1e-6
    return Layout(architecture="qwen3", metadata=metadata, tensors=tuple(tensors), layers=tuple(range(layers)))


@pytest.fixture(scope="session")
def tiny_weights(tmp_path_factory) -> Path:
    """The tiny model as a file, with random weights and a vocabulary of bytes."""
    path = tmp_path_factory.mktemp("weights") / "tiny.gguf"
    write_phantom(path, with_byte_vocabulary(tiny_layout()), random_seed=1)
    return path


@pytest.fixture(scope="session")
def this_machine():
    """The machine of the test, detected once."""
    return machine.detect(models_dir=Path("/"))


def a_speed(low: float, high: float, at: int = 0) -> Speed:
    """A speed with that interval."""
    return Speed(tokens_per_s=(low * high) ** 0.5, low=low, high=high, origin="predicted", at_context_tokens=at)


@pytest.fixture
def make_plan(tmp_path, this_machine):
    """Writes a plan of the tiny model: ``make_plan(parallel=2, speeds=…, total_bytes=…)`` gives its path."""

    def make(*, speeds: Speeds | None = None, total_bytes: int = 600 * MIB, context: int = 1024, **settings) -> Path:
        chosen_settings = Settings(
            context_tokens=context, load_mode="none", gpu_layers=0, threads=1, threads_batch=1, batch=256, ubatch=256,
            **settings,
        )  # fmt: skip
        weights = sum(tensor_bytes(each.type, each.dims) for each in tiny_layout().tensors)
        row = DeviceMemory(
            device="CPU", weights_bytes=weights, cache_bytes=MIB, compute_bytes=MIB,
            overhead_bytes=total_bytes - weights - 2 * MIB, total_bytes=total_bytes, available_bytes=8 << 30,
        )  # fmt: skip
        wide = a_speed(0.5, 1e6)
        chosen = Candidate(
            model="tiny", quantization="F16", settings=chosen_settings, file_bytes=weights, memory=(row,),
            speed=speeds or Speeds(generate=wide, prompt=wide, generate_at_depth=a_speed(0.5, 1e6, context // 2)),
            verdict="fits", score=1.0,
        )  # fmt: skip
        commands = Commands(
            llama_server=argv(chosen_settings, weights_file="tiny.gguf", offload=False),
            environment=environment(chosen_settings),
            llama_cpp_python="",
        )
        plan = Plan(
            created_at="2026-11-23T00:00:00+00:00", created_by="planner 0.1.0", goal=Goal(), machine=this_machine,
            engine_build="test", chosen=chosen, alternatives=(), rejected=(), measurements=(), commands=commands,
            reasons=(),
        )  # fmt: skip
        path = tmp_path / "plan.json"
        path.write_bytes(msgspec.json.encode(plan))
        return path

    return make


@pytest.fixture(autouse=True)
def own_folders(tmp_path, monkeypatch):
    """Cache and data of each test are its own, and nobody's service manager listens."""
    monkeypatch.setenv("PLANNER_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("PLANNER_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("PLANNER_LOCK_FILE", str(tmp_path / "measure.lock"))
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)


class Wayward(NamedTuple):
    """A misbehaving server: the program to name, and the file of the process numbers that it had."""

    program: Path
    state: Path

    @property
    def pids(self) -> list[int]:
        """The process numbers of all its starts."""
        return [int(word) for word in self.state.read_text().split()] if self.state.exists() else []


@pytest.fixture
def wayward(tmp_path):
    """Makes the program of one mode (see ``wayward.py``)."""

    def make(mode: str) -> Wayward:
        program, state = tmp_path / f"server-{mode.partition(':')[0]}", tmp_path / "starts"
        program.write_text(
            f"#!{sys.executable}\nimport runpy, sys\nsys.argv[1:1] = [{mode!r}, {str(state)!r}]\n"
            f"runpy.run_path({str(HERE / 'wayward.py')!r}, run_name='__main__')\n"
        )
        program.chmod(program.stat().st_mode | stat.S_IXUSR)
        return Wayward(program, state)

    return make


class Serving:
    """A started ``planner serve``: its notes as they come, its end."""

    def __init__(self, words: list[str], folder: Path, port: int, environment: dict[str, str]) -> None:
        self.port, self.url = port, f"http://127.0.0.1:{port}"
        self._err, self._out = folder / f"err-{port}", folder / f"out-{port}"
        with self._err.open("wb") as err, self._out.open("wb") as out:
            self.process = subprocess.Popen(words, stdout=out, stderr=err, env={**os.environ, **environment})

    @property
    def notes(self) -> str:
        """What it has said so far."""
        return self._err.read_text()

    def until(self, words: str, count: int = 1, seconds: float = 20.0) -> None:
        """Wait until it has said ``words`` so many times."""
        end = time.monotonic() + seconds
        while self.notes.count(words) < count:
            assert time.monotonic() < end, f"never said {words!r}: {self.notes}"
            assert self.process.poll() is None or self.notes.count(words) >= count, f"ended: {self.notes}"
            time.sleep(0.02)

    def end(self, number: int | None = None, seconds: float = 20.0) -> tuple[int, dict]:
        """Send a signal and wait: exit code and the document."""
        if number is not None:
            self.process.send_signal(number)
        code = self.process.wait(seconds)
        text = self._out.read_text()
        return code, json.loads(text) if text else {}


@pytest.fixture
def served(tmp_path, tiny_weights, make_plan):
    """Starts ``planner serve`` of the tiny plan with a program and little patience; ends what a test leaves."""
    running = []

    def start(program: Path | str, *, plan: Path | None = None, port: int | None = None, environment=None, **patience):
        port = port or free_port()
        words = [
            *(sys.executable, str(HERE / "serve_runner.py"), str(plan or make_plan()), str(tiny_weights)),
            *(str(program), str(port), str(tmp_path / "server.log"), json.dumps({**PATIENCE, **patience})),
        ]
        running.append(Serving(words, tmp_path, port, environment or {}))
        return running[-1]

    yield start
    for each in running:
        if each.process.poll() is None:
            each.process.kill()
            each.process.wait()


@pytest.fixture
def gone():
    """Whether a process is dead (a zombie is) within the time."""
    return _gone


def _gone(pid: int, seconds: float = 5.0) -> bool:
    end = time.monotonic() + seconds
    while True:
        try:
            if psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
                return True
        except psutil.NoSuchProcess:
            return True
        if time.monotonic() > end:
            return False
        time.sleep(0.02)


@pytest.fixture(params=["llama-cpp-python", "llama-server"])
def real_server(request) -> str:
    """Each real server by what ``--server`` takes; llama-server only where one is built."""
    if request.param == "llama-cpp-python":
        return request.param
    beside = Path(sys.executable).parent / "llama-server"
    found = os.environ.get("LLAMA_SERVER") or shutil.which("llama-server") or shutil.which(str(beside))
    if not found:
        pytest.skip("no llama-server here: make llama-server builds one, LLAMA_SERVER names one")
    return found
