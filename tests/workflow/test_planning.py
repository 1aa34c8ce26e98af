"""From a goal to a plan: on every shipped machine, with the real engine and without measuring."""

import msgspec
import pytest

from planner import machine, workflow
from planner.errors import EngineMissingError, UsageError
from planner.types.plan import Goal

pytestmark = pytest.mark.engine


@pytest.fixture(scope="module", autouse=True)
def one_cache(tmp_path_factory):
    """One cache for the module, not the user's."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PLANNER_CACHE_DIR", str(tmp_path_factory.mktemp("cache")))
        yield


def plan_for(name, **goal):
    """An unmeasured plan for a shipped machine."""
    return workflow.plan(Goal(**goal), machine=name, measure="none")


@pytest.mark.parametrize("name", machine.names())
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


def test_a_larger_machine_never_gets_a_model_that_scores_less():
    """4 GB container, 8 GB laptop, 16 GB laptop, 24 GB card, 80 GB card, eight of them: scores never fall."""
    names = ("container-4gb", "laptop-8gb", "laptop-16gb-igpu", "rtx-4090", "h100-80gb", "8x-h100")
    plans = [plan_for(name) for name in names]
    scores = [plan.chosen.score for plan in plans]
    assert scores == sorted(scores)


def test_the_same_inputs_give_the_same_plan_byte_for_byte():
    """Only the time of writing differs."""
    first, second = (msgspec.structs.replace(plan_for("rtx-3060-12gb"), created_at="") for _ in range(2))
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
