"""Reading a model: how much is in RAM at the worst moment, and what stays in the heap."""

import importlib.util
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import planner.engine

MIB = 1 << 20
_SPEC = importlib.util.spec_from_file_location(
    "worker_staging", Path(planner.engine.__file__).parent / "worker" / "staging.py"
)
assert _SPEC is not None
assert _SPEC.loader is not None
staging = sys.modules["worker_staging"] = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(staging)

READS = st.lists(
    st.builds(staging.Read, st.integers(0, 10**6), st.integers(32, 400 * MIB), st.booleans()), min_size=1, max_size=30
)


@given(READS)
def test_reading_never_takes_less_than_the_weights(reads):
    """The highest is at least what stays, in every load mode, and never more than three times it and the heap."""
    total = sum(read.size_bytes for read in reads)
    for highest, kept, _ in staging.loading(reads, total).values():
        assert total <= highest <= 3 * total + kept + 64 * MIB
        assert 0 <= kept < 64 * MIB


@given(READS)
def test_direct_io_and_locked_memory_never_need_less_than_plain_reading(reads):
    """One more copy, or all plain weights from the start, can only add; mapping adds the file to what is repacked."""
    told = staging.loading(reads, sum(read.size_bytes for read in reads))
    assert told["none"][0] <= told["dio"][0] + told["none"][1]
    assert told["none"][0] <= told["mlock"][0] + told["none"][1]
    assert told["mmap"] == told["mmap+mlock"]


@pytest.mark.parametrize(
    ("mode", "sizes_mib", "highest_mib"),
    [
        # Two repacked tensors: the larger first with its copy, the smaller with its own.
        ("none", [(100, False), (300, False)], 600),
        ("dio", [(100, False), (300, False)], 900),
        # Plain ones are read in the order in which they were made.
        ("none", [(300, True), (100, True)], 400),
        ("dio", [(300, True), (100, True)], 600),
        ("dio", [(100, True), (300, True)], 700),
        # Repacked ones go first, while little is held; locked memory is held from the start.
        ("none", [(500, True), (100, False)], 600),
        ("mlock", [(500, True), (100, False)], 700),
        ("mmap", [(500, True), (100, False)], 700),
    ],
)
def test_the_worst_moment_is_that_of_the_largest_copy(mode, sizes_mib, highest_mib):
    """Copies by load mode, on tensors larger than malloc keeps."""
    reads = [staging.Read(place, size * MIB, host) for place, (size, host) in enumerate(sizes_mib)]
    assert staging.loading(reads, sum(read.size_bytes for read in reads))[mode][:2] == (highest_mib * MIB, 0)


def _in_mib(told):
    return tuple(round(size / MIB) for size in told[:2])


def test_small_copies_stay_in_the_heap_and_large_ones_go_back():
    """A copy of up to 32 MiB raises malloc's threshold; one that is not larger comes from the heap and stays there."""
    falling = [staging.Read(place, size * MIB, False) for place, size in enumerate((20, 18, 16))]
    assert _in_mib(staging.loading(falling, 54 * MIB)["none"]) == (72, 18)
    equal = [staging.Read(place, 20 * MIB, False) for place in range(3)]
    assert _in_mib(staging.loading(equal, 60 * MIB)["none"]) == (80, 20)
    large = [staging.Read(place, 40 * MIB, False) for place in range(3)]
    assert _in_mib(staging.loading(large, 120 * MIB)["none"]) == (160, 0)


def test_an_aligned_copy_of_the_same_size_goes_back():
    """Direct I/O asks for more than it gives back, so the next of its size is above the threshold again."""
    equal = [staging.Read(place, 20 * MIB, True) for place in range(3)]
    assert _in_mib(staging.loading(equal, 60 * MIB)["dio"]) == (80, 0)
    falling = [staging.Read(place, size * MIB, True) for place, size in enumerate((20, 18))]
    assert _in_mib(staging.loading(falling, 38 * MIB)["dio"]) == (56, 18)
