"""What a measurement teaches: its own candidate exactly, all others by calibration, and never twice."""

import msgspec
import pytest

from planner import catalogue
from planner.engine.child import EngineChild
from planner.engine.oracle import Oracle
from planner.machine import load
from planner.measure.threads import KnownThreads, ThreadChoice
from planner.types import measurement as kinds
from planner.types.measurement import Conditions, Measurement, Spread
from planner.types.settings import Settings
from planner.workflow.estimator import CandidateEstimator
from planner.workflow.sources import Sources

pytestmark = pytest.mark.engine


@pytest.fixture(scope="module")
def oracle(tmp_path_factory):
    """An oracle for all tests here."""
    with EngineChild() as child, Oracle(child, folder=tmp_path_factory.mktemp("answers"), devices=()) as running:
        yield running


@pytest.fixture
def ask(oracle):
    """An estimator that has learnt nothing, and a question to it."""
    known = catalogue.load()
    estimator = CandidateEstimator(oracle, Sources(known), load("epyc-vm-2cpu-24gb"))

    def speed(model, quantization, settings):
        return estimator(known.model(model), known.quantization(quantization), settings).speed

    return estimator, speed


SETTINGS = Settings(context_tokens=4096, gpu_layers=0, threads=2, threads_batch=2)


def measurement(tokens_per_s, *, disturbed=(), depth=0, model="qwen3-0.6b", spread=0.1, reference=None):
    """A measured decode speed of one model at Q4_K_M."""
    low, high = (1 - spread) * tokens_per_s, (1 + spread) * tokens_per_s
    spread = Spread(median=tokens_per_s, low=low, high=high, relative_mad=0.01)
    tested = kinds.TestResult(
        test=kinds.Test(kind="generate", tokens=128, depth=depth),
        tokens_timed=128,
        samples_ns=(int(128e9 / tokens_per_s),),
        tokens_per_s=spread,
    )
    return Measurement(
        model=model, quantization="Q4_K_M", settings=SETTINGS, engine_build="b", machine_key="m", taken_at="t",
        layers_timed=28, layers_total=28, results=(tested,),
        conditions=Conditions(load_1min=0.0, steal_ratio=0.0, on_battery=None, disturbed=disturbed),
        reference=reference,
    )  # fmt: skip


def test_a_measured_candidate_shows_its_measured_speed(ask):
    """Median and spread as they were measured, whatever the context and the load mode."""
    estimator, speed = ask
    estimator.learn((measurement(21.5),))
    for settings in (SETTINGS, msgspec.structs.replace(SETTINGS, context_tokens=8192, load_mode="none")):
        generate = speed("qwen3-0.6b", "Q4_K_M", settings).generate
        assert (generate.tokens_per_s, generate.origin) == (21.5, "measured")
    assert speed("qwen3-0.6b", "Q8_0", SETTINGS).generate.origin == "predicted"


@pytest.mark.parametrize(
    ("paces", "allowed"),
    [(None, 0.06), ((100, 100, 101, 100, 100), 0.06), ((90, 100, 110, 95, 105), 0.11), ((40, 100, 180, 60, 150), 0.2)],
)
def test_a_promise_allows_for_what_the_machine_itself_scatters_by(ask, paces, allowed):
    """Repetitions agreed within 1 %: 6 % at least, more where single runs of the reference scatter, a fifth at most."""
    estimator, speed = ask
    reference = paces and kinds.Reference(generate_ns=paces, prompt_ns=(7.0,) * len(paces))
    estimator.learn((measurement(20.0, spread=0.01, reference=reference),))
    found = speed("qwen3-0.6b", "Q4_K_M", SETTINGS).generate
    assert found.tokens_per_s == 20.0
    assert 1 - found.low / 20 == pytest.approx(found.high / 20 - 1) == pytest.approx(allowed, abs=0.015)


def test_other_models_follow_the_measured_machine(ask):
    """Twice the measured speed is twice the predicted one; the basis names what was measured."""
    estimator, speed = ask
    estimator.learn((measurement(10.0),))
    slow = speed("qwen3-1.7b", "Q4_K_M", SETTINGS).generate
    other = CandidateEstimator(estimator._oracle, estimator._sources, estimator._machine)
    other.learn((measurement(20.0),))
    known = estimator._sources.catalogue
    fast = other(known.model("qwen3-1.7b"), known.quantization("Q4_K_M"), SETTINGS).speed.generate
    assert fast.tokens_per_s == pytest.approx(2 * slow.tokens_per_s)
    assert "qwen3-0.6b Q4_K_M" in slow.basis


