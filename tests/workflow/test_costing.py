"""A calibration in use: speeds of models it never saw, refused where it does not hold, refined by measurements."""

import msgspec
import pytest

from planner import catalogue
from planner.engine.child import EngineChild
from planner.engine.graphs import Graphs
from planner.engine.oracle import Oracle
from planner.estimate.costs import amounts
from planner.estimate.costs_learning import learn_costs
from planner.estimate.costs_priors import prior
from planner.estimate.costs_speeds import graph_questions
from planner.estimate.costs_table import Timing
from planner.machine import load
from planner.measure.calibration import Calibration, signature_of
from planner.measure.pace import pace
from planner.types import measurement as kinds
from planner.types.measurement import Conditions, Measurement, Reference, Spread
from planner.types.settings import Settings
from planner.workflow.costing import Costing
from planner.workflow.estimator import CandidateEstimator
from planner.workflow.sources import Sources

pytestmark = pytest.mark.engine
SETTINGS = Settings(context_tokens=4096, threads=2, threads_batch=2)
IDLE = Conditions(load_1min=0.0, steal_ratio=0.0, on_battery=None)
TAUGHT = (("qwen3-0.6b", "Q8_0"), ("qwen3-1.7b", "Q4_K_M"), ("llama-3.2-1b", "Q6_K"), ("qwen3-0.6b", "Q4_K_M"))
ABSENT = ("qwen3-1.7b", "Q8_0")


