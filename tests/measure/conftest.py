"""A tiny Qwen3 that the real engine runs in milliseconds, and a child to run it in."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import msgspec
import pytest

from planner import catalogue
from planner.engine.child import EngineChild
from planner.engine.phantom import write_phantom
from planner.measure.bench import Bench
from planner.measure.suite import Subject
from planner.types.model import Layout, MetadataValue, TensorSpec
from planner.types.settings import Settings

N_EMBD, N_FF, HEADS, KV_HEADS, HEAD_DIM, N_VOCAB = 256, 512, 4, 2, 64, 512


def tiny_layout(layers: Sequence[int] = range(2), kind: str = "Q8_0", other: str = "F16") -> Layout:
    """A qwen3 of two kinds of layer: even ones in ``kind``, odd ones in ``other``; tied to no published model."""
    metadata: dict[str, MetadataValue] = {
        "general.architecture": "qwen3",
        "qwen3.block_count": len(layers),
        "qwen3.context_length": 8192,
        "qwen3.embedding_length": N_EMBD,
        "qwen3.feed_forward_length": N_FF,
        "qwen3.attention.head_count": HEADS,
        "qwen3.attention.head_count_kv": KV_HEADS,
        "qwen3.attention.key_length": HEAD_DIM,
        "qwen3.attention.value_length": HEAD_DIM,
        "qwen3.attention.layer_norm_rms_epsilon": 1e-6,
        "qwen3.rope.freq_base": 1e6,
        "qwen3.vocab_size": N_VOCAB,
        "tokenizer.ggml.model": "no_vocab",
    }
    tensors = [
        TensorSpec(name="token_embd.weight", dims=(N_EMBD, N_VOCAB), type=kind),
        TensorSpec(name="output_norm.weight", dims=(N_EMBD,), type="F32"),
        TensorSpec(name="output.weight", dims=(N_EMBD, N_VOCAB), type=kind),
    ]
    for block, original in enumerate(layers):
        quant = kind if original % 2 == 0 else other
        for suffix, dims in (
            ("attn_q.weight", (N_EMBD, HEADS * HEAD_DIM)),
            ("attn_k.weight", (N_EMBD, KV_HEADS * HEAD_DIM)),
            ("attn_v.weight", (N_EMBD, KV_HEADS * HEAD_DIM)),
            ("attn_output.weight", (HEADS * HEAD_DIM, N_EMBD)),
            ("ffn_gate.weight", (N_EMBD, N_FF)),
            ("ffn_up.weight", (N_EMBD, N_FF)),
            ("ffn_down.weight", (N_FF, N_EMBD)),
        ):
            tensors.append(TensorSpec(name=f"blk.{block}.{suffix}", dims=dims, type=quant))
        for suffix, size in (
            ("attn_norm.weight", N_EMBD),
            ("ffn_norm.weight", N_EMBD),
            ("attn_q_norm.weight", HEAD_DIM),
            ("attn_k_norm.weight", HEAD_DIM),
        ):
            tensors.append(TensorSpec(name=f"blk.{block}.{suffix}", dims=(size,), type="F32"))
    return Layout(architecture="qwen3", metadata=metadata, tensors=tuple(tensors), layers=tuple(layers))


@pytest.fixture(scope="session")
def tiny() -> Callable[..., Layout]:
    """The function that makes tiny layouts."""
    return tiny_layout


@pytest.fixture
def settings() -> Settings:
    """Small and quick: a context of 4096, one thread."""
    return Settings(context_tokens=4096, threads=1, threads_batch=1)


@pytest.fixture
def subject() -> Subject:
    """The tiny model as something to measure."""
    return Subject(
        model="tiny",
        quantization="Q8_0",
        shape_key="tiny",
        whole=lambda: tiny_layout(range(16)),
        part=lambda layers: tiny_layout(layers, other="Q8_0"),
        resident_bytes=64 << 20,
        usable_bytes=2 << 30,
        cache_bytes=0,
    )


@pytest.fixture(scope="session")
def child(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EngineChild]:
    """A real child with the tiny model open as ``tiny`` and again, without flash attention, as ``transposed``."""
    path: Path = tmp_path_factory.mktemp("phantoms") / "tiny.gguf"
    write_phantom(path, tiny_layout())
    with EngineChild(env={"OMP_WAIT_POLICY": "passive"}) as running:
        for label, flash in (("tiny", "on"), ("transposed", "off")):
            wanted = {"context_tokens": 4096, "threads": 1, "threads_batch": 1, "flash_attention": flash}
            running.ask("timing.open", {"path": str(path), "settings": wanted, "label": label})
        yield running


@pytest.fixture(scope="session")
def shared(child: EngineChild, tmp_path_factory: pytest.TempPathFactory) -> EngineChild:
    """The child with the tiny model open as ``shared``: a context of four sequences of 1024 tokens."""
    return _opened(child, tmp_path_factory, "shared", tiny_layout())


@pytest.fixture(scope="session")
def hybrid(child: EngineChild, tmp_path_factory: pytest.TempPathFactory) -> EngineChild:
    """The child with a period of a real hybrid (Qwen3.5: recurrent and attention layers) open as ``hybrid``.

    Of its vocabulary so much is left that its head costs nothing.
    """
    known = catalogue.load()
    layout = known.layout(known.model("qwen3.5-0.8b"), 4)
    tensors = tuple(
        msgspec.structs.replace(tensor, dims=(tensor.dims[0], N_VOCAB)) if tensor.dims[-1] > 100_000 else tensor
        for tensor in layout.tensors
    )
    metadata = {**layout.metadata, "qwen35.vocab_size": N_VOCAB}
    small = msgspec.structs.replace(layout, tensors=tensors, metadata=metadata)
    return _opened(child, tmp_path_factory, "hybrid", small)


def _opened(child: EngineChild, tmp_path_factory: pytest.TempPathFactory, label: str, layout: Layout) -> EngineChild:
    path: Path = tmp_path_factory.mktemp("phantoms") / f"{label}.gguf"
    write_phantom(path, layout)
    wanted = {"context_tokens": 4096, "parallel": 4, "threads": 1, "threads_batch": 1}
    child.ask("timing.open", {"path": str(path), "settings": wanted, "label": label})
    return child


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    """A bench with real children that keeps its phantoms in a folder of the test."""
    with Bench(lambda env: EngineChild(env=env), folder=tmp_path / "phantoms") as opened:
        yield opened
