"""Phantoms: what a reader of GGUF files sees, what they cost, and weights that compute to sane numbers."""

import json
import os
import resource
import subprocess
import sys
from pathlib import Path

import gguf
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from planner.catalogue import load
from planner.engine.phantom import write_phantom
from planner.engine.random_blocks import RANDOM_TYPES
from planner.errors import FileIOError
from planner.gguf.ggml_types import TYPES, tensor_bytes
from planner.types.model import Layout, TensorSpec

_PROBE = Path(__file__).parents[1] / "catalogue" / "engine_probe.py"
_ROUTER = "ffn_gate_inp.weight"
# The reader of the gguf package may be older than the engine; what it does not know, the engine itself checks.
_KNOWN = sorted(set(RANDOM_TYPES) & set(gguf.GGMLQuantizationType.__members__))


def _ask(questions):
    """Answers of a fresh engine process (see engine_probe.py)."""
    pytest.importorskip("llama_cpp", reason="needs the engine")
    done = subprocess.run(
        [sys.executable, _PROBE],
        input=json.dumps(questions),
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
        env={**os.environ, "GGML_NO_BACKTRACE": "1"},
    )
    return json.loads(done.stdout)


def _layout(*tensors: TensorSpec, metadata=None) -> Layout:
    return Layout(architecture="test", metadata={} if metadata is None else metadata, tensors=tensors, layers=(0,))


def _tensor(name: str, kind: str, *dims: int) -> TensorSpec:
    return TensorSpec(name=name, dims=dims, type=kind)


def _read(path: Path):
    """Tensors and metadata by name, as the reader of the ``gguf`` package sees our own file."""
    reader = gguf.GGUFReader(path)
    fields = {name: field.contents() for name, field in reader.fields.items() if not name.startswith("GGUF.")}
    return {tensor.name: tensor for tensor in reader.tensors}, fields


_KEYS = st.text("abcdefghij._", min_size=1, max_size=20)
_SINGLES = (
    st.text(max_size=20)
    | st.booleans()
    | st.integers(0, 2**32 - 1)
    | st.floats(allow_nan=False, allow_infinity=False, width=32)
)
_ARRAYS = (
    st.lists(st.integers(-(2**31), 2**31 - 1), min_size=1, max_size=5)
    | st.lists(st.booleans(), min_size=1, max_size=5)
    | st.lists(st.floats(allow_nan=False, allow_infinity=False, width=32), min_size=1, max_size=5)
).map(tuple)
_TENSORS = st.lists(
    st.builds(
        lambda name, kind, blocks, rest: _tensor(name, kind, blocks * TYPES[kind].block, *rest),
        st.text("abcdefghij.", min_size=1, max_size=30),
        st.sampled_from(_KNOWN),
        st.integers(1, 3),
        st.lists(st.integers(1, 4), max_size=3),
    ),
    max_size=8,
    unique_by=lambda tensor: tensor.name,
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    tensors=_TENSORS, metadata=st.dictionaries(_KEYS, _SINGLES | _ARRAYS, max_size=8), seed=st.none() | st.integers()
)
def test_a_phantom_reads_back_as_it_was_described(tmp_path, tensors, metadata, seed):
    """Any layout survives: names, types, dimensions, offsets and every kind of metadata value."""
    path = tmp_path / "phantom.gguf"
    file = write_phantom(path, _layout(*tensors, metadata=metadata), random_seed=seed)
    assert file.size_bytes == path.stat().st_size
    found, fields = _read(path)
    assert list(found) == [tensor.name for tensor in tensors]
    for tensor in tensors:
        there = found[tensor.name]
        assert there.tensor_type.name == tensor.type
        assert tuple(int(dim) for dim in there.shape) == tensor.dims
        assert there.n_bytes == tensor_bytes(tensor.type, tensor.dims)
        assert seed is not None or not there.data.view(np.uint8).any()
    plain = {key: list(value) if isinstance(value, tuple) else value for key, value in metadata.items()}
    assert fields == plain


