"""Headers through both readers, and back into phantoms: the engine cannot tell the copy from the file."""

import hashlib
import os
import random
import subprocess
import sys

import msgspec
import pytest

from planner.catalogue import load
from planner.engine.child import EngineChild
from planner.engine.headers import read_header
from planner.engine.phantom import write_phantom
from planner.errors import BadInputError, MissingInputError
from planner.gguf import walk_header
from planner.gguf.ggml_types import TYPES
from planner.gguf.layout import header_layout, header_shape_key
from planner.types.metadata import GgufValue
from planner.types.model import Layout, TensorSpec
from planner.types.settings import Settings

pytest.importorskip("llama_cpp", reason="needs the engine")
pytestmark = pytest.mark.engine

_KNOWN = load()
_SETTINGS = msgspec.to_builtins(Settings(context_tokens=512))
_DYNAMIC = ["F32", "F16", "BF16", "Q8_0", "Q6_K", "Q5_K", "Q4_K", "Q3_K", "Q2_K", "IQ4_XS", "IQ2_XXS", "IQ1_M", "MXFP4"]


def _one_of_each():
    found = {}
    for model in _KNOWN.models.values():
        found.setdefault(model.architecture, model)
    return sorted(found.values(), key=lambda model: model.architecture)


@pytest.fixture(scope="module")
def child():
    """One engine for all tests of this file."""
    with EngineChild() as child:
        yield child


@pytest.fixture
def weights(child):
    """A function: where the engine puts the tensors of a file, by the file's path."""
    return lambda path: child.ask("weights", {"path": str(path), "settings": _SETTINGS, "devices": []})


@pytest.fixture
def small():
    """A slice of a model of the catalogue; ``extra`` metadata on top."""

    def make(extra=None, name="qwen3-0.6b", layers=2):
        layout = _KNOWN.layout(_KNOWN.model(name), layers)
        return msgspec.structs.replace(layout, metadata={**layout.metadata, **(extra or {})})

    return make


@pytest.mark.parametrize("model", _one_of_each(), ids=lambda model: model.architecture)
def test_a_header_becomes_the_phantom_it_came_from(model, child, weights, tmp_path):
    """For every architecture: the same bytes, the same placement; and a slice of two layers loads."""
    layout = _KNOWN.layout(model)
    write_phantom(tmp_path / "one.gguf", layout)
    header = read_header(child, [tmp_path / "one.gguf"])
    again = header_layout(header)
    assert again.tensors == layout.tensors
    write_phantom(tmp_path / "two.gguf", again)
    with (tmp_path / "one.gguf").open("rb") as one, (tmp_path / "two.gguf").open("rb") as two:
        assert one.read(header.header_bytes) == two.read(header.header_bytes)
    assert weights(tmp_path / "one.gguf") == weights(tmp_path / "two.gguf")

    trunk = header.block_count - (header.number("nextn_predict_layers") or 0)
    write_phantom(tmp_path / "slice.gguf", header_layout(header, range(trunk - 2, trunk)))
    names = [name for name, *_ in weights(tmp_path / "slice.gguf")["tensors"]]
    assert {name.split(".")[1] for name in names if name.startswith("blk.")} == {"0", "1"}


@pytest.mark.parametrize("name", ["qwen3.5-0.8b", "deepseek-r1", "glm-4.5-air", "qwen3-next-80b-a3b"])
def test_a_slice_of_a_header_is_the_slice_of_the_catalogue(name, child, weights, tmp_path):
    """Dense first layers, linear attention, MTP blocks: the engine places both slices alike."""
    model = _KNOWN.model(name)
    write_phantom(tmp_path / "whole.gguf", _KNOWN.layout(model))
    header = read_header(child, [tmp_path / "whole.gguf"])
    kept = (0, 2, 3)
    write_phantom(tmp_path / "ours.gguf", _KNOWN.layout(model, kept))
    write_phantom(tmp_path / "theirs.gguf", header_layout(header, kept))
    ours, theirs = weights(tmp_path / "ours.gguf"), weights(tmp_path / "theirs.gguf")
    assert sorted(row[:3] for row in ours["tensors"]) == sorted(row[:3] for row in theirs["tensors"])
    settings = [{**_SETTINGS, "context_tokens": 4096}]
    answers = [
        child.ask("buffers", {"path": str(tmp_path / each), "settings": settings, "devices": []})["answers"]
        for each in ("ours.gguf", "theirs.gguf")
    ]
    for answer in answers[0] + answers[1]:
        answer.pop("log", None)
    assert answers[0] == answers[1]


