"""Races as rows: each chain of anchors is of one thing, and a plan gets one of the two ways of waiting it knows."""

import math

import pytest

from planner.measure.racing import Change, Found, Raced, Workload
from planner.measure.racing_told import gains, trials
from planner.types.settings import Settings
from planner.types.tuning import Setup

WORK = Workload(prompt_tokens=100, answer_tokens=100)
SETUP = Setup(settings=Settings(context_tokens=64))


def raced(factor, option, outcome, **ratios):
    """A race of three equal pairs with these time ratios; decoding takes nine times as long as a prompt's tokens."""
    logs = {kind: (math.log(value),) * 3 for kind, value in ratios.items()}
    both = len(logs) == 2
    total = (math.log(0.1 * ratios["prompt"] + 0.9 * ratios["generate"]),) * 3 if both else next(iter(logs.values()))
    anchor = {"generate": 0.9, "prompt": 0.1}
    return Raced(
        Change(factor, option, lambda _: None), SETUP, SETUP, outcome, total, logs, {k: anchor[k] for k in logs}
    )


def test_each_row_names_its_anchor_and_its_speed_against_the_defaults():
    """Half the decoding time and then 0.8 of the whole; a setting of prompts alone follows the prompts' chain."""
    races = (
        raced("threads", "2", "accepted", generate=0.5),
        raced("repack", "on", "accepted", generate=0.8, prompt=0.8),
        raced("prompt threads", "1", "no-gain", prompt=2.0),
    )
    rows = trials(Found(SETUP, None, races, ()), WORK)
    assert [row.against for row in rows] == ["defaults", "threads 2", "threads 2, repack on"]
    assert [row.outcome for row in rows] == ["accepted", "accepted", "no-gain"]
    assert rows[0].answer is None
    assert rows[0].to_default.median == pytest.approx(2.0)
    assert rows[1].to_default.median == pytest.approx(1 / (0.8 * (0.1 + 0.9 * 0.5)))
    assert rows[2].to_default.median == pytest.approx(1 / (2.0 * 0.8))
    assert rows[2].prompt.median == pytest.approx(0.5)


def test_only_a_confirmed_winner_has_gains():
    """A winner that did not win again gains nothing that may be told."""
    for outcome, told in (("accepted", True), ("undecided", False)):
        last = raced("all", "the winner", outcome, generate=0.5, prompt=1.0)
        answer, generate, prompt = gains(Found(SETUP, last, (), ()))
        assert (answer is not None) == told
        if told:
            assert generate.median == pytest.approx(2.0)
            assert prompt.median == pytest.approx(1.0)
    assert gains(Found(SETUP, None, (), ())) == (None, None, None)
