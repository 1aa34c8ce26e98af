"""From a goal to a plan: on every shipped machine, with the real engine and without measuring."""

import functools
import itertools
import os
import tomllib
from pathlib import Path

import msgspec
import pytest

from planner import machine, workflow
from planner.catalogue.quality import load_quality
from planner.choose import policy
from planner.errors import EngineMissingError, UsageError
from planner.types.plan import Goal

pytestmark = pytest.mark.engine

SANITY = tomllib.loads((Path(__file__).parent / "sanity.toml").read_text(encoding="utf-8"))
USES = ("chat", "code", "reasoning", "documents")
REVIEWED = [(name, use) for name in SANITY for use in USES]
# A plan for a machine with GPUs asks the engine hundreds of questions on phantom devices. All of them together take
# longer than a suite may: PLANNER_ALL_MACHINES=1 plans for every machine, else for those without a GPU and one with.
EVERYTHING = bool(os.environ.get("PLANNER_ALL_MACHINES"))
ONE_CARD = "rtx-4090"
MACHINES = [name for name in machine.names() if EVERYTHING or name == ONE_CARD or not machine.load(name).gpus]
PLANNED = [(n, use) for n, use in REVIEWED if n in MACHINES and (EVERYTHING or n != ONE_CARD or use == "chat")]


