"""Which setting wins a race of given times: only what is clearly faster, and active waiting only for a larger gain."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner import catalogue
from planner.engine.child import EngineChild
from planner.measure.bench import Bench
from planner.measure.slices import kinds_of_layers
from planner.measure.suite import Subject
from planner.measure.threads import _GENERATE, _Heat, _Lane, _trial_layout

SAFE = _Lane("p", "passive", 4)
FEWER = _Lane("p", "passive", 2)
ACTIVE = _Lane("a", "active", 4)


def race(times: dict[_Lane, list[float]]) -> _Heat:
    """A race that has been run, with these times."""
    heat = _Heat(Bench(lambda env: EngineChild(env=env)), list(times), _GENERATE)
    heat.times.update(times)
    return heat


@pytest.mark.parametrize(
    ("factor", "lane", "wins"),
    [(0.98, FEWER, False), (0.94, FEWER, True), (0.96, ACTIVE, False), (0.90, ACTIVE, True), (1.5, ACTIVE, False)],
)
def test_the_holder_loses_only_to_a_clear_gain(factor: float, lane: _Lane, wins: bool) -> None:
    """3 % for another number of threads, 5 % for active waiting."""
    times = [100.0, 104.0, 98.0, 101.0, 99.0]
    heat = race({SAFE: times, lane: [time * factor for time in times]})
    assert heat.winner(SAFE) == (lane if wins else SAFE)


def test_the_fastest_of_several_winners_is_taken() -> None:
    """Two challengers beat the holder: the faster one wins."""
    heat = race({SAFE: [100.0] * 5, FEWER: [90.0] * 5, ACTIVE: [70.0] * 5})
    assert heat.winner(SAFE) == ACTIVE


def test_one_lucky_round_wins_nothing() -> None:
    """A median gain that only some rounds show is no gain; nor is one of two rounds."""
    assert race({SAFE: [100.0] * 5, ACTIVE: [60, 110, 60, 110, 60]}).winner(SAFE) == SAFE
    assert race({SAFE: [100.0] * 2, ACTIVE: [50.0] * 2}).winner(SAFE) == SAFE


@given(st.integers(min_value=0, max_value=10**6))
def test_equal_settings_keep_the_safe_one_nearly_always(seed: int) -> None:
    """With 1 % noise on equal settings the holder stays."""
    chance = random.Random(seed)  # noqa: S311 - noise, no secret
    heat = race({lane: [chance.gauss(100, 1) for _ in range(7)] for lane in (SAFE, FEWER, ACTIVE)})
    assert heat.winner(SAFE) == SAFE


def test_a_hopeless_setting_leaves_the_race_after_two_rounds_and_the_safe_one_never() -> None:
    """Far behind twice is enough; the holder is needed for comparison."""
    heat = race({SAFE: [300.0, 300.0], FEWER: [100.0, 100.0], ACTIVE: [400.0, 390.0]})
    heat.rounds = 2
    heat._drop_hopeless()
    assert {lane: len(times) for lane, times in heat.times.items()} == {SAFE: 2, FEWER: 2, ACTIVE: 1}


@pytest.mark.parametrize(
    "model", ["qwen3.6-35b-a3b", "qwen3.8-27b", "kimi-linear-48b-a3b", "qwen3-30b-a3b", "deepseek-v2-lite"]
)
def test_the_trial_slice_is_a_beginning_that_holds_every_frequent_kind_of_layer(model: str) -> None:
    """A slice of recurrent layers alone makes the engine abort; one of each kind, from the start, is a small model."""
    known = catalogue.load()
    found = known.model(model)
    whole = known.layout(found)
    subject = Subject(
        model=model,
        quantization="BF16",
        shape_key="any",
        whole=lambda: whole,
        part=lambda layers: known.layout(found, layers),
        resident_bytes=None,
        usable_bytes=1 << 40,
        cache_bytes=1,
    )
    trial = _trial_layout(subject)
    structures = [tuple((suffix, dims) for suffix, dims, _ in kind) for kind in kinds_of_layers(whole)]
    frequent = {each for each in structures if 10 * structures.count(each) >= len(structures)}
    assert trial.layers == tuple(range(len(trial.layers)))
    assert frequent <= {structures[layer] for layer in trial.layers}
    assert len(trial.layers) <= len(whole.layers) // 2