@pytest.mark.parametrize("seed", range(4))
def test_a_dynamic_mix_keeps_each_tensors_type(seed, small, child, weights, tmp_path):
    """Every tensor another type, as Unsloth's dynamic files have it: types, offsets and bytes survive."""
    pick = random.Random(seed)  # noqa: S311 - no secrets
    layout = small(name="qwen3-30b-a3b")
    tensors = tuple(
        msgspec.structs.replace(
            each,
            type=pick.choice([kind for kind in _DYNAMIC if each.dims[0] % TYPES[kind].block == 0])
            if len(each.dims) > 1 and "norm" not in each.name and "gate_inp" not in each.name
            else "F32",
        )
        for each in layout.tensors
    )
    mixed = msgspec.structs.replace(layout, tensors=tensors)
    write_phantom(tmp_path / "mix.gguf", mixed)
    header = read_header(child, [tmp_path / "mix.gguf"])
    assert header.tensors == tensors
    write_phantom(tmp_path / "again.gguf", header_layout(header))
    assert weights(tmp_path / "mix.gguf") == weights(tmp_path / "again.gguf")


def test_exact_types_of_metadata_survive(small, child, tmp_path):
    """u64, i64, f64, booleans, infinities, arrays of texts and of each number: as they stood, also in the copy."""
    extra = {
        "general.parameter_count": GgufValue(type="u64", value=2**64 - 1),
        "x.signed": GgufValue(type="i64", value=-(2**63)),
        "x.small": GgufValue(type="u8", value=255),
        "x.double": GgufValue(type="f64", value=1e-300),
        "x.endless": GgufValue(type="f32", value=float("-inf")),
        "x.flags": GgufValue(type="[bool]", value=(True, False)),
        "x.wide": GgufValue(type="[u64]", value=(1, 2**63)),
        "x.empty": GgufValue(type="[i32]", value=()),
        "general.languages": GgufValue(type="[str]", value=("en", "zh")),
        "general.license": GgufValue(type="str", value="apache-2.0"),
    }
    write_phantom(tmp_path / "typed.gguf", small(extra))
    header = read_header(child, [tmp_path / "typed.gguf"])
    assert {key: header.metadata[key] for key in extra} == extra
    assert header.facts.languages == ("en", "zh")
    assert header.facts.license == "apache-2.0"
    write_phantom(tmp_path / "again.gguf", header_layout(header))
    assert read_header(child, [tmp_path / "again.gguf"]).metadata == header.metadata


def test_an_alignment_other_than_32_survives(small, child, weights, tmp_path):
    """Offsets follow it, in the file and in the copy."""
    write_phantom(tmp_path / "wide.gguf", small({"general.alignment": GgufValue(type="u32", value=4096)}))
    header = read_header(child, [tmp_path / "wide.gguf"])
    assert header.alignment == 4096
    write_phantom(tmp_path / "again.gguf", header_layout(header))
    assert weights(tmp_path / "wide.gguf") == weights(tmp_path / "again.gguf")


def test_a_tokenizer_is_counted_and_a_template_hashed(small, child, tmp_path):
    """Words are not copied, the template does not travel; long texts of others neither, with a warning."""
    extra = {
        "tokenizer.ggml.model": GgufValue(type="str", value="gpt2"),
        "tokenizer.ggml.tokens": GgufValue(type="[str]", value=tuple(f"word{i}" for i in range(151_936))),
        "tokenizer.chat_template": GgufValue(type="str", value="{% while true %}"),
        "general.description": GgufValue(type="str", value="x" * 10_000),
    }
    write_phantom(tmp_path / "words.gguf", small(extra))
    header = read_header(child, [tmp_path / "words.gguf"])
    assert header.vocab_size == 151_936
    assert header.tokenizer_model == "gpt2"
    assert header.chat_template_sha256 == hashlib.sha256(b"{% while true %}").hexdigest()
    assert "general.description" in header.long
    assert any("too long" in warning for warning in header.warnings)
    layout = header_layout(header)
    assert layout.metadata["qwen3.vocab_size"] == GgufValue(type="u32", value=151_936)
    assert not [key for key in layout.metadata if key.startswith("tokenizer.") and key != "tokenizer.ggml.model"]