@pytest.mark.engine
def test_the_type_table_is_that_of_the_engine():
    """Numbers, block lengths and block bytes are ggml's own, of every type there is; none of ours is unknown to it."""
    theirs = _ask([{"types": True}])[0]
    assert {name: [ours.number, ours.block, ours.size_bytes] for name, ours in TYPES.items()} == theirs
    assert set(RANDOM_TYPES) < set(TYPES)


@pytest.fixture(scope="module")
def dequantized(tmp_path_factory):
    """Mean, spread and different values of random weights of every type, as ggml's own kernels read them."""
    folder = tmp_path_factory.mktemp("random")
    questions = []
    for kind in RANDOM_TYPES:
        ggml = TYPES[kind]
        tensor = _tensor("blk.0.ffn_up.weight", kind, 1024, 64)
        file = write_phantom(folder / kind, _layout(tensor), random_seed=7)
        # One tensor, a whole number of alignments long: it is the end of the file.
        offset = file.size_bytes - tensor_bytes(kind, tensor.dims)
        questions.append({"path": file.path, "number": ggml.number, "offset": offset, "count": 1024 * 64})
    return dict(zip(RANDOM_TYPES, _ask(questions), strict=True))


@pytest.mark.engine
@pytest.mark.parametrize("kind", sorted(RANDOM_TYPES))
def test_random_weights_are_finite_centred_and_as_large_as_trained_ones(dequantized, kind):
    """No NaN, no infinity, a spread of about a hundredth around zero: activations stay in range over many layers."""
    weights = dequantized[kind]
    assert 0.005 < weights["spread"] < 0.06
    assert abs(weights["mean"]) < 0.5 * weights["spread"]
    assert weights["different"] >= 2


def test_norms_are_close_to_one(tmp_path):
    """A norm that were as small as a weight would shrink every activation; a zero one would end the model."""
    path = tmp_path / "norms.gguf"
    names = ("blk.0.attn_norm.weight", "output_norm.weight", "rope_freqs.weight")
    write_phantom(path, _layout(*(_tensor(name, "F32", 512) for name in names)), random_seed=1)
    for tensor in _read(path)[0].values():
        assert (tensor.data >= 1).all()
        assert (tensor.data < 1.05).all()


def test_no_two_experts_of_a_large_router_are_equal(tmp_path):
    """DeepSeek-V3's router is 7 MiB; repeating a shorter stretch would tie its experts."""
    path = tmp_path / "router.gguf"
    write_phantom(path, _layout(*(_tensor(f"blk.{i}.{_ROUTER}", "F32", 7168, 256) for i in range(2))), random_seed=3)
    first, second = (tensor.data for tensor in _read(path)[0].values())
    assert np.unique(first, axis=0).shape == (256, 7168)
    assert not (first == second).all(axis=1).any()


def test_equal_seeds_give_equal_files_and_different_seeds_do_not(tmp_path):
    """A measurement can be repeated on the very same weights."""
    layout = _layout(_tensor("a.weight", "Q4_K", 1024, 64), _tensor("b.weight", "Q6_K", 1024, 64))
    for name, seed in (("one", 5), ("two", 5), ("three", 6)):
        write_phantom(tmp_path / name, layout, random_seed=seed)
    one, two, three = ((tmp_path / name).read_bytes() for name in ("one", "two", "three"))
    assert one == two != three


def test_only_the_router_is_random_where_that_is_asked(tmp_path):
    """The rest stays a hole, on disk and to a reader."""
    catalogue = load()
    path = tmp_path / "moe.gguf"
    layout = catalogue.layout(catalogue.model("qwen3-30b-a3b"), 2)
    file = write_phantom(path, layout, random_seed=1, random_only=(_ROUTER,))
    routers = sum(tensor_bytes(t.type, t.dims) for t in layout.tensors if t.name.endswith(_ROUTER))
    assert routers <= file.disk_bytes < routers + 200_000 < file.size_bytes
    tensors = _read(path)[0]
    assert tensors[f"blk.1.{_ROUTER}"].data.all()
    assert not tensors["blk.1.ffn_gate_exps.weight"].data.view(np.uint8)[:1].any()


