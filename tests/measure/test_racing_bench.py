"""The track with the real engine: loads are shared, surroundings reach the process, nothing is left behind."""

import os
from pathlib import Path

import msgspec
import pytest
from msgspec.structs import replace

from planner.engine.child import EngineChild
from planner.errors import EngineError
from planner.measure.racing import UnusableError, Workload, search
from planner.measure.racing_bench import BenchTrack, Lengths, bench_of, child_environment
from planner.measure.racing_space import Ground, setting_changes
from planner.measure.racing_told import gains, trials
from planner.types.settings import Settings
from planner.types.tuning import Setup

pytestmark = pytest.mark.engine

SHORT = Lengths(generate=2, prompt=8, depth=16)
BASE = Setup(settings=Settings(context_tokens=256, batch=128, ubatch=64))


@pytest.fixture
def track(tiny, tmp_path):
    """A track for the tiny model."""
    with BenchTrack(lambda setup: bench_of(setup, None, folder=tmp_path), tiny(), lengths=SHORT) as opened:
        yield opened


def with_settings(**values: object) -> Setup:
    """The base with other settings."""
    return replace(BASE, settings=replace(BASE.settings, **values))


def test_threads_share_a_load_and_other_settings_do_not(track):
    """One model for two numbers of threads; another for another layout of weights; those that left are closed."""
    track.enter((BASE, with_settings(threads=2)))
    assert len(track._open) == 1
    track.enter((BASE, with_settings(repack=False)))
    assert (len(track._open), len(track._benches)) == (2, 1)
    assert all(track.time_s(BASE, kind) > 0 for kind in ("generate", "prompt"))
    active = with_settings(openmp_wait="active")
    track.enter((active,))
    assert (len(track._open), len(track._benches)) == (1, 1)
    track.leave()
    assert track.conditions.load_1min is not None


def test_what_the_engine_refuses_is_unusable_and_the_others_go_on(track):
    """A quantized cache of values without flash attention."""
    bad = with_settings(flash_attention="off", cache_type_v="q8_0")
    with pytest.raises(UnusableError):
        track.enter((BASE, bad))
    track.enter((BASE,))
    assert track.time_s(BASE, "generate") > 0


def test_surroundings_reach_the_process(tmp_path, tiny, monkeypatch):
    """The mask, the waiting and the pages as the child itself has them; what the caller exports is not inherited."""
    monkeypatch.setenv("OMP_WAIT_POLICY", "active")
    first = min(os.sched_getaffinity(0))
    left = msgspec.structs.replace(BASE.settings, openmp_wait="default")
    setup = Setup(settings=left, cpus=(first,), huge_pages=True)
    with bench_of(setup, None, folder=tmp_path) as bench:
        bench.open(tiny(), setup.settings, "one")
        (pid,) = bench.pids
        assert os.sched_getaffinity(pid) == {first}
        variables = dict(each.split("=", 1) for each in Path(f"/proc/{pid}/environ").read_text().split("\0") if each)
        assert variables["GLIBC_TUNABLES"] == "glibc.malloc.hugetlb=1"
        assert "OMP_WAIT_POLICY" not in variables
    assert child_environment(BASE) == {"OMP_WAIT_POLICY": "passive"}
    assert child_environment(Setup(settings=left)) == {}


def test_a_mask_of_cpus_that_are_not_there_is_refused_in_words():
    """The worker reads the mask back."""
    with EngineChild() as child, pytest.raises(EngineError, match="refuses the CPUs"):
        child.ask("place", {"cpus": [100_000], "numa": "off"})


def test_a_whole_search_with_the_real_engine_leaves_nothing_behind(tiny, tmp_path):
    """Whatever it finds on a busy machine: every race is told, children and phantoms are gone."""
    work = Workload(300, 400)
    with BenchTrack(lambda setup: bench_of(setup, None, folder=tmp_path), tiny(), lengths=SHORT) as track:
        changes = [
            change
            for change in setting_changes(Ground(usable_threads=1, default_threads=1, prompt_tokens=8))
            if change.factor in {"repack", "load mode"}
        ]
        found = search(track, BASE, changes, work, budget_s=2.0)
        pids = [pid for bench in track._benches.values() for pid in bench.pids]
    assert pids
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]
    rows = trials(found, work)
    assert [row.factor for row in rows] == [raced.change.factor for raced in found.races]
    assert {row.against for row in rows[:1]} <= {"defaults"}
    assert len(gains(found)) == 3
