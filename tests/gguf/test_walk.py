"""Laws of the walk: valid headers come back whole, cut ones say truthfully what they lack, nothing else is raised."""

import io
import os
import subprocess
import sys

import gguf
import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from planner.engine.phantom import write_phantom
from planner.errors import BadInputError
from planner.gguf import Incomplete, walk_header, walk_stream
from planner.gguf.ggml_types import TYPES, tensor_bytes
from planner.types.metadata import GgufValue
from planner.types.model import Layout, TensorSpec

_INTEGERS = {"u8": (0, 2**8), "i8": (-(2**7), 2**7), "u16": (0, 2**16), "i16": (-(2**15), 2**15)} | {
    f"{sign}{bits}": (0 if sign == "u" else -(2 ** (bits - 1)), 2 ** (bits - (sign == "i")))
    for sign in "ui"
    for bits in (32, 64)
}
_TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
_SCALARS = {
    **{kind: st.integers(low, high - 1) for kind, (low, high) in _INTEGERS.items()},
    "f32": st.floats(width=32, allow_nan=False),
    "f64": st.floats(allow_nan=False),
    "bool": st.booleans(),
    "str": _TEXT,
}


def _values():
    for kind, values in _SCALARS.items():
        yield values.map(lambda value, kind=kind: GgufValue(type=kind, value=value))
        yield st.lists(values, max_size=9).map(lambda found, kind=kind: GgufValue(type=f"[{kind}]", value=tuple(found)))


METADATA = st.dictionaries(_TEXT.filter(bool).map("x.{}".format), st.one_of(*_values()), max_size=6)
TENSORS = st.lists(
    st.builds(
        lambda name, kind, blocks, rest: TensorSpec(name=name, dims=(blocks * TYPES[kind].block, *rest), type=kind),
        st.text("abcdefghij.é", min_size=1, max_size=30),
        st.sampled_from(sorted(TYPES)),
        st.integers(1, 3),
        st.lists(st.integers(1, 4), max_size=3),
    ),
    max_size=6,
    unique_by=lambda tensor: tensor.name,
)


@st.composite
def files(draw):
    """A valid file as our own writer makes it: any metadata, any types, any alignment."""
    alignment = draw(st.sampled_from([None, 1, 8, 64, 4096]))
    metadata = draw(METADATA)
    if alignment is not None:
        metadata["general.alignment"] = GgufValue(type="u32", value=alignment)
    layout = Layout(architecture="x", metadata=metadata, tensors=tuple(draw(TENSORS)), layers=())
    return layout, alignment or 32


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """A function: the bytes of a layout's file."""
    path = tmp_path_factory.mktemp("walk") / "file.gguf"

    def write(layout):
        write_phantom(path, layout)
        return path.read_bytes()

    return write


_QUICK = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@_QUICK
@given(files())
def test_what_was_written_is_found(written, file):
    """Keys with types and places, tensors with shapes, types and offsets, alignment, and where the data begin."""
    layout, alignment = file
    data = written(layout)
    found = walk_header(data, file_bytes=len(data))
    assert {key: spot.type for key, spot in found.keys.items()} == {k: v.type for k, v in layout.metadata.items()}
    assert [(row.name, row.dims, row.type) for row in found.tensors] == [
        (t.name, t.dims, t.type) for t in layout.tensors
    ]
    assert all(row.size_bytes == tensor_bytes(row.type, row.dims) for row in found.tensors)
    assert found.alignment == alignment
    assert all(row.offset % alignment == 0 for row in found.tensors)
    if found.tensors:
        assert found.data_offset % alignment == 0
        last = found.tensors[-1]
        assert found.data_bytes == last.offset + last.size_bytes <= len(data) - found.data_offset
    for key, spot in found.keys.items():
        if spot.type == "str":
            assert data[spot.offset : spot.offset + spot.length].decode() == layout.metadata[key].value


@_QUICK
@given(files())
def test_a_stream_is_walked_like_the_bytes(written, file):
    """The same from a file that is not in memory."""
    data = written(file[0])
    assert walk_stream(io.BytesIO(data), len(data), file_bytes=len(data)) == walk_header(data, file_bytes=len(data))


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(files())
def test_a_header_cut_at_any_byte_says_how_much_it_lacks(written, file):
    """Without the file's length every prefix is incomplete, needs more than it has, and never more than there is."""
    data = written(file[0])
    end = walk_header(data).header_bytes
    for length in range(end):
        with pytest.raises(Incomplete) as caught:
            walk_header(data[:length])
        assert length < caught.value.needed_bytes <= end
    assert walk_header(data[:end]).header_bytes == end


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(files())
def test_a_file_cut_at_any_byte_is_bad(written, file):
    """A whole file that ends too early, in its header or in its data, is refused, and as nothing but bad input."""
    data = written(file[0])
    found = walk_header(data)
    end = found.data_offset + found.data_bytes if found.tensors else found.header_bytes
    for length in {*range(found.header_bytes), *range(end - 5, end)}:
        with pytest.raises(BadInputError):
            walk_header(data[:length], file_bytes=length)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(files(), st.data())