def _split(layout, folder, counts, **lies):
    """A layout as a split set: ``counts`` tensors in each part; ``lies`` replace split keys of part 2."""
    paths, start = [], 0
    for index, count in enumerate(counts):
        split = {"split.no": index, "split.count": len(counts), "split.tensors.count": len(layout.tensors)}
        split |= lies if index == 1 else {}
        metadata = {
            key: GgufValue(type="u16" if key != "split.tensors.count" else "i32", value=split[key]) for key in split
        }
        if index == 0:
            metadata = {**layout.metadata, **metadata}
        path = folder / f"set-{index + 1:05}-of-{len(counts):05}.gguf"
        part = Layout(architecture="", metadata=metadata, tensors=layout.tensors[start : start + count], layers=())
        write_phantom(path, part)
        paths.append(path)
        start += count
    return paths


def test_a_split_set_is_one_model(small, child, weights, tmp_path):
    """Parts in order give the header of the file they were cut from; the engine loads both alike."""
    layout = small()
    total = len(layout.tensors)
    write_phantom(tmp_path / "one.gguf", layout)
    one = read_header(child, [tmp_path / "one.gguf"])
    whole = read_header(child, _split(layout, tmp_path, (0, 5, total - 5)))
    assert whole.parts == 3
    assert whole.tensors == one.tensors
    assert header_shape_key(whole) == header_shape_key(one)
    assert header_layout(whole).metadata == header_layout(one).metadata
    write_phantom(tmp_path / "merged.gguf", header_layout(whole))
    assert weights(tmp_path / "merged.gguf") == weights(tmp_path / "one.gguf")


@pytest.mark.parametrize(
    ("choose", "lies", "word"),
    [
        (lambda parts: parts[:1], {}, "3 parts and 1"),
        (lambda parts: [parts[0], parts[2], parts[1]], {}, "stands where part"),
        (lambda parts: [parts[0], parts[1], parts[1]], {}, "stands where part"),
        (lambda parts: parts, {"split.count": 4}, "4 parts and 3"),
        (lambda parts: parts, {"split.tensors.count": 7}, "promise 7"),
        (
            lambda parts: parts[1:2],
            {"split.count": 1, "split.no": 0, "split.tensors.count": 5},
            "names no architecture",
        ),
    ],
)
def test_a_split_set_that_does_not_belong_together_is_refused(choose, lies, word, small, child, tmp_path):
    """Missing, swapped, doubled or foreign parts."""
    layout = small()
    parts = _split(layout, tmp_path, (0, 5, len(layout.tensors) - 5), **lies)
    with pytest.raises(BadInputError, match=word):
        read_header(child, choose(parts))


def test_a_header_alone_is_enough(small, child, tmp_path):
    """What was fetched from a hub: the header's bytes without padding or data, and the size of the whole file."""
    layout = small()
    written = write_phantom(tmp_path / "whole.gguf", layout)
    with (tmp_path / "whole.gguf").open("rb") as file:
        data = file.read(1 << 16)
    end = walk_header(data).header_bytes
    (tmp_path / "head.gguf").write_bytes(data[:end])
    header = read_header(child, [tmp_path / "head.gguf"], file_bytes=[written.size_bytes])
    assert header.tensors == layout.tensors
    assert header.file_bytes == written.size_bytes
    assert read_header(child, [tmp_path / "head.gguf"], file_bytes=[None]).file_bytes is None
    with pytest.raises(BadInputError, match="cut off"):
        read_header(child, [tmp_path / "head.gguf"])
    with pytest.raises(BadInputError, match="cut off"):
        read_header(child, [tmp_path / "head.gguf"], file_bytes=[written.size_bytes - 1000])


def test_the_three_headers_that_end_the_engines_process_end_nothing_here(small, child, tmp_path):
    """Layer counts of 0, 1000 and 2³²-1 abort llama.cpp; they never reach it, and the child lives on."""
    child.ask("ping")
    before = child.pid
    for layers in (0, 1000, 2**32 - 1):
        write_phantom(tmp_path / "abort.gguf", small({"qwen3.block_count": layers}))
        with pytest.raises(BadInputError, match=r"'qwen3\.block_count', byte \d+"):
            read_header(child, [tmp_path / "abort.gguf"])
    assert child.pid == before


def test_what_is_no_file_or_no_model_is_named(child, tmp_path):
    """A missing file, a folder, an importance matrix without an architecture."""
    with pytest.raises(MissingInputError):
        read_header(child, [tmp_path / "nothing.gguf"])
    with pytest.raises(BadInputError, match="folder"):
        read_header(child, [tmp_path])
    write_phantom(
        tmp_path / "imatrix.gguf",
        Layout(
            architecture="",
            metadata={"general.type": "imatrix"},
            tensors=(TensorSpec(name="a", dims=(8,), type="F32"),),
            layers=(),
        ),
    )
    with pytest.raises(BadInputError, match="no architecture"):
        read_header(child, [tmp_path / "imatrix.gguf"])


