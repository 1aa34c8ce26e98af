"""Where threads may be pinned: one CPU of each core, the strong cores first, nothing where all CPUs are alike."""

import pytest

from planner.machine import topology
from planner.machine.answers import Recorder
from planner.machine.places import Places, interpret, places


@pytest.fixture
def recorded(plant):
    """The places of a recorded machine whose allowed CPUs are the first so many."""

    def of(name, cpus):
        ask = Recorder(plant(name))
        topology.collect(ask)
        ask.file("/sys/kernel/mm/transparent_hugepage/enabled")
        return interpret(ask.answers(), frozenset(range(cpus)))

    return of


def test_a_hybrid_is_pinned_to_one_thread_of_each_core_or_of_each_performance_core(recorded):
    """An i7-1260P: four cores with two threads, eight efficient ones with one."""
    found = recorded("intel-i7-1260p-hybrid", 16)
    assert found.one_per_core == (0, 2, 4, 6, 8, 9, 10, 11, 12, 13, 14, 15)
    assert found.performance == (0, 2, 4, 6)


def test_a_mask_of_the_caller_is_respected(recorded):
    """Only what is allowed, and no pinning to the performance cores where there is nothing else."""
    found = recorded("intel-i7-1260p-hybrid", 8)
    assert found.one_per_core == (0, 2, 4, 6)
    assert found.performance == ()


def test_where_nothing_is_told_nothing_is_pinned(recorded):
    """A tree without a topology."""
    assert recorded("mac-m4", 4) == Places()


def test_huge_pages_are_offered_only_where_asking_changes_something(plant):
    """``always`` gives them anyway and ``never`` does not."""
    for word, offered in (("always [madvise] never", True), ("[always] madvise never", False)):
        host = plant("intel-i7-1260p-hybrid")
        path = host.root / "sys/kernel/mm/transparent_hugepage/enabled"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{word}\n")
        ask = Recorder(host)
        ask.file("/sys/kernel/mm/transparent_hugepage/enabled")
        assert interpret(ask.answers(), frozenset()).huge_pages_on_request == offered


def test_this_machine_tells_places_that_exist():
    """Real files, whatever machine runs the tests."""
    import os

    found = places()
    assert set(found.one_per_core) | set(found.performance) <= os.sched_getaffinity(0)
