"""What runs beside a model: drafts, projectors and what a server keeps are in the same rows, and all adds up."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner import workflow
from planner.errors import UsageError
from planner.estimate.rows import device_row, with_extras

pytestmark = pytest.mark.engine

MIB = 1 << 20


def estimate(model="qwen3-0.6b", **changes):
    """The rows of an estimate by device, with its settings."""
    asked = {"context_tokens": 4096, "machine": "epyc-vm-2cpu-24gb", **changes}
    candidate = workflow.estimate(workflow.EstimateRequest(model=model, **asked))
    return {row.device: row for row in candidate.memory}


def test_a_second_model_that_drafts_takes_what_it_would_take_alone():
    """Weights, cache and buffers of the small model are there beside those of the large one."""
    alone, small, both = estimate("qwen3-1.7b"), estimate("qwen3-0.6b"), estimate("qwen3-1.7b", draft="qwen3-0.6b")
    companion = both["CPU"].companion_bytes
    assert both["CPU"].total_bytes == alone["CPU"].total_bytes + companion
    held = small["CPU"].weights_bytes + small["CPU"].cache_bytes
    assert held < companion < small["CPU"].total_bytes + 300 * MIB


def test_a_model_that_drafts_for_itself_takes_a_second_context():
    """Cache and buffers of the block for several tokens, on the card where the block is, and more weights."""
    asked = {"machine": "8x-h100", "context_tokens": 32768}
    without, drafting = estimate("glm-4.5-air", **asked), estimate("glm-4.5-air", mtp=True, **asked)
    last = "CUDA7"
    assert all(row.companion_bytes == 0 for row in without.values())
    # One attention layer of 8 heads of 128 in f16 is 128 MiB at 32k; a compute buffer comes on top.
    assert drafting[last].companion_bytes > 128 * MIB
    assert all(row.companion_bytes == 0 for name, row in drafting.items() if name not in {last, "CPU"})
    assert drafting[last].weights_bytes > without[last].weights_bytes


def test_what_a_server_may_keep_is_counted_on_the_host():
    """``--cache-ram`` in full, also where the model lies on a card; checkpoints only where there is a state to keep."""
    rows = estimate("qwen3.6-27b", machine="rtx-4090", cache_ram_mib=2048, checkpoints=4, parallel=2)
    assert rows["CUDA0"].server_bytes == 0
    # 149.62 MiB of recurrent state for each checkpoint, four for each of two sequences.
    assert rows["CPU"].server_bytes / MIB == pytest.approx(2048 + 8 * 149.62, abs=1)
    plain = estimate("qwen3-0.6b", machine="rtx-4090", checkpoints=4)
    assert plain["CPU"].server_bytes == 0


def test_a_projector_that_is_no_file_is_refused_with_the_way_to_name_one():
    """The catalogue knows how large projectors are, not what they are made of."""
    with pytest.raises(UsageError, match="names no files") as caught:
        estimate(mmproj="qwen3-vl-8b")
    assert "hf:owner/repo" in caught.value.hint


@given(
    st.lists(st.integers(0, 1 << 40), min_size=2, max_size=2),
    st.dictionaries(st.sampled_from(["CUDA0", "CPU", "CUDA1"]), st.integers(0, 1 << 40)),
    st.integers(0, 1 << 40),
)
def test_nothing_that_is_added_gets_lost(weights, companions, server):
    """Whatever the devices: totals grow by exactly what was added, and stay the sum of their parts."""
    rows = [
        device_row(name, private=size, available_bytes=None, origin="engine")
        for name, size in zip(("CUDA0", "CPU"), weights, strict=True)
    ]
    grown = with_extras(rows, companions=companions, server_bytes=server)
    assert sum(row.total_bytes for row in grown) == sum(weights) + sum(companions.values()) + server
    for row in grown:
        assert row.total_bytes == row.weights_bytes + row.cache_bytes + row.compute_bytes + row.overhead_bytes
    assert [row.device for row in grown] == ["CUDA0", "CPU"]


def test_a_plan_grants_its_server_half_of_what_is_left_at_most():
    """The grant stands in settings, memory and command alike, and leaves the reserve alone."""
    from planner.types.plan import Goal

    plan = workflow.plan(Goal(model="qwen3.6-27b"), machine="rtx-4090", measure="none")
    chosen = plan.chosen
    assert chosen is not None
    assert plan.commands is not None
    host = next(row for row in chosen.memory if row.device == "CPU")
    assert 0 < host.server_bytes <= (host.headroom_bytes or 0) + host.server_bytes
    assert host.server_bytes <= 0.5 * ((host.headroom_bytes or 0) + host.server_bytes)
    flags = dict(zip(plan.commands.llama_server, plan.commands.llama_server[1:], strict=False))
    assert flags["--cache-ram"] == str(chosen.settings.cache_ram_mib)
    assert flags["--ctx-checkpoints"] == str(chosen.settings.checkpoints)
    assert chosen.settings.checkpoints > 0
    assert "granted" in {reason.code for reason in msgspec.structs.asdict(chosen)["reasons"]}
