"""Turns of the speed proof: what is open together has room, and each model is timed as often as the others."""

import functools
import sys
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from planner import catalogue
from planner.types.settings import Settings

PROGRAM = "speed_turns"


@functools.cache
def phantom(layers):
    """A thin model of so many layers."""
    known = catalogue.load()
    model = known.model("qwen3-0.6b")
    shape = {"n_layer": layers, "n_embd": 128, "n_ff": 256, "n_head": 2, "n_head_kv": 1, "n_vocab": 512, "tied": True}
    return known.layout(msgspec.structs.replace(model, shape={**model.shape, **shape}))


@given(st.lists(st.integers(1, 10), min_size=1, max_size=8), st.integers(2, 8))
@settings(deadline=None)
def test_all_are_in_one_group_each_and_a_group_of_several_has_room(bench, gib, room_gib):
    """One that needs more than there is has a group of its own."""
    wanted = [
        bench.Timed(bench.Subject(f"model-{place}", "Q8_0"), phantom(2), each << 30) for place, each in enumerate(gib)
    ]
    usable = room_gib << 30
    found = bench.groups(wanted, usable)
    assert sorted(each.subject.model for group in found for each in group) == [each.subject.model for each in wanted]
    assert all(len(group) == 1 or sum(each.open_bytes for each in group) <= usable for group in found)


def test_a_model_that_fits_nowhere_is_alone(bench):
    """It is timed all the same."""
    small, large = (bench.Timed(bench.Subject(name, "Q8_0"), phantom(2), 2 << 30) for name in ("small", "large"))
    assert [len(group) for group in bench.groups([small, large], 1 << 30)] == [1, 1]


@pytest.mark.engine
def test_models_of_a_group_are_timed_equally_often_beside_a_reference(bench):
    """What is not asked for, the depth of one of them, is not timed."""
    deep, shallow = bench.Subject("deep", "Q8_0"), bench.Subject("shallow", "Q8_0", deep=False)
    own = Settings(context_tokens=bench.DEPTH + 256, threads=1, threads_batch=1)
    group = [bench.Timed(each, phantom(2), 1) for each in (deep, shallow)]
    found = bench.time_group(group, own, phantom(3), Path(sys.executable))
    often = {name: {test: len(ns) for test, ns in row["samples_ns"].items()} for name, row in found.items()}
    alike = {"tg": 8, "pp512": 2, "x2": 4, "x4": 4, "x8": 4}
    assert often == {"deep Q8_0": {**alike, f"tg@{bench.DEPTH}": 4}, "shallow Q8_0": alike}
    assert all(len(row["reference"]["generate_ns"]) == 8 for row in found.values())
    assert all(min(ns) > 0 for row in found.values() for ns in row["samples_ns"].values())