def true_ns(found):
    """What a graph takes on a machine whose costs are 1.7 times those of the priors."""
    return sum(1.7 * prior(name).cost_ns * amount for name, amount in found.items())


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Catalogue, oracle and graphs that remember nothing yet."""
    folder = tmp_path_factory.mktemp("answers")
    with EngineChild() as child, Oracle(child, folder=folder / "engine", devices=()) as oracle:
        yield catalogue.load(), oracle, Graphs(oracle, folder=folder / "graphs")


@pytest.fixture
def costing(world):
    """A calibration that a few models taught, and the amounts of any model."""
    known, _oracle, graphs = world

    def of(name, quantization, filled=63.5, which=0, settings=SETTINGS):
        model = known.model(name)
        told = graphs.ask(
            known.shape_key(model),
            lambda: known.layout(model),
            known.quantization(quantization),
            graph_questions(settings),
        )
        return amounts(told[which], filled=filled)

    timings = []
    for name, quantization in TAUGHT:
        for which, filled in ((0, 0.0), (0, 1000.0), (0, 2000.0), (1, 0.0), (1, 1000.0)):
            found = of(name, quantization, filled, which)
            timings.append(Timing(label=f"{name} {filled}", amounts=found, took_ns=true_ns(found), doubt=0.01))
    calibration = Calibration(
        signature=signature_of(SETTINGS, machine_key="m", cpu="c", isa=(), engine_build="b"),
        openmp_wait="passive", effort="full", taken_at="2026-01-01T00:00:00+00:00", seconds=50.0, conditions=IDLE,
        table=learn_costs(timings), reference=Reference(generate_ns=(100.0,), prompt_ns=(50.0,)),
    )  # fmt: skip
    return Costing(calibration, graphs, Sources(known)), of


def ask(world, costing, name, quantization, settings=SETTINGS):
    """Speeds of one model."""
    known = world[0]
    return costing.speeds(known.model(name), known.quantization(quantization), settings)


def test_a_model_that_was_never_timed_is_predicted_from_the_costs_of_others(world, costing):
    """Decode, depth, full context and prompt of another model are what its own graph costs, and the interval has it."""
    table, of = costing
    speeds = ask(world, table, *ABSENT)
    for speed, filled in ((speeds.generate, 63.5), (speeds.generate_at_depth, 2048 + 63.5)):
        truth = 1e9 / true_ns(of(*ABSENT, filled))
        assert speed.tokens_per_s == pytest.approx(truth, rel=0.03)
        assert speed.low < truth < speed.high
    truth = 512e9 / true_ns(of(*ABSENT, 0.0, which=1))
    assert speeds.prompt.tokens_per_s == pytest.approx(truth, rel=0.05)
    assert speeds.generate.tokens_per_s > speeds.generate_at_depth.tokens_per_s > speeds.generate_full.tokens_per_s
    assert speeds.generate_full.at_context_tokens == 4096
    assert speeds.generate_together is None
    assert speeds.first_token_s == pytest.approx(2048 / speeds.prompt.tokens_per_s, rel=0.5)
    assert "calibrated here on 2026-01-01" in speeds.generate.basis


def test_a_batch_is_not_told_by_a_calibration_that_never_saw_one(world, costing):
    """What one sequence gets does not depend on how many there could be; what was never timed is not told."""
    four = msgspec.structs.replace(SETTINGS, parallel=4, context_tokens=16384)
    speeds = ask(world, costing[0], "qwen3-1.7b", "Q8_0", four)
    one = speeds.generate.tokens_per_s
    assert speeds.generate_together is None, "a product of four columns was never timed"
    assert one == pytest.approx(ask(world, costing[0], "qwen3-1.7b", "Q8_0").generate.tokens_per_s)


@pytest.mark.parametrize(
    "change", [{"threads": 1}, {"threads_batch": 1}, {"repack": False}, {"speculation": "draft-mtp"}]
)
def test_other_settings_than_those_of_the_calibration_get_no_speed_from_it(world, costing, change):
    """The signature is what the costs hold for."""
    assert ask(world, costing[0], *ABSENT, settings=msgspec.structs.replace(SETTINGS, **change)) is None


def test_a_prompt_of_a_mixture_is_as_long_as_it_is(world, costing):
    """512 tokens that each visit 8 experts are 512 tokens: the prompt costs what its graph says, once."""
    table, of = costing
    prompt = of("qwen3-30b-a3b", "Q8_0", 0.0, which=1)
    told = table._calibration.table.took(prompt)
    speeds = ask(world, table, "qwen3-30b-a3b", "Q8_0")
    assert speeds.prompt is None if told is None else 512e9 / told.middle_ns == speeds.prompt.tokens_per_s


def measured(tokens_per_s, *, disturbed=(), layers=28, reference=None):
    """A measured decode speed of the absent model."""
    spread = Spread(median=tokens_per_s, low=tokens_per_s, high=tokens_per_s, relative_mad=0.01)
    result = kinds.TestResult(
        test=kinds.Test(kind="generate", tokens=128), tokens_timed=128, samples_ns=(1,), tokens_per_s=spread
    )
    return Measurement(
        model=ABSENT[0], quantization=ABSENT[1], settings=SETTINGS, engine_build="b", machine_key="m", taken_at="t",
        layers_timed=layers, layers_total=28, results=(result,),
        conditions=msgspec.structs.replace(IDLE, disturbed=disturbed), reference=reference,
    )  # fmt: skip


def test_a_measured_model_refines_the_costs_and_a_disturbed_or_composed_one_does_not(world, costing):
    """A model that turned out a fifth slower pulls its prediction down; a busy machine or slices say nothing."""
    table = costing[0]
    known = world[0]
    model, quantization = known.model(ABSENT[0]), known.quantization(ABSENT[1])
    before = ask(world, table, *ABSENT).generate.tokens_per_s
    for useless in (measured(0.8 * before, disturbed=("busy",)), measured(0.8 * before, layers=4)):
        table.learn([(model, quantization, useless)])
        assert ask(world, table, *ABSENT).generate.tokens_per_s == before
    table.learn([(model, quantization, measured(0.8 * before))])
    after = ask(world, table, *ABSENT).generate
    assert 0.8 * before < after.tokens_per_s < 0.9 * before
    assert "corrected by measuring qwen3-1.7b Q8_0" in after.basis
    other = ask(world, table, "qwen3-0.6b", "Q8_0").generate
    assert "corrected" in other.basis, "models of one architecture are off in the same direction"
    assert "corrected" not in ask(world, table, "llama-3.2-1b", "Q6_K").generate.basis


@pytest.mark.parametrize("layers", [4, 28])
def test_speeds_are_told_at_the_usual_pace_of_the_machine(world, costing, layers):
    """What is as calibrated once and slower once is slower by half; models follow the reference in part."""
    table, known = costing[0], world[0]
    before = ask(world, table, *ABSENT)
    slow = Reference(generate_ns=(125.0,), prompt_ns=(60.0,))
    slower = pace(slow, Reference(generate_ns=(100.0,), prompt_ns=(50.0,)))
    run = measured(before.generate.tokens_per_s / slower, layers=layers, reference=slow)
    table.learn([(known.model(ABSENT[0]), known.quantization(ABSENT[1]), run)])
    after = ask(world, table, *ABSENT)
    assert 1 < slower < 1.25
    assert after.generate.tokens_per_s == pytest.approx(before.generate.tokens_per_s / ((1 + slower) / 2))
    assert after.prompt.tokens_per_s == pytest.approx(before.prompt.tokens_per_s / ((1 + slower) / 2))
    assert "usual pace of 2 occasions" in after.generate.basis


def test_a_slow_hour_is_not_held_against_a_model_s_prompts(world, costing):
    """A prompt slower by what the reference beside it explains corrects nothing but the pace."""
    table, known = costing[0], world[0]
    before = ask(world, table, *ABSENT).prompt.tokens_per_s
    slow = Reference(generate_ns=(100.0,), prompt_ns=(60.0,))
    slower = pace(slow, Reference(generate_ns=(100.0,), prompt_ns=(50.0,)))
    spread = Spread(median=before / slower, low=before / slower, high=before / slower, relative_mad=0.01)
    prompt = kinds.TestResult(
        test=kinds.Test(kind="prompt", tokens=512), tokens_timed=512, samples_ns=(1,), tokens_per_s=spread
    )
    run = msgspec.structs.replace(measured(1.0, reference=slow), results=(prompt,))
    table.learn([(known.model(ABSENT[0]), known.quantization(ABSENT[1]), run)])
    assert ask(world, table, *ABSENT).prompt.tokens_per_s == pytest.approx(before * 2 / (1 + slower), rel=0.01)


def test_the_estimator_tells_the_speeds_of_a_calibration_and_of_what_does_not_fit_only_if_asked(world, costing):
    """A model larger than the RAM has no speed here, unless the question is what it would be with the memory."""
    known, oracle, _ = world
    machine = load("epyc-vm-2cpu-24gb")

    def speed(name, *, if_memory=False):
        estimator = CandidateEstimator(oracle, Sources(known), machine, costing=costing[0], if_memory=if_memory)
        return estimator(known.model(name), known.quantization("Q8_0"), SETTINGS).speed.generate

    assert "calibrated" in speed("qwen3-1.7b").basis
    assert speed("qwen3-32b") is None
    assert "calibrated" in speed("qwen3-32b", if_memory=True).basis