def test_the_key_of_a_shape_ignores_names_and_sees_types(small, child, tmp_path):
    """Two publishers' files of one recipe share the engine's answers; another type or layer count does not."""

    def key(extra=None, change=None, layers=None):
        layout = small(extra)
        tensors = tuple(change(each) if change else each for each in layout.tensors)
        write_phantom(tmp_path / "key.gguf", msgspec.structs.replace(layout, tensors=tensors))
        return header_shape_key(read_header(child, [tmp_path / "key.gguf"]), layers)

    def q8(tensor):
        return msgspec.structs.replace(tensor, type="Q8_0") if tensor.name == "blk.1.ffn_up.weight" else tensor

    plain = key()
    assert key({"general.name": "another", "quantize.imatrix.file": "x.dat"}) == plain
    others = [key(change=q8), key({"qwen3.rope.scaling.factor": 2.0}), key(layers=[0])]
    assert len({plain, *others}) == 4


def test_a_path_with_any_bytes_is_read(small, child, tmp_path):
    """Spaces, quotes, and bytes that are no UTF-8."""
    name = b"a b'\"\xff.gguf".decode("utf-8", "surrogateescape")
    write_phantom(tmp_path / name, small())
    assert read_header(child, [tmp_path / name]).architecture == "qwen3"


def test_layers_that_are_not_there_cannot_be_kept(small, child, tmp_path):
    """A slice beyond the end, or backwards, is our own mistake."""
    write_phantom(tmp_path / "two.gguf", small())
    header = read_header(child, [tmp_path / "two.gguf"])
    for layers in ([], [2], [1, 0], [-1]):
        with pytest.raises(ValueError, match="ascending"):
            header_layout(header, layers)


def test_two_readers_that_see_different_tables_are_refused(small, child, tmp_path):
    """A file that is replaced between the two readings, or a reader that is wrong: no header comes of it."""
    layout = small()
    write_phantom(tmp_path / "one.gguf", layout)
    other = tuple(msgspec.structs.replace(each, type="F16") for each in layout.tensors)
    write_phantom(tmp_path / "other.gguf", msgspec.structs.replace(layout, tensors=other))

    class Swapping(EngineChild):
        def ask(self, op, args=None, **rest):
            return child.ask(op, {**args, "path": str(tmp_path / "other.gguf")} if op == "header" else args, **rest)

    with pytest.raises(BadInputError, match="read its tensor table differently"):
        read_header(Swapping(), [tmp_path / "one.gguf"])


_MEASURED = """
import resource, sys
from pathlib import Path
from planner.engine.child import EngineChild
from planner.engine.headers import read_header
with EngineChild() as child:
    read_header(child, [Path(sys.argv[1])])
    begin = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    header = read_header(child, [Path(sys.argv[2])])
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - begin, header.vocab_size, len(header.tensors))
"""
_WORDS = tuple(f"▁word{i:07}" for i in range(262_144))


@pytest.mark.parametrize(
    ("metadata", "tensors", "found"),
    [
        pytest.param(
            {
                "tokenizer.ggml.tokens": GgufValue(type="[str]", value=_WORDS),
                "tokenizer.ggml.merges": GgufValue(type="[str]", value=_WORDS + _WORDS),
            },
            (),
            ["262144", "0"],
            id="262144 words and twice as many merges",
        ),
        pytest.param(
            {},
            tuple(TensorSpec(name=f"{i:062}", dims=(1, 1, 1, 2), type="F32") for i in range(65_536)),
            ["None", "65536"],
            id="as many tensors as are read",
        ),
        pytest.param(
            {f"k{i:01010}": GgufValue(type="[str]", value=("\x01",) * 400) for i in range(4000)},
            (),
            ["None", "0"],
            id="as many long keys and texts as are read",
        ),
    ],
)
def test_the_largest_headers_cost_at_most_64_mib(metadata, tensors, found, small, tmp_path):
    """Both readings, the comparison and the header itself, beyond what reading a small one takes."""
    write_phantom(tmp_path / "small.gguf", small())
    metadata = {"general.architecture": "gemma3", **metadata}
    write_phantom(tmp_path / "large.gguf", Layout(architecture="gemma3", metadata=metadata, tensors=tensors, layers=()))
    command = [sys.executable, "-c", _MEASURED, str(tmp_path / "small.gguf"), str(tmp_path / "large.gguf")]
    extra, *numbers = subprocess.check_output(command, env=os.environ, timeout=120, text=True).split()
    assert numbers == found
    assert int(extra) * (1 if sys.platform == "darwin" else 1024) < 64 << 20