@pytest.fixture(scope="module", autouse=True)
def one_cache(tmp_path_factory):
    """One cache for the module, not the user's."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PLANNER_CACHE_DIR", str(tmp_path_factory.mktemp("cache")))
        yield


@functools.cache
def plan_for(name, **goal):
    """An unmeasured plan for a shipped machine; the same question is answered once for all tests."""
    return workflow.plan(Goal(**goal), machine=name, measure="none")


@pytest.mark.parametrize("name", MACHINES)
def test_a_plan_for_a_shipped_machine_fits_it_with_the_reserve(name):
    """Every device has room, the speed floor is met, totals are sums, and every other model has its place."""
    plan = plan_for(name)
    assert plan.chosen is not None
    for candidate in (plan.chosen, *plan.alternatives):
        for row in candidate.memory:
            assert row.total_bytes == row.weights_bytes + row.cache_bytes + row.compute_bytes + row.overhead_bytes
            assert row.headroom_bytes is not None
            assert row.headroom_bytes >= 0
        speed = candidate.speed.generate
        assert speed is None or speed.tokens_per_s >= plan.goal.min_tokens_per_s
    accounted = {plan.chosen.model, *(c.model for c in plan.alternatives), *(r.model for r in plan.rejected)}
    assert len(accounted) >= len(workflow.models().models) - 5
    assert plan.commands is not None
    assert plan.commands.llama_server[0] == "llama-server"


def test_fourteen_machines_are_reviewed_for_every_use_with_a_reason():
    """The golden file is whole: 14 machines, four uses, a reason of a sentence for each."""
    assert len(SANITY) == 14
    assert set(SANITY) <= set(machine.names())
    assert all(len(SANITY[name][use]["why"]) >= 15 for name, use in REVIEWED)


@pytest.mark.parametrize(("name", "use"), PLANNED)
def test_the_choice_is_the_one_that_was_reviewed(name, use):
    """Model, quantization and mode are those of the golden file, which says why somebody with experience agrees."""
    chosen = plan_for(name, use=use).chosen
    golden = SANITY[name][use]
    assert (chosen.model, chosen.quantization, chosen.thinking) == (
        golden["model"],
        golden["quantization"],
        golden["thinking"],
    ), f"reviewed: {golden['why']}"


@pytest.mark.parametrize(("name", "use"), PLANNED[::5])
def test_what_is_chosen_answers_in_time_and_stands_on_the_list_of_what_nothing_beats_in_all_three(name, use):
    """The wait is within the limit; beside the choice no point is at once worse, slower and larger than another."""
    plan = plan_for(name, use=use)
    assert plan.chosen.answer_seconds <= policy.longest_answer_seconds(plan.goal)
    assert plan.trade_off
    # What a server may keep is granted to the choice alone, after it was chosen.
    asked = msgspec.structs.replace(plan.chosen.settings, cache_ram_mib=0, checkpoints=0)
    ours = (plan.chosen.model, plan.chosen.quantization, asked)
    assert ours in [(each.model, each.quantization, each.settings) for each in plan.pareto]
    merits = [
        (each.index.value, each.speed.generate.tokens_per_s, -sum(row.total_bytes for row in each.memory))
        for each in plan.pareto
    ]
    assert merits == sorted(merits, key=lambda merit: -merit[0])
    others = [merit for merit, each in zip(merits, plan.pareto, strict=True) if each.model != plan.chosen.model]
    for one in others:
        assert not any(all(a >= b for a, b in zip(other, one, strict=True)) for other in merits if other != one)


@pytest.mark.parametrize("use", USES)
def test_more_memory_never_costs_more_index_than_speed_is_worth(use):
    """From the small to the large: an index falls at most by what the rule of equal indices may trade for speed."""
    names = ("container-4gb", "laptop-8gb", "laptop-16gb-igpu", "rtx-3060-12gb", "rtx-4090", "h100-80gb", "8x-h100")
    values = [plan_for(name, use=use).chosen.index.value for name in names if (name, use) in PLANNED or EVERYTHING]
    assert len(values) > 1
    margin = load_quality().overlap_margin(policy.group_of(use))
    assert all(later >= earlier - 2 * margin for earlier, later in itertools.pairwise(values))


def test_a_larger_machine_never_gets_a_model_that_scores_less():
    """4 GB container, 8 GB laptop, 16 GB laptop, 24 GB card, 80 GB card, eight of them: scores never fall."""
    names = ("container-4gb", "laptop-8gb", "laptop-16gb-igpu", "rtx-4090", "h100-80gb", "8x-h100")
    plans = [plan_for(name) for name in names if name in MACHINES]
    scores = [plan.chosen.score for plan in plans]
    assert scores == sorted(scores)


def test_the_same_inputs_give_the_same_plan_byte_for_byte():
    """Only the time of writing differs."""
    first, second = (msgspec.structs.replace(plan_for.__wrapped__("rtx-4090"), created_at="") for _ in range(2))
    assert msgspec.json.encode(first) == msgspec.json.encode(second)


def test_a_goal_that_nothing_meets_is_a_plan_with_reasons():
    """A thousand tokens per second on a Raspberry Pi: nothing chosen, the closest named."""
    plan = plan_for("raspberry-pi-5-8gb", min_tokens_per_s=1000.0)
    assert plan.chosen is None
    assert plan.commands is None
    assert any("closest" in reason.text for reason in plan.reasons)


def test_a_fixed_model_is_kept_and_the_rest_is_chosen():
    """``--model qwen3-14b`` on a 12 GB card; a quantization may hang on the name."""
    free = plan_for("rtx-3060-12gb", model="qwen3-14b")
    fixed = plan_for("rtx-3060-12gb", model="Qwen/Qwen3-14B:q4_k_m")
    assert free.chosen.model == fixed.chosen.model == "qwen3-14b"
    assert fixed.chosen.quantization == "Q4_K_M"


def test_a_commercial_licence_is_respected():
    """Qwen2.5-3B is non-commercial and is named so."""
    plan = plan_for("laptop-8gb", commercial_license=True)
    lost = {each.model: each.reason.code for each in plan.rejected}
    assert lost["qwen2.5-3b"] == "licence"
    assert plan.chosen.model != "qwen2.5-3b"


@pytest.mark.parametrize(
    ("goal", "code"),
    [
        (Goal(model="qwen9-8b"), "unknown-model"),
        (Goal(model="qwen3-8b", quantization="Q9_Z"), "unknown-quantization"),
        (Goal(families=("klingon",)), "unknown-family"),
        (Goal(model="qwen3-8b", context_tokens=1_000_000), "impossible-context"),
    ],
)
def test_a_bad_goal_is_told_before_an_engine_is_started(goal, code):
    """Even where there is no engine at all, the slip in the words comes first."""
    with pytest.raises(UsageError) as raised:
        workflow.plan(goal, measure="none", engine_python="/does/not/exist")
    assert raised.value.code == code
    assert raised.value.hint


def test_without_an_engine_the_remedy_is_one_line():
    """An interpreter without llama_cpp."""
    with pytest.raises(EngineMissingError) as raised:
        workflow.plan(Goal(), measure="none", engine_python="/does/not/exist")
    assert "\n" not in raised.value.hint
    assert "llama-planner[engine]" in raised.value.hint


def test_detect_goes_on_without_an_engine():
    """The machine is told; the engine's part becomes a note."""
    found, notes = workflow.detect(engine_python="/does/not/exist")
    assert found.engine is None
    assert found.memory.total_bytes > 0
    assert len(notes) == 1


def test_why_not_answers_for_every_model_and_agrees_with_the_plan():
    """Fifty models, one reason each; the chosen one is the best."""
    plan = plan_for("rtx-4090")
    for name in list(workflow.models().models)[::7]:
        answer = workflow.why_not(Goal(), name, machine="rtx-4090")
        assert answer.reason.text
        assert answer.chosen == f"{plan.chosen.model}:{plan.chosen.quantization}"
        assert (answer.reason.code == "best") == (name == plan.chosen.model)


def test_deepseek_r1_on_a_large_server_is_estimated_from_afar():
    """671 B parameters at the full context: hundreds of GiB, known to the byte, held by nobody."""
    request = workflow.EstimateRequest(
        model="deepseek-r1", quantization="Q4_K_M", context_tokens=163_840, machine="epyc-768gb"
    )
    candidate = workflow.estimate(request)
    (row,) = candidate.memory
    assert row.cache_bytes == 163_840 * 61 * 576 * 2  # one latent row of 576 halves per token and layer
    assert 376 < candidate.file_bytes / (1 << 30) < 377
    assert candidate.verdict == "fits"
