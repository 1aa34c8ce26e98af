"""Which settings are tried on which machine: nothing that makes no sense there, nothing that costs quality unasked."""

import msgspec
import pytest

from planner.measure.racing_space import Ground, setting_changes, thread_changes, thread_counts
from planner.types.settings import Settings
from planner.types.tuning import Setup

DEFAULT = Setup(settings=Settings(context_tokens=2048, threads=4, threads_batch=4, openmp_wait="default"))
PLAIN = Ground(usable_threads=4, default_threads=4)
RICH = Ground(
    usable_threads=12,
    default_threads=12,
    one_per_core=tuple(range(0, 24, 2)),
    performance=(0, 2, 4, 6),
    numa_nodes=2,
    huge_pages=True,
    gpus=2,
    layers=40,
    experts=True,
    cache_types=("q8_0",),
)


def factors(ground):
    """The names of what is tried."""
    return {change.factor for change in setting_changes(ground)}


def test_a_plain_machine_tries_what_every_machine_has():
    """No pinning among equal cores, no nodes, no GPU."""
    expected = {"threads", "prompt threads", "waiting", "repack", "load mode", "flash attention", "ubatch"}
    assert factors(PLAIN) == expected


def test_a_rich_machine_tries_all_of_it():
    """Cores of two kinds with two threads, two nodes, two GPUs, experts."""
    more = {"pinning", "numa", "gpu layers", "experts in RAM", "split", "operations", "cache type"}
    assert factors(RICH) == factors(PLAIN) | more


def test_the_caches_type_is_never_changed_unasked():
    """Nothing that changes an answer is traded for speed in silence."""
    for ground in (PLAIN, RICH._replace(cache_types=())):
        for change in setting_changes(ground):
            made = change.made_of(DEFAULT)
            assert made is None or (made.settings.cache_type_k, made.settings.cache_type_v) == ("f16", "f16")


@pytest.mark.parametrize("ground", [PLAIN, RICH])
def test_each_change_touches_its_own_and_undoes_itself_for_nobody(ground):
    """Twice is once; the context is never touched; a micro-batch never exceeds the batch."""
    for change in setting_changes(ground):
        made = change.made_of(DEFAULT)
        assert made is not None
        assert change.made_of(made) == made
        assert made.settings.context_tokens == 2048
        assert made.settings.ubatch <= made.settings.batch


@pytest.mark.parametrize(
    ("factor", "ground"), [("waiting", PLAIN), ("repack", RICH), ("load mode", RICH), ("numa", RICH)]
)
def test_a_factor_that_was_changed_can_be_changed_back(factor, ground):
    """The defaults' own option is tried again where others have changed since (spinning with all usable threads)."""
    mine = [change for change in setting_changes(ground) if change.factor == factor]
    changed = next(made for change in mine if (made := change.made_of(DEFAULT)) != DEFAULT)
    assert any(change.made_of(changed) == DEFAULT for change in mine)


def test_a_quantized_cache_of_values_needs_flash_attention():
    """The engine refuses it otherwise, so it is not even tried."""
    quantized = Setup(settings=Settings(context_tokens=64, cache_type_k="q8_0", cache_type_v="q8_0"))
    (off,) = [each for each in setting_changes(PLAIN) if (each.factor, each.option) == ("flash attention", "off")]
    assert off.made_of(quantized) is None


def test_micro_batches_longer_than_the_prompt_are_not_tried():
    """They could not show."""
    short = {each.option for each in setting_changes(PLAIN._replace(prompt_tokens=128)) if each.factor == "ubatch"}
    assert short == {"512"}
    long = {each.option for each in setting_changes(PLAIN._replace(prompt_tokens=2048)) if each.factor == "ubatch"}
    assert long == {"128", "256", "512", "1024"}


def test_thread_counts_start_with_all_and_are_each_named_once():
    """All, three quarters, half, a quarter."""
    assert thread_counts(8) == (8, 6, 4, 2)
    assert thread_counts(1) == (1,)


def test_spinning_is_tried_with_all_threads_whatever_number_is_best_asleep():
    """One thread has nobody to wait for: raced against itself, active waiting would never show what it gains."""
    asleep = Setup(settings=Settings(context_tokens=512, threads=1, threads_batch=2))
    (active,) = [each for each in thread_changes(4, ("active",)) if each.factor == "waiting"]
    made = active.made_of(asleep).settings
    assert (made.threads, made.threads_batch, made.openmp_wait) == (4, 4, "active")
    pinned = active.made_of(msgspec.structs.replace(asleep, cpus=(0, 2))).settings
    assert (pinned.threads, pinned.threads_batch) == (1, 2)
