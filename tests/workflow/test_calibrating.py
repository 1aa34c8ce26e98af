"""Which calibration is kept: the last one, unless it knows less than the one before of the same kind."""

import msgspec
import pytest

from planner.estimate.costs_table import CostTable
from planner.measure.calibration import FACT, Calibration, signature_of
from planner.measure.store import MeasurementStore
from planner.types.measurement import Conditions
from planner.types.settings import Settings
from planner.workflow.calibrating import kept

SETTINGS = Settings(context_tokens=1024, threads=2, threads_batch=2)
FULL = Calibration(
    signature=signature_of(SETTINGS, machine_key="m", cpu="c", isa=(), engine_build="b"),
    openmp_wait="passive",
    effort="full",
    taken_at="2026-01-01T00:00:00+00:00",
    seconds=55.0,
    conditions=Conditions(load_1min=0.0, steal_ratio=0.0, on_battery=None),
    table=CostTable(names=(), costs=(), covariance=(), factors={}, model_doubt=0.1, timings=()),
)
QUICK = msgspec.structs.replace(FULL, effort="quick", taken_at="2026-02-02T00:00:00+00:00", seconds=12.0)
ONE_THREAD = signature_of(
    msgspec.structs.replace(SETTINGS, threads=1), machine_key="m", cpu="c", isa=(), engine_build="b"
)


@pytest.fixture
def store(tmp_path):
    """An empty store of one machine and build."""
    return MeasurementStore("m", "b", folder=tmp_path)


def test_a_quick_calibration_does_not_take_the_place_of_a_full_one(store):
    """It is told and says that it was not kept."""
    assert kept(store, FULL) == FULL
    told = kept(store, QUICK)
    assert told.table == QUICK.table
    assert any("not kept" in note and "2026-01-01" in note for note in told.notes)
    assert store.find_fact(FACT, Calibration) == FULL


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (QUICK, FULL),
        (QUICK, msgspec.structs.replace(QUICK, taken_at="2026-03-03T00:00:00+00:00")),
        (FULL, msgspec.structs.replace(FULL, taken_at="2026-03-03T00:00:00+00:00")),
        (FULL, msgspec.structs.replace(QUICK, openmp_wait="default")),
        (FULL, msgspec.structs.replace(QUICK, signature=ONE_THREAD)),
    ],
    ids=("a full one", "another quick one", "a newer full one", "other waiting", "other threads"),
)
def test_every_other_calibration_takes_the_place_of_the_one_before(store, before, after):
    """What knows as much and is newer, and what holds where the one before does not."""
    kept(store, before)
    assert kept(store, after) == after
    assert store.find_fact(FACT, Calibration) == after