def test_a_measurement_counts_only_where_the_model_would_run_so(ask):
    """A trial that was cut short waits passively, the next one actively: the first one's speed is not the plan's."""
    estimator, _ = ask
    threads = KnownThreads(2)
    told = CandidateEstimator(estimator._oracle, estimator._sources, estimator._machine, threads=threads)
    known = estimator._sources.catalogue
    recipe = known.quantization("Q4_K_M")
    active = msgspec.structs.replace(SETTINGS, openmp_wait="active")
    for waiting in ("active", "passive"):
        choice = ThreadChoice(threads=2, threads_batch=2, openmp_wait=waiting, basis="trial")
        threads.trial = choice
        told.learn((measurement(60.0), msgspec.structs.replace(measurement(20.0), settings=active)))
        speeds = [told(known.model(name), recipe, SETTINGS).speed.generate for name in ("qwen3-0.6b", "qwen3-1.7b")]
        assert (speeds[0].tokens_per_s, speeds[0].origin) == ({"active": 20.0, "passive": 60.0}[waiting], "measured")
        assert speeds[1].low < speeds[0].tokens_per_s
        assert speeds[1].origin == "predicted"
    threads.trial = msgspec.structs.replace(choice, threads=1)
    told.learn(())
    nothing = [told(known.model(name), recipe, SETTINGS).speed.generate for name in ("qwen3-0.6b", "qwen3-1.7b")]
    assert all("measured here" not in each.basis and each.origin == "predicted" for each in nothing)


def test_of_two_measurements_of_one_thing_the_later_is_told(ask):
    """Whatever the order in which their files are found."""
    estimator, speed = ask
    newer, older = (
        msgspec.structs.replace(measurement(speed), taken_at=at)
        for speed, at in ((30.0, "2026-11-23T10:00:00+00:00"), (20.0, "2026-11-22T10:00:00+00:00"))
    )
    estimator.learn((newer, older))
    assert speed("qwen3-0.6b", "Q4_K_M", SETTINGS).generate.tokens_per_s == 30.0


def test_the_same_measurement_counts_once(ask):
    """Kept and asked for again, it narrows nothing."""
    estimator, speed = ask
    estimator.learn((measurement(10.0),))
    once = speed("qwen3-1.7b", "Q4_K_M", SETTINGS)
    estimator.learn((measurement(10.0), measurement(10.0)))
    assert speed("qwen3-1.7b", "Q4_K_M", SETTINGS) == once


def test_a_sound_measurement_outweighs_disturbed_ones(ask):
    """Disturbed ones calibrate only as long as there is nothing better."""
    estimator, speed = ask
    estimator.learn((measurement(5.0, disturbed=("another process",)),))
    disturbed = speed("qwen3-1.7b", "Q4_K_M", SETTINGS).generate.tokens_per_s
    estimator.learn((measurement(10.0, model="qwen3-0.6b"),))
    sound = speed("qwen3-1.7b", "Q4_K_M", SETTINGS).generate.tokens_per_s
    assert sound == pytest.approx(2 * disturbed)


def test_a_speed_at_depth_is_used_at_that_depth_only(ask):
    """tg128 @ d2048 belongs to a context of 4096, half filled; at 8192 it says nothing."""
    estimator, speed = ask
    estimator.learn((measurement(7.0, depth=2048),))
    assert speed("qwen3-0.6b", "Q4_K_M", SETTINGS).generate_at_depth.origin == "measured"
    longer = msgspec.structs.replace(SETTINGS, context_tokens=8192)
    assert speed("qwen3-0.6b", "Q4_K_M", longer).generate_at_depth.origin == "predicted"


def test_siblings_of_one_shape_share_a_measurement(ask):
    """Qwen3-4B and its 2507 revisions are the same to the engine."""
    estimator, speed = ask
    estimator.learn((measurement(9.0, model="qwen3-4b"),))
    assert speed("qwen3-4b-instruct-2507", "Q4_K_M", SETTINGS).generate.origin == "measured"


def test_what_is_set_aside_is_refused_until_it_is_taken_back(ask):
    """A candidate that could not be timed steps back with its reason, for every model of its shape."""
    estimator, _ = ask
    known = estimator._sources.catalogue
    model, sibling = known.model("qwen3-4b"), known.model("qwen3-4b-instruct-2507")
    recipe = known.quantization("Q4_K_M")
    estimator.set_aside(model, estimator._sources.catalogue.quantization("Q4_K_M"), "could not be timed")
    assert estimator(sibling, recipe, SETTINGS).text == "could not be timed"
    assert estimator(sibling, known.quantization("Q8_0"), SETTINGS).file_bytes > 0
    estimator.take_back()
    assert estimator(sibling, recipe, SETTINGS).file_bytes > 0


def test_a_kernel_without_a_sound_measurement_uses_its_disturbed_one(ask):
    """A disturbed Q8_0 says more about Q8_0 than a sound Q4_K_M does."""
    estimator, speed = ask
    disturbed = msgspec.structs.replace(measurement(4.0, disturbed=("steal",)), quantization="Q8_0")
    estimator.learn((measurement(20.0), disturbed))
    assert "Q8_0" in speed("qwen3-1.7b", "Q8_0", SETTINGS).generate.basis
    assert "Q4_K_M" in speed("qwen3-1.7b", "Q4_K_M", SETTINGS).generate.basis
