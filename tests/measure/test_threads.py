"""The trial of threads is one race of the racing core, on a slice that holds every frequent kind of layer."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner import catalogue
from planner.measure.racing import search
from planner.measure.racing_bench import trial_layout
from planner.measure.racing_space import SPINNING_GAIN, thread_changes
from planner.measure.slices import kinds_of_layers
from planner.measure.store import MeasurementStore
from planner.measure.suite import Subject
from planner.measure.threads import _TYPICAL, FACT, ThreadChoice, _choice, kept_choice
from planner.types.settings import Settings
from planner.types.tuning import Setup


class Given:
    """A machine with given times for each number of threads and way of waiting."""

    def __init__(self, one: float, spinning: float) -> None:
        self.one, self.spinning, self.clock_s = one, spinning, 0.0

    def enter(self, setups):
        """Nothing to load."""

    def time_s(self, setup, kind):
        """0.1 s, times what one thread and spinning cost."""
        count = setup.settings.threads if kind == "generate" else setup.settings.threads_batch
        self.clock_s += 0.1
        spins = setup.settings.openmp_wait != "passive"
        return 0.1 * (self.one if count == 1 else 1.0) * (self.spinning if spins else 1.0)

    def leave(self):
        """Nothing disturbs it."""
        return True

    def now_s(self):
        """Seconds of all runs."""
        return self.clock_s


SAFE = Setup(settings=Settings(context_tokens=512, threads=2, threads_batch=2))


@pytest.mark.parametrize(
    ("one", "spinning", "threads", "wait"),
    [
        (1.9, 0.7, 2, "default"),
        (1.9, 0.96, 2, "passive"),
        (0.98, 1.5, 2, "passive"),
        (0.90, 3.0, 1, "passive"),
    ],
)
def test_only_a_clear_gain_takes_the_place_of_all_threads_that_wait_passively(one, spinning, threads, wait):
    """3 % for another number of threads, 5 % for spinning."""
    found = search(
        Given(one, spinning),
        SAFE,
        thread_changes(2, ("default", "passive"), spinning_gain=SPINNING_GAIN),
        _TYPICAL,
        budget_s=100.0,
    )
    choice = _choice(found)
    assert (choice.threads, choice.threads_batch, choice.openmp_wait) == (threads, threads, wait)
    assert choice.trusted


def test_a_trial_without_time_is_not_trusted():
    """What was not raced could have been faster."""
    changes = thread_changes(2, ("default", "passive"), spinning_gain=SPINNING_GAIN)
    found = search(Given(1.9, 0.7), SAFE, changes, _TYPICAL, budget_s=0.0)
    assert not _choice(found).trusted


@given(one=st.floats(0.5, 2.0), spinning=st.floats(0.5, 2.0), budget_s=st.floats(0.0, 30.0))
def test_what_is_trusted_is_what_all_the_time_in_the_world_would_have_found(one, spinning, budget_s):
    """A race, or the winner's last one, that the time ended is no reason to keep a choice for good."""
    changes = tuple(thread_changes(2, ("default", "passive"), spinning_gain=SPINNING_GAIN))
    short, whole = (
        _choice(search(Given(one, spinning), SAFE, changes, _TYPICAL, budget_s=each)) for each in (budget_s, 1e6)
    )
    assert whole.trusted
    found, wanted = (msgspec.structs.replace(each, basis="", trusted=True) for each in (short, whole))
    assert found == wanted or not short.trusted


@pytest.mark.parametrize(
    "model", ["qwen3.6-35b-a3b", "qwen3.8-27b", "kimi-linear-48b-a3b", "qwen3-30b-a3b", "deepseek-v2-lite"]
)
def test_the_trial_slice_is_a_beginning_that_holds_every_frequent_kind_of_layer(model: str) -> None:
    """A slice of recurrent layers alone makes the engine abort; one of each kind, from the start, is a small model."""
    known = catalogue.load()
    found = known.model(model)
    whole = known.layout(found)
    subject = Subject(
        model=model,
        quantization="BF16",
        shape_key="any",
        whole=lambda: whole,
        part=lambda layers: known.layout(found, layers),
        resident_bytes=None,
        usable_bytes=1 << 40,
        cache_bytes=1,
    )
    trial = trial_layout(subject)
    structures = [tuple((suffix, dims) for suffix, dims, _ in kind) for kind in kinds_of_layers(whole)]
    frequent = {each for each in structures if 10 * structures.count(each) >= len(structures)}
    assert trial.layers == tuple(range(len(trial.layers)))
    assert frequent <= {structures[layer] for layer in trial.layers}
    assert len(trial.layers) <= len(whole.layers) // 2


@pytest.mark.parametrize(("trusted", "found"), [(True, True), (False, False)])
def test_a_choice_that_no_finished_race_stands_behind_is_not_used_though_it_was_kept(
    trusted, found, tmp_path, monkeypatch
):
    """Passive waiting, kept by an earlier version after two rounds, halved every speed of a machine from then on."""
    monkeypatch.setenv("PLANNER_CACHE_DIR", str(tmp_path))
    store = MeasurementStore("machine", "build")
    store.keep_fact(FACT, ThreadChoice(threads=2, threads_batch=2, openmp_wait="passive", basis="?", trusted=trusted))
    assert (kept_choice(store, 2) is not None) is found
