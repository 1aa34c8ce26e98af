"""What a real llama-server takes beside the engine's buffers, against :mod:`planner.estimate.server` and ``projector``.

``python bench/server_memory.py --server PATH/llama-server`` runs small models with random weights (a few full-size
layers, a vocabulary of 512), sends conversations by token number until saved prompts and checkpoints are at their
limits, and records: sizes that the server logs for a state and a checkpoint, against those foretold from the engine's
lines; growth of its resident memory (PSS) against the same requests with both off; and the peak over the largest
picture of a projector. The server must be of the same llama.cpp as the installed binding.

Refuted (exit 1) where a size is 0.5 % off, or where more is held than was promised.
"""

import argparse
import base64
import json
import os
import platform
import random
import re
import socket
import subprocess
import tempfile
import threading
import time
import urllib.error
import urllib.request
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import msgspec

from planner.catalogue import load
from planner.engine.answers import Buffers
from planner.engine.child import EngineChild
from planner.engine.phantom import write_phantom
from planner.engine.projector import ProjectorSettings, ask_projector
from planner.estimate.projector import projector_memory
from planner.estimate.server import SequenceState, sequence_state, server_extras
from planner.types.metadata import GgufValue
from planner.types.model import Layout, TensorSpec

RESULTS = Path(__file__).parent / "results" / "server_memory.json"
MIB = 1 << 20
VOCABULARY = 512
CONTEXT, SLOTS, UBATCH = 2048, 2, 16
CHECKPOINTS, CONVERSATIONS = 8, 6
IMAGE_MAX_TOKENS = {"qwen25_vl": 2500}  # its masks for the largest picture, 4096 tokens, take 3 GiB in all


class Case(NamedTuple):
    """A model, its conversations, and the limit that their saved states reach."""

    layout: Callable[[], Layout]
    turns: int
    turn_tokens: int
    cache_ram_mib: int
    window_tokens: int | None = None


def small(name: str, layers: int) -> Layout:
    """A model of the catalogue cut to ``layers``."""
    catalogue = load()
    return with_vocabulary(catalogue.layout(catalogue.model(name), layers))


def with_vocabulary(layout: Layout) -> Layout:
    """``layout`` with a vocabulary of bytes and fillers that a server can load."""
    metadata = {key: value for key, value in layout.metadata.items() if not key.startswith("tokenizer.")}
    words = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    words += [f"filler{number}" for number in range(VOCABULARY - len(words))]
    kinds = [2, 3, 3, *[6] * 256, *[1] * (VOCABULARY - 259)]  # unknown, control, byte, normal
    metadata |= {
        f"{layout.architecture}.vocab_size": VOCABULARY,
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.tokens": GgufValue(type="[str]", value=tuple(words)),
        "tokenizer.ggml.scores": GgufValue(type="[f32]", value=(0.0,) * VOCABULARY),
        "tokenizer.ggml.token_type": GgufValue(type="[i32]", value=tuple(kinds)),
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
        "tokenizer.chat_template": "{% for message in messages %}{{ message.content }}{% endfor %}",
    }
    heads = {"token_embd.weight", "output.weight"}
    tensors = tuple(
        TensorSpec(
            name=each.name,
            dims=(each.dims[0], VOCABULARY) if each.name in heads else each.dims,
            type="F16" if each.type == "BF16" else each.type,
        )
        for each in layout.tensors
    )
    return msgspec.structs.replace(layout, metadata=metadata, tensors=tensors)


