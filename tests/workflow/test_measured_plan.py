"""A plan that is measured for real: a small model, the real engine, a store that is used the second time."""

import msgspec
import pytest

from planner import catalogue, workflow
from planner.measure.racing_bench import trial_layout
from planner.measure.slices import weights_bytes
from planner.measure.threads import FACT
from planner.types.plan import Goal
from planner.workflow.session import open_session
from planner.workflow.timing import subject_of, trial_of

pytestmark = pytest.mark.engine


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    """A cache that knows nothing."""
    monkeypatch.setenv("PLANNER_CACHE_DIR", str(tmp_path))


def test_a_measured_plan_says_so_and_is_not_measured_twice(tmp_path):
    """The winner's speed is measured with its spread; the same plan again reuses the very same samples.

    Once a trial of threads was seen to its end: one that was cut short is tried again, and may then find others.
    """
    goal = Goal(model="qwen2.5-0.5b", quantization="Q4_0", context_tokens=2048, min_tokens_per_s=0.1)
    stages = []
    for _ in range(4):
        first = workflow.plan(goal, measure="quick", progress=lambda *told: stages.append(told))
        if list(tmp_path.rglob(f"{FACT}.fact")) or first.machine.cpu.usable_threads == 1:
            break
    speed = first.chosen.speed.generate
    assert speed.origin == "measured"
    assert 0 < speed.low <= speed.tokens_per_s <= speed.high
    (measurement,) = first.measurements
    assert measurement.layers_timed == measurement.layers_total == 24
    assert all(result.samples_ns for result in measurement.results)
    assert {stage for stage, *_ in stages} >= {"detect", "estimate", "measure"}
    if measurement.conditions.disturbed:
        pytest.skip(f"this machine is too busy to keep a measurement: {measurement.conditions.disturbed[0]}")
    # With one thread there is nothing to choose between.
    assert list(tmp_path.rglob(f"{FACT}.fact")) or first.machine.cpu.usable_threads == 1
    second = workflow.plan(goal, measure="quick")
    assert second.measurements == first.measurements
    unmeasured = workflow.plan(goal, measure="none")
    assert unmeasured.chosen.speed.generate == speed


@pytest.mark.parametrize(("model", "quantization"), [("qwen3.6-35b-a3b", "Q4_K_M"), ("qwen3-8b", "Q4_K_M")])
def test_threads_race_on_a_small_model_whichever_leads(model, quantization):
    """Slices of a large one took so long that races stayed undecided and plans waited passively, half as fast."""
    with open_session(catalogue.load(), None, None) as session:
        known = session.sources.catalogue
        leader = subject_of(session, known.model(model), known.quantization(quantization), ())
        racing = trial_of(session, leader)
        assert racing is leader if session.oracle.has_gpu else weights_bytes(trial_layout(racing)) < 500 << 20


def test_a_measurement_of_one_model_calibrates_the_others():
    """After one measured model the speeds of all others rest on this machine, not on published ranges."""
    goal = Goal(model="qwen2.5-0.5b", quantization="Q4_0", context_tokens=2048, min_tokens_per_s=0.1)
    before = workflow.plan(Goal(model="qwen3-0.6b"), measure="none")
    measured = workflow.plan(goal, measure="quick")
    if measured.measurements[0].conditions.disturbed:
        pytest.skip("this machine is too busy to keep a measurement")
    after = workflow.plan(Goal(model="qwen3-0.6b"), measure="none")
    assert "measured here" not in before.chosen.speed.generate.basis
    assert "measured here" in after.chosen.speed.generate.basis
    width = [plan.chosen.speed.generate.high / plan.chosen.speed.generate.low for plan in (before, after)]
    assert width[1] < width[0]


def test_the_plan_document_reads_back():
    """What is written is a Plan again, unchanged."""
    plan = workflow.plan(Goal(), machine="m2-air-8gb", measure="none")
    assert msgspec.json.decode(msgspec.json.encode(plan), type=type(plan)) == plan
