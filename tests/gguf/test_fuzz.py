"""The fuzz program in the time of a test: 100,000 mutants of a fixed seed, and proof that it can fail."""

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from planner.errors import BadInputError
from planner.gguf import walk_header

_PROGRAM = Path(__file__).parents[2] / "bench" / "fuzz_headers.py"


@pytest.fixture
def program():
    """The program as a module."""
    specification = importlib.util.spec_from_file_location("fuzz_headers", _PROGRAM)
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


@pytest.mark.engine
def test_100000_mutants_break_no_claim():
    """No hang over a second, no foreign exception, at most 64 MiB, no difference to ggml without a name."""
    pytest.importorskip("llama_cpp", reason="needs the engine")
    done = subprocess.run(
        [sys.executable, _PROGRAM, "--mutants", "100000", "--seed", "20261122"],
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
        env=os.environ,
    )
    assert done.returncode == 0, done.stdout
    # Mutants that are all refused at the first byte would prove nothing.
    accepted = re.search(r"'accepted': (\d+)", done.stdout)
    assert accepted is not None
    assert int(accepted[1]) > 5000


def test_equal_seeds_give_equal_mutants(program):
    """A failure can be seen again."""
    assert list(program.mutants(7, 300)) == list(program.mutants(7, 300))
    assert list(program.mutants(7, 300)) != list(program.mutants(8, 300))


def test_every_base_is_valid_before_it_is_mutated(program):
    """The mutants are near the valid, not somewhere in the noise."""
    for keys, tensors in program.bases():
        records = [[b"GGUF", program.u32(3), program.u64(len(tensors)), program.u64(len(keys))], *keys, *tensors]
        data = b"".join(field for record in records for field in record)
        data += bytes(-len(data) % 64 + 4096)
        assert len(walk_header(data, file_bytes=len(data)).tensors) == len(tensors)


@pytest.mark.engine
@pytest.mark.parametrize(
    ("spoilt", "word"),
    [
        (lambda data, **_: 1 // (len(data) % 7), "ZeroDivisionError"),
        (lambda _data, **_: None, "refused by ggml"),
    ],
)
def test_a_broken_reader_is_noticed(program, spoilt, word, monkeypatch):
    """An exception of another kind, and a reader that believes everything."""
    from planner.engine.child import EngineChild

    pytest.importorskip("llama_cpp", reason="needs the engine")
    monkeypatch.setattr(program, "walk_header", spoilt)
    with EngineChild() as child:
        broken = program.run(1, 200, child).broken
    assert any(word in line for line in broken)


@pytest.mark.engine
def test_a_difference_without_a_name_is_noticed(program, monkeypatch):
    """A reader that refuses what it should not, in words that the table does not have."""
    from planner.engine.child import EngineChild

    def strict(_data, **_):
        raise BadInputError("it is Monday (byte 0)")

    pytest.importorskip("llama_cpp", reason="needs the engine")
    monkeypatch.setattr(program, "walk_header", strict)
    with EngineChild() as child:
        broken = program.run(1, 200, child).broken
    assert any("Monday" in line for line in broken)