def test_the_phantom_of_deepseek_r1_takes_less_than_100_kb_of_disk(tmp_path):
    """671 billion parameters: 1.3 TB to a reader, 72 KB to the disk."""
    catalogue = load()
    file = write_phantom(tmp_path / "r1.gguf", catalogue.layout(catalogue.model("deepseek-r1")))
    assert file.size_bytes > 1.3e12
    assert file.disk_bytes < 100_000


def test_given_types_replace_those_of_the_layout(tmp_path):
    """A quantized phantom is the same layout with the types of a dry run; the others stay."""
    path = tmp_path / "typed.gguf"
    layout = _layout(_tensor("blk.0.attn_q.weight", "BF16", 256, 4), _tensor("blk.0.attn_norm.weight", "F32", 256))
    write_phantom(path, layout, types={"blk.0.attn_q.weight": "Q4_K"})
    types = {name: tensor.tensor_type.name for name, tensor in _read(path)[0].items()}
    assert types == {"blk.0.attn_q.weight": "Q4_K", "blk.0.attn_norm.weight": "F32"}


@pytest.mark.parametrize(("kind", "row"), [("Q4_K", 128), ("Q9_9", 256), ("Q8_0", 33)])
def test_a_type_that_does_not_fit_is_refused(tmp_path, kind, row):
    """There is no part of a block; such a file would be read wrongly, so none is written."""
    path = tmp_path / "bad.gguf"
    with pytest.raises(ValueError, match=kind):
        write_phantom(path, _layout(_tensor("a.weight", kind, row, 2)))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.engine
def test_the_engine_accepts_every_block_of_every_type(tmp_path):
    """llama.cpp's own validation of tensor data (``check_tensors``) passes for all quantized types it knows."""
    catalogue = load()
    layout = catalogue.layout(catalogue.model("qwen3-0.6b"), 1)
    small = [tensor for tensor in layout.tensors if tensor.name != "token_embd.weight"]
    embedding = _tensor("token_embd.weight", "Q8_0", 1024, 512)
    questions = []
    for kind in sorted(RANDOM_TYPES):
        types = {t.name: kind for t in small if len(t.dims) == 2}
        path = tmp_path / f"{kind}.gguf"
        metadata = {**layout.metadata, "qwen3.vocab_size": 512}
        shrunk = Layout(architecture="qwen3", metadata=metadata, tensors=(embedding, *small), layers=(0,))
        write_phantom(path, shrunk, types=types, random_seed=2)
        questions.append({"path": str(path), "check": True})
    refused = {q["path"]: a for q, a in zip(questions, _ask(questions), strict=True) if "n_params" not in a}
    assert not refused


@pytest.mark.engine
def test_the_engine_notices_blocks_that_are_not_valid(tmp_path):
    """The check above can fail: one infinite scale is refused."""
    catalogue = load()
    layout = catalogue.layout(catalogue.model("qwen3-0.6b"), 1)
    path = tmp_path / "broken.gguf"
    write_phantom(path, layout, types={"blk.0.attn_q.weight": "Q8_0"}, random_seed=2)
    tensor = _read(path)[0]["blk.0.attn_q.weight"]
    with path.open("r+b") as file:
        file.seek(int(tensor.data_offset))
        file.write(b"\x00\x7c")
    assert "error" in _ask([{"path": str(path), "check": True}])[0]


def test_a_folder_that_is_in_the_way_is_an_io_error_and_leaves_nothing_behind(tmp_path):
    """The error names the path; no half-written file remains."""
    (tmp_path / "taken").mkdir()
    with pytest.raises(FileIOError, match="taken"):
        write_phantom(tmp_path / "taken", _layout(_tensor("a.weight", "F32", 32)))
    assert [path.name for path in tmp_path.iterdir()] == ["taken"]


def test_a_file_system_that_takes_no_large_file_is_an_io_error_with_a_remedy(tmp_path):
    """Provoked with the process's own file size limit: the same errno as on FAT."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, hard))
    try:
        with pytest.raises(FileIOError) as caught:
            write_phantom(tmp_path / "large.gguf", _layout(_tensor("a.weight", "F32", 1 << 20)))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "PLANNER_CACHE_DIR" in caught.value.hint
    assert list(tmp_path.iterdir()) == []
