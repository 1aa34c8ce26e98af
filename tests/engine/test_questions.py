"""The key of an answer: it tells different questions apart, forgets what changes nothing, and can be asked again."""

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from planner.engine.devices import PhantomDevice
from planner.engine.questions import parse_question, question_key
from planner.types.settings import Settings

ALL = tuple(field.name for field in msgspec.structs.fields(Settings))
CARD = PhantomDevice(backend="cuda", free_bytes=23 << 30, total_bytes=24 << 30, compute_capability="8.9")

SETTINGS = st.builds(
    Settings,
    context_tokens=st.integers(1, 1 << 20),
    parallel=st.integers(1, 64),
    cache_type_k=st.sampled_from(["f16", "q8_0"]),
    kv_unified=st.booleans(),
    gpu_layers=st.integers(-1, 99),
    split_mode=st.sampled_from(["none", "layer"]),
    tensor_split=st.lists(st.floats(0.1, 9), max_size=3).map(tuple),
    tensor_overrides=st.lists(st.tuples(st.text(), st.sampled_from(["CPU", "CUDA0"])), max_size=2).map(tuple),
)
CARDS = st.builds(
    PhantomDevice,
    backend=st.sampled_from(["cuda", "vulkan"]),
    free_bytes=st.integers(0, 1 << 37),
    total_bytes=st.just(1 << 37),
    integrated=st.booleans(),
    compute_capability=st.sampled_from([None, "8.9"]),
    fusion=st.booleans(),
)
DEVICES = st.none() | st.lists(CARDS, max_size=3).map(tuple)


def key(settings, devices=(), *, own_gpus=False, fields=ALL, **more):
    """The key of a question about a Q4_K_M."""
    return question_key("Q4_K_M", settings, fields, devices=devices, own_gpus=own_gpus, **more)


@given(SETTINGS, DEVICES, st.booleans(), st.booleans())
def test_what_a_key_tells_is_the_same_question(settings, devices, own_gpus, drafting):
    """Parsed and asked again it has the same key: the answer is found where it was put."""
    made = key(settings, devices, own_gpus=own_gpus, drafting=drafting)
    question = parse_question(made)
    assert question.repeatable
    again = key(
        question.settings,
        None if question.devices == "own" else question.devices or (),
        own_gpus=question.devices == "own",
        drafting=question.drafting,
    )
    assert again == made
    assert question.settings.tensor_overrides == settings.tensor_overrides


@given(SETTINGS, SETTINGS)
def test_two_questions_share_a_key_only_if_they_are_one(one, other):
    """With a GPU every field of the settings counts."""
    assert (key(one, (CARD,)) == key(other, (CARD,))) == (one == other)


def test_the_cpu_the_engines_own_gpus_and_phantoms_are_three_questions():
    """Even where every setting is a default: an engine with GPUs answers differently about each."""
    settings = Settings(context_tokens=4096)
    assert len({key(settings), key(settings, None, own_gpus=True), key(settings, (CARD,))}) == 3
    # An engine without GPUs has only the CPU to speak about.
    assert key(settings, None, own_gpus=False) == key(settings)


def test_without_a_gpu_placement_changes_nothing():
    """Layers on a GPU that is not there are no other question."""
    settings = Settings(context_tokens=4096)
    moved = msgspec.structs.replace(settings, gpu_layers=7, kv_offload=False)
    assert key(settings) == key(moved)
    assert key(settings, (CARD,)) != key(moved, (CARD,))


def test_free_memory_counts_only_where_it_decides_the_split():
    """One card, or a split that is asked for: the same answer whatever is free."""
    settings, fuller = Settings(context_tokens=4096), msgspec.structs.replace(CARD, free_bytes=1 << 30)
    assert key(settings, (CARD,)) == key(settings, (fuller,))
    assert key(settings, (CARD, CARD)) != key(settings, (CARD, fuller))
    split = msgspec.structs.replace(settings, tensor_split=(1.0, 1.0))
    assert key(split, (CARD, CARD)) == key(split, (CARD, fuller))


def test_fields_that_an_answer_does_not_depend_on_are_not_in_its_key():
    """Weights do not depend on the context."""
    near, far = Settings(context_tokens=4096), Settings(context_tokens=8192)
    assert key(near, fields=("repack",)) == key(far, fields=("repack",))
    assert parse_question(key(far, fields=("repack",))).settings.context_tokens == 0


def test_a_key_of_another_planner_is_no_question():
    """Damaged, of an older form, or with a setting that no longer exists: not asked again, and no traceback."""
    for text in ("Q4_K_M|context_tokens=4096", "{}", '{"of":"Q4_K_M","settings":{"parallel":"many"}}', "", "[1]"):
        assert parse_question(text) is None


def test_phantoms_under_other_rules_are_not_repeatable():
    """Their answer changed with planner, not with the engine: that is no drift."""
    told = msgspec.json.decode(key(Settings(context_tokens=4096), (CARD,)))
    older = msgspec.json.encode({**told, "rules": "0123"}).decode()
    assert not parse_question(older).repeatable
