"""The judge of the search: the grid is whole, and a record that misses a claim fails."""

import importlib
import itertools
import sys
from pathlib import Path

import pytest
from msgspec.structs import replace

from planner.measure.racing_space import Ground
from planner.types.settings import Settings
from planner.types.tuning import Setup

ROOT = Path(__file__).parents[2]
DEFAULT = Setup(settings=Settings(context_tokens=64, threads=2, threads_batch=2, openmp_wait="default"))
GROUND = Ground(usable_threads=2, default_threads=2, huge_pages=True)


@pytest.fixture(scope="module")
def bench():
    """``bench/tune.py`` and the module it stands on."""
    names = ("small_models", "tune_search", "tune")
    sys.path.insert(0, str(ROOT / "bench"))
    try:
        yield {name: importlib.import_module(name) for name in names}
    finally:
        sys.path.remove(str(ROOT / "bench"))
        for name in names:
            sys.modules.pop(name, None)


def record(**changed: float) -> dict[str, object]:
    """A phantom on which everything holds, but for what is changed."""
    told = {"grid": 0.99, "defaults": 1.3, "tpe": 1.0, "llama": 1.7, "seconds": 14.0} | changed
    fast = {
        "grid": {"answer": told["grid"]},
        "defaults": {"answer": told["defaults"]},
        "TPE": {"answer": told["tpe"]},
        "Llama()": {"generate": told["llama"]},
    }
    searches = {"grid": {"seconds": 100.0}, "race": {"seconds": told["seconds"]}}
    return {"speeds": {"race": {"times_as_fast_as": fast}}, "searches": searches}


def test_the_grid_holds_every_combination_once_and_the_defaults(bench):
    """Ways to wait × loads × repacking × attention × threads × threads for prompts."""
    space = bench["tune_search"].options(GROUND, DEFAULT)
    points = list(itertools.chain.from_iterable(bench["tune_search"].every_setup(DEFAULT, space)))
    assert len(points) == len(set(points)) == 3 * 4 * 2 * 2 * 2 * 2
    assert DEFAULT in points


def test_points_of_one_group_differ_in_threads_alone(bench):
    """So they share a load."""
    space = bench["tune_search"].options(GROUND, DEFAULT)
    for group in bench["tune_search"].every_setup(DEFAULT, space):
        assert len({(each.huge_pages, replace(each.settings, threads=1, threads_batch=1)) for each in group}) == 1


@pytest.mark.parametrize(
    ("changed", "holds"),
    [
        ({}, True),
        ({"grid": 0.96}, False),
        ({"defaults": 0.9}, False),
        ({"tpe": 0.9}, False),
        ({"llama": 1.4}, False),
        ({"seconds": 20.0}, False),
    ],
    ids=str,
)
def test_each_claim_can_fail(bench, changed, holds):
    """A record that misses one is refuted."""
    records = [record(**changed), record(**changed), record()]
    assert bench["tune"].verdict(records)[0] == holds