def test_any_changed_bytes_end_in_a_header_or_in_one_error(written, file, data):
    """Bytes overwritten at random: an answer, Incomplete or BadInputError, and nothing else."""
    content = bytearray(written(file[0])[:4096])
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(content) - 1))
        patch = data.draw(st.binary(min_size=1, max_size=8) | st.sampled_from([b"\xff" * 8, bytes(8), b"\0\0\0\0\1"]))
        content[place : place + len(patch)] = patch
    for known in (None, len(content)):
        try:
            walk_header(bytes(content), file_bytes=known)
        except (BadInputError, Incomplete):
            continue


@given(st.binary(max_size=300))
@example(b"GGUF")
@settings(deadline=None)
def test_noise_is_refused(noise):
    """Random bytes behind the magic, or none of it."""
    for data in (noise, b"GGUF\3\0\0\0" + noise):
        try:
            walk_header(data, file_bytes=len(data))
        except BadInputError:
            continue


def test_a_file_of_the_reference_writer_is_walked(tmp_path):
    """What the ``gguf`` package writes: every kind of value, a tokenizer, tensors of several types."""
    writer = gguf.GGUFWriter(tmp_path / "theirs.gguf", "llama")
    writer.add_block_count(2)
    writer.add_uint64("general.parameter_count", 2**40)
    writer.add_bool("llama.flag", True)
    writer.add_float32("llama.rope.freq_base", 1e6)
    writer.add_array("llama.pattern", [True, False])
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(["a", "bé", ""] * 1000)
    writer.add_token_merges(["a b"] * 2000)
    writer.add_tensor("token_embd.weight", np.zeros((3000, 32), dtype=np.float16))
    writer.add_tensor("output_norm.weight", np.zeros(32, dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    data = (tmp_path / "theirs.gguf").read_bytes()
    found = walk_header(data, file_bytes=len(data))
    assert found.architecture == "llama"
    assert found.keys["tokenizer.ggml.tokens"][::2] == ("[str]", 3000)
    assert found.keys["general.parameter_count"].type == "u64"
    assert [(row.name, row.dims, row.type) for row in found.tensors] == [
        ("token_embd.weight", (32, 3000), "F16"),
        ("output_norm.weight", (32,), "F32"),
    ]


def test_the_place_in_a_split_set_is_read(written):
    """Number of the part, number of parts, tensors in all of them."""
    metadata = {
        "split.no": GgufValue(type="u16", value=1),
        "split.count": GgufValue(type="u16", value=3),
        "split.tensors.count": GgufValue(type="i32", value=40),
    }
    found = walk_header(written(Layout(architecture="x", metadata=metadata, tensors=(), layers=())))
    assert found.split == (1, 3, 40)
    assert found.architecture is None


_LARGE = """
import resource, sys
from planner.gguf import walk_header, walk_stream
path = sys.argv[1]
size = __import__("os").stat(path).st_size
begin = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
with open(path, "rb") as stream:
    found = walk_stream(stream, size, file_bytes=size)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - begin, found.keys["tokenizer.ggml.tokens"].length)
"""


def test_a_vocabulary_of_262144_words_costs_a_few_mebibytes(tmp_path, written):
    """Tokens, types, scores and half a million merges: 16 MB of header, read with a window of one."""
    words = tuple(f"▁word{i:07}" for i in range(262_144))
    metadata = {
        "general.architecture": GgufValue(type="str", value="gemma3"),
        "tokenizer.ggml.tokens": GgufValue(type="[str]", value=words),
        "tokenizer.ggml.scores": GgufValue(type="[f32]", value=(0.0,) * len(words)),
        "tokenizer.ggml.merges": GgufValue(type="[str]", value=words + words[:250_000]),
    }
    path = tmp_path / "large.gguf"
    path.write_bytes(written(Layout(architecture="gemma3", metadata=metadata, tensors=(), layers=())))
    assert path.stat().st_size > 15_000_000
    command = [sys.executable, "-c", _LARGE, str(path)]
    extra, words_found = map(int, subprocess.check_output(command, env=os.environ, timeout=60).split())
    scale = 1 if sys.platform == "darwin" else 1024
    assert words_found == 262_144
    assert extra * scale < 12 << 20
