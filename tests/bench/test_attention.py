"""The judge of attention's law: it finds the costs again that times are made of, and a record that is off fails."""

import json
from pathlib import Path

import pytest

from planner.estimate.costs_attention import Near

PROGRAM = "attention"
ROOT = Path(__file__).parents[2]
NEAR, CACHE_BYTES = Near(1 << 20, 2), 32 << 20
COSTS_NS = (0.02, 9.0, 0.06, 50.0, 7.0)


def made(bench, near):
    """Times that are the sum of known costs, with 2 ms for everything else."""

    def took(shape, depth):
        layers = bench._layers(shape, CACHE_BYTES)
        return [2e6 + layers * float(bench._work(shape, depth, near) @ COSTS_NS)]

    return {bench._name(shape): {depth: took(shape, depth) for depth in bench.DEPTHS} for shape in bench.SHAPES}


def test_costs_that_times_are_made_of_are_found_again(bench):
    """Nothing is left where nothing else was there."""
    costs, off = bench.explained(made(bench, NEAR), NEAR, CACHE_BYTES)
    assert list(costs.values()) == pytest.approx(COSTS_NS, rel=1e-6)
    assert bench._holds(off)


def test_one_shape_that_takes_half_as_long_again_fails(bench):
    """No sum of five costs hides it."""
    took = made(bench, NEAR)
    took["32/8/128"] = {depth: [ns * (1 + (depth > 0) / 2) for ns in each] for depth, each in took["32/8/128"].items()}
    assert not bench._holds(bench.explained(took, NEAR, CACHE_BYTES)[1])


def test_the_record_says_what_its_own_times_say(bench):
    """Explained once more from what was timed, with the caches of the machine that it was timed on."""
    record = json.loads((ROOT / "bench" / "results" / "attention.json").read_text())
    took = {name: {int(depth): ns for depth, ns in each.items()} for name, each in record["took_ns"].items()}
    _, off = bench.explained(took, NEAR, CACHE_BYTES)
    assert {name: pytest.approx(each, abs=1e-3) for name, each in off.items()} == record["law"]["off"]
    assert record["held"]