def window(layers: int = 6, width: int = 256, heads: int = 8, head: int = 256) -> Layout:
    """A Gemma 3 of few and narrow layers, five of six with a window of 256 tokens, and a large cache for its size."""
    inner, whole = 4 * width, heads * head
    tensors = [TensorSpec(name="token_embd.weight", dims=(width, VOCABULARY), type="F16")]
    for layer in range(layers):
        sizes = {
            "attn_norm": (width,), "attn_q": (width, whole), "attn_k": (width, whole), "attn_v": (width, whole),
            "attn_q_norm": (head,), "attn_k_norm": (head,), "attn_output": (whole, width),
            "post_attention_norm": (width,), "ffn_norm": (width,), "ffn_gate": (width, inner),
            "ffn_up": (width, inner), "ffn_down": (inner, width), "post_ffw_norm": (width,),
        }  # fmt: skip
        tensors += [
            TensorSpec(name=f"blk.{layer}.{name}.weight", dims=dims, type="F16" if len(dims) > 1 else "F32")
            for name, dims in sizes.items()
        ]
    tensors.append(TensorSpec(name="output_norm.weight", dims=(width,), type="F32"))
    numbers = {
        "context_length": CONTEXT, "embedding_length": width, "block_count": layers, "feed_forward_length": inner,
        "attention.head_count": heads, "attention.head_count_kv": heads, "attention.key_length": head,
        "attention.value_length": head, "attention.sliding_window": 256,
    }  # fmt: skip
    metadata = {"general.architecture": "gemma3", **{f"gemma3.{key}": value for key, value in numbers.items()}}
    metadata["gemma3.attention.layer_norm_rms_epsilon"] = 1e-6
    whole_layout = Layout(architecture="gemma3", metadata=metadata, tensors=tuple(tensors), layers=tuple(range(layers)))
    return with_vocabulary(whole_layout)


MODELS = {
    "hybrid (4 layers of qwen3.5-0.8b)": Case(lambda: small("qwen3.5-0.8b", 4), 4, 40, 60),
    "attention (4 layers of qwen3-0.6b)": Case(lambda: small("qwen3-0.6b", 4), 1, 500, 16),
    "window (gemma3, 6 layers)": Case(window, 4, 80, 240, window_tokens=256),
}


class Server:
    """A running llama-server: its answers, its log, and the most that it held."""

    def __init__(self, process: subprocess.Popen[str], port: int) -> None:
        self.process, self.port = process, port
        self.log: list[str] = []
        self.peak_bytes = 0
        self._quiet = threading.Event()
        threading.Thread(target=self._read, daemon=True).start()
        self._watcher = threading.Thread(target=self._watch, daemon=True)

    def ask(self, path: str, body: object = None) -> dict:
        """The JSON answer of one request."""
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}{path}", data=data, headers={"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=600) as answer:  # noqa: S310
            return json.load(answer)

    def wait(self) -> None:
        """Until it is ready."""
        for _ in range(600):
            if self.process.poll() is not None:
                raise SystemExit("".join(self.log[-30:]))
            try:
                self.ask("/health")
            except (urllib.error.URLError, OSError):
                time.sleep(0.1)
            else:
                self._watcher.start()
                return
        raise SystemExit("llama-server does not come up")

    def held_bytes(self) -> int:
        """Its proportional resident memory now."""
        text = Path(f"/proc/{self.process.pid}/smaps_rollup").read_text(encoding="ascii")
        return int(re.search(r"Pss: +(\d+)", text)[1]) * 1024

    def stop(self) -> None:
        """End it, and the watching."""
        self._quiet.set()
        self._watcher.join()
        self.process.terminate()
        self.process.wait()

    def _read(self) -> None:
        for line in self.process.stdout:
            self.log.append(line)

    def _watch(self) -> None:
        while not self._quiet.wait(0.1):
            try:
                self.peak_bytes = max(self.peak_bytes, self.held_bytes())
            except (OSError, TypeError):
                return


