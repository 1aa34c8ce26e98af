"""What things take, told from runs of different moments: laws of the estimate, and what it is for."""

import math
import random
from statistics import median

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from planner.measure.moments import taken

THINGS = 30


def turns(pace, *, rounds=4, apart_s=0.5, things=THINGS):
    """Runs of so many things in turns, the first of which takes 1; ``pace`` is how many times longer at a moment."""
    return [
        [
            (at, (1 + thing) * pace(at))
            for number in range(rounds)
            for at in [apart_s * (number * things + (thing if number % 2 == 0 else things - 1 - thing))]
        ]
        for thing in range(things)
    ]


def test_nothing_was_timed():
    """No things, no times."""
    assert taken([]) == []


@settings(deadline=None)
@given(st.floats(1e-3, 1e9))
def test_on_a_machine_without_moods_a_thing_takes_what_it_took(unit):
    """Whatever the unit is."""
    found = taken(turns(lambda _at: unit))
    assert [each.typical for each in found] == pytest.approx([unit * (1 + thing) for thing in range(THINGS)])


@settings(deadline=None)
@given(st.integers(0, THINGS - 1), st.floats(0.01, 100), st.integers(0, 9))
def test_what_one_thing_takes_says_nothing_about_what_another_does(thing, factor, seed):
    """A thing that takes so many times longer is told so many times longer, and all others as before."""
    chance = random.Random(seed)  # noqa: S311 - no secret
    runs = turns(lambda _at: math.exp(chance.gauss(0, 0.1)))
    before = [each.typical for each in taken(runs)]
    runs[thing] = [(at, factor * value) for at, value in runs[thing]]
    after = [each.typical for each in taken(runs)]
    before[thing] *= factor
    assert after == pytest.approx(before, rel=1e-6)


def test_a_thing_that_was_timed_once_in_a_slow_moment_is_told_by_what_others_took_then():
    """Everything took half as much again for four seconds, and one thing was timed in no others: half of it is seen."""
    told = []
    for seed in range(9):
        chance = random.Random(seed)  # noqa: S311 - no secret
        runs = turns(lambda at: (1.5 if 20 <= at < 24 else 1.0) * math.exp(chance.gauss(0, 0.08)))  # noqa: B023 - used at once
        told.append(taken([*runs, [(22.1, 1.5)]])[-1].typical)
    assert 1.0 < median(told) < 1.3
    assert taken([*turns(lambda _at: 1.0), [(22.1, 1.5)]])[-1].typical == pytest.approx(1.5)


def test_runs_of_one_moment_are_worth_less_than_runs_of_several():
    """Three in a tenth of a second tell of that moment."""
    others = turns(lambda _at: 1.0)
    near = taken([*others, [(20.0, 5.0), (20.05, 5.0), (20.1, 5.0)]])[-1]
    far = taken([*others, [(5.0, 5.0), (25.0, 5.0), (45.0, 5.0)]])[-1]
    once = taken([*others, [(20.0, 5.0)]])[-1]
    assert far.doubt < near.doubt < once.doubt


def test_a_wild_run_counts_little():
    """One of six that took ten times as long moves what a thing takes by less than a sixth of that."""
    runs = turns(lambda _at: 1.0, rounds=6)
    runs[3][2] = (runs[3][2][0], 10 * runs[3][2][1])
    assert taken(runs)[3].typical == pytest.approx(4.0, rel=0.1)


def test_a_machine_with_moods_is_told_better_than_by_medians():
    """Over twenty machines whose pace wanders, and whose runs scatter by themselves: the error of an estimate."""
    off, middle = [], []
    for seed in range(20):
        chance = random.Random(seed)  # noqa: S311 - no secret
        seconds = [0.0]
        for _ in range(100):
            seconds.append(0.9 * seconds[-1] + chance.gauss(0, 0.06))
        runs = turns(lambda at: math.exp(seconds[int(at)] + chance.gauss(0, 0.06)), rounds=3)  # noqa: B023 - used at once
        logs = [math.log(each.typical / (1 + thing)) for thing, each in enumerate(taken(runs))]
        medians = [math.log(median(value for _, value in each) / (1 + thing)) for thing, each in enumerate(runs)]
        off += [each - median(logs) for each in logs]
        middle += [each - median(medians) for each in medians]
    assert median(map(abs, off)) < 0.8 * median(map(abs, middle))