@contextmanager
def serving(program: Path, model: Path, *flags: str, context: int = CONTEXT, ubatch: int = UBATCH) -> Iterator[Server]:
    """A server of ``model`` with ``flags``."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [
        str(program), "-m", str(model), "-c", str(context), "-ub", str(ubatch), "-b", str(ubatch), "-t", "1",
        "--port", str(port), "-fit", "off", "-lv", "4", "--no-warmup", *flags,
    ]  # fmt: skip
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    server = Server(process, port)
    try:
        server.wait()
        yield server
    finally:
        if process.poll() is None:
            server.stop()


def converse(server: Server, case: Case) -> None:
    """Long conversations in turns, one after the other in every slot: checkpoints fill up, then saved prompts."""
    words = random.Random(20261122)  # noqa: S311 - a test's conversation
    for number in range(CONVERSATIONS):
        prompt = [1]
        for _ in range(case.turns):
            prompt += [words.randrange(3, VOCABULARY) for _ in range(case.turn_tokens)]
            body = {"prompt": prompt, "n_predict": 4, "id_slot": number % SLOTS, "cache_prompt": True, "temperature": 0}
            prompt += server.ask("/completion", {**body, "return_tokens": True})["tokens"]


def sizes(log: list[str], pattern: str) -> list[float]:
    """MiB in the lines that match."""
    return [float(match[1]) for line in log if (match := re.search(pattern, line))]


def measure(program: Path, name: str, child: EngineChild, folder: Path) -> dict:
    """One model: with and without the extras, under the same requests."""
    case = MODELS[name]
    path = folder / "model.gguf"
    write_phantom(path, case.layout(), random_seed=1)
    settings = {"context_tokens": CONTEXT, "parallel": SLOTS, "ubatch": UBATCH, "batch": UBATCH}
    told = child.ask("buffers", {"path": str(path), "settings": [settings], "devices": []})
    state = sequence_state(msgspec.convert(told["answers"], list[Buffers])[0].log, window_tokens=case.window_tokens)
    extras = server_extras(state, slots=SLOTS, cache_ram_mib=case.cache_ram_mib, checkpoints=CHECKPOINTS)
    shared = ("-np", str(SLOTS), "--no-kv-unified")
    with serving(program, path, *shared, "--cache-ram", "0", "--ctx-checkpoints", "0") as plain:
        converse(plain, case)
        without = max(plain.peak_bytes, plain.held_bytes())
    flags = ("--cache-ram", str(case.cache_ram_mib), "--ctx-checkpoints", str(CHECKPOINTS))
    with serving(program, path, *shared, *flags) as full:
        converse(full, case)
        held = max(full.peak_bytes, full.held_bytes())
        log = list(full.log)
    checkpoints = sizes(log, r"created context checkpoint .* size = ([\d.]+) MiB")
    states = sizes(log, r"total state size = ([\d.]+) MiB")
    cached = sizes(log, r"cache state: \d+ prompts, ([\d.]+) MiB")
    saved = max(
        (int(match[1]) for line in log if (match := re.search(r"saving prompt with length (\d+)", line))), default=0
    )
    return {
        "model": name,
        "checkpoint_mib": {
            "foretold": round(extras.checkpoint_bytes / MIB, 3),
            "logged": max(checkpoints, default=0.0),
        },
        "state_mib": {"foretold": _state_mib(state, saved), "logged": max(states, default=0.0), "tokens": saved},
        "prompt_cache_mib": {"limit": case.cache_ram_mib, "logged_most": max(cached, default=0.0)},
        "checkpoints_made": len(checkpoints),
        "growth_mib": {"promised": round(extras.peak_bytes / MIB, 1), "measured": round((held - without) / MIB, 1)},
    }


def _state_mib(state: SequenceState, tokens: int) -> float:
    """A saved state of ``tokens``, of the foretold state of a full sequence."""
    fixed = state.window_bytes + state.recurrent_bytes
    return round((state.whole_bytes * tokens / (CONTEXT // SLOTS) + fixed) / MIB, 3)


def picture(width: int, height: int, shade: int) -> str:
    """A PNG of one shade as a data address."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return len(data).to_bytes(4) + kind + data + zlib.crc32(kind + data).to_bytes(4)

    head = width.to_bytes(4) + height.to_bytes(4) + bytes((8, 2, 0, 0, 0))
    rows = zlib.compress((b"\0" + bytes((shade,)) * 3 * width) * height)
    png = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")
    return "data:image/png;base64," + base64.b64encode(png).decode()


def measure_projector(
    program: Path, child: EngineChild, folder: Path, layouts: dict[str, Callable[..., Layout]]
) -> list:
    """The peak of a server that is sent the largest picture twice, against one that is sent as many tokens of text."""
    text = small("qwen3-0.6b", 2)
    path = folder / "text.gguf"
    write_phantom(path, text, random_seed=1)
    rows = []
    for name, layout in layouts.items():
        projector = layout(layers=1, width=256, out=1024)
        file = folder / f"mmproj-{name}.gguf"
        write_phantom(file, projector, random_seed=2)
        cap = IMAGE_MAX_TOKENS.get(name, 0)
        settings = ProjectorSettings(use_gpu=False, threads=1, image_max_tokens=cap)
        part = ask_projector(child, projector, [settings], devices=())[0]
        (row,) = projector_memory(part)
        shared = ("-np", "1", "--cache-ram", "0", "--ctx-checkpoints", "0")
        room = {"context": 8192, "ubatch": 512}
        with serving(program, path, *shared, **room) as plain:
            for token in (5, 6):  # as many tokens as two pictures, so that as much of the cache is touched
                plain.ask("/completion", {"prompt": [token] * (part.parts[0].tokens + 40), "n_predict": 2})
            without = max(plain.peak_bytes, plain.held_bytes())
        flags = ("--mmproj", str(file), "--no-mmproj-offload", *(("--image-max-tokens", str(cap)) if cap else ()))
        with serving(program, path, *shared, *flags, **room) as seeing:
            size = part.parts[0].width, part.parts[0].height
            for shade in (0, 255):  # the second finds compute memory that is resident already
                content = [{"type": "image_url", "image_url": {"url": picture(*size, shade)}}]
                body = {"messages": [{"role": "user", "content": content}], "max_tokens": 1}
                seeing.ask("/v1/chat/completions", body)
            held = max(seeing.peak_bytes, seeing.held_bytes())
        rows.append(
            {
                "projector": name,
                "picture": list(size),
                "weights_mib": round(row.weights_bytes / MIB, 1),
                "warmup_mib": round(row.warmup_bytes / MIB, 1),
                "promised_mib": round(row.total_bytes / MIB, 1),
                "measured_mib": round((held - without) / MIB, 1),
            }
        )
        print(rows[-1])
    return rows


def main() -> None:
    """Measure and record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--server", type=Path, required=True, help="a llama-server of the binding's llama.cpp")
    parser.add_argument("--layouts", type=Path, default=Path(__file__).parents[1] / "tests/engine/projector_layouts.py")
    parser.add_argument("--only", choices=[*MODELS, "projector"], help="one of them, and record nothing")
    arguments = parser.parse_args()
    with EngineChild() as child, tempfile.TemporaryDirectory() as folder:
        rows = []
        for name in MODELS:
            if arguments.only in (None, name):
                rows.append(measure(arguments.server, name, child, Path(folder)))
                print(json.dumps(rows[-1]))
        projectors = []
        if arguments.only in (None, "projector"):
            space: dict = {}
            exec(arguments.layouts.read_text(encoding="utf-8"), space)  # noqa: S102 - the tests' layouts, as a program
            chosen = {name: space[name] for name in ("qwen2_vl", "qwen25_vl", "qwen3_vl")}
            projectors = measure_projector(arguments.server, child, Path(folder), chosen)
        if arguments.only is None:
            record = {
                "date": datetime.now(UTC).date().isoformat(),
                "engine": child.ask("system")["build"],
                "machine": f"{platform.machine()}, {os.cpu_count()} cores",
                "models": rows,
                "projectors": projectors,
            }
            RESULTS.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    wrong = [*filter(refuted, rows), *(row for row in projectors if row["measured_mib"] > row["promised_mib"])]
    print(f"refuted: {wrong}" if wrong else "every promise held")
    raise SystemExit(1 if wrong else 0)


def refuted(row: dict) -> bool:
    """Whether a logged size differs from the foretold, or a promise was too small."""
    sizes_told = (row["checkpoint_mib"], row["state_mib"])
    differs = any(abs(each["foretold"] - each["logged"]) > 0.005 * each["logged"] for each in sizes_told)
    over = row["prompt_cache_mib"]["logged_most"] > row["prompt_cache_mib"]["limit"]
    return differs or over or row["growth_mib"]["measured"] > row["growth_mib"]["promised"]


if __name__ == "__main__":
    main()
