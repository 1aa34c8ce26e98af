"""One load answers many questions, and never one about another model."""

import contextlib
from functools import partial

import pytest
from msgspec.structs import replace

from planner import catalogue
from planner.engine import oracle as oracle_module
from planner.engine.child import EngineChild
from planner.engine.oracle import Oracle
from planner.types.settings import Settings

pytestmark = pytest.mark.engine
NAMES = ("qwen3-0.6b", "qwen2.5-0.5b", "qwen3-4b", "qwen3-1.7b")


@pytest.fixture(scope="module")
def known():
    """The shipped catalogue."""
    return catalogue.load()


@pytest.fixture
def child():
    """A child that has loaded nothing yet."""
    with EngineChild() as running:
        yield running


@pytest.fixture
def written(monkeypatch):
    """Counts the phantoms that are written."""
    count, real = [], oracle_module._phantom

    @contextlib.contextmanager
    def counted(layout):
        count.append(layout)
        with real(layout) as path:
            yield path

    monkeypatch.setattr(oracle_module, "_phantom", counted)
    return count


def asked(known, name):
    """Shape key and layout source of a model."""
    model = known.model(name)
    return known.shape_key(model), partial(known.layout, model)


def buffers(oracle, known, name, **changes):
    """The buffers of a model in F16 under a few settings, without the log."""
    settings = Settings(context_tokens=1024, **changes)
    (told,) = oracle.buffers(*asked(known, name), [settings], known.quantization("F16"))
    return replace(told, log=())


def test_a_model_is_written_once_for_many_questions(child, known, tmp_path, written):
    """Once for the types of its tensors, once to be loaded; then twenty contexts and the place of its weights."""
    oracle = Oracle(child, folder=tmp_path)
    for context in range(1, 21):
        oracle.buffers(*asked(known, NAMES[0]), [Settings(context_tokens=256 * context)], known.quantization("F16"))
    oracle.weights(*asked(known, NAMES[0]), known.quantization("F16"), Settings(context_tokens=512))
    assert len(written) == 2


def test_many_models_in_turn_are_answered_as_each_alone(child, known, tmp_path):
    """More than are kept loaded, in turn, each with settings that need another load in between."""
    alone = {}
    for name in NAMES:
        with EngineChild() as fresh:
            for repack in (True, False):
                oracle = Oracle(fresh, folder=tmp_path / "alone" / f"{name}{repack}")
                alone[name, repack] = buffers(oracle, known, name, repack=repack)
    for turn in range(3):
        oracle = Oracle(child, folder=tmp_path / f"{turn}")
        for repack in (True, False):
            for name in NAMES:
                assert buffers(oracle, known, name, repack=repack) == alone[name, repack]


def test_settings_of_several_loads_are_answered_in_one_call(child, known, tmp_path):
    """With and without repacking, in order."""
    settings = [Settings(context_tokens=1024, repack=repack) for repack in (True, False, True)]
    recipe = known.quantization("Q4_0")
    told = Oracle(child, folder=tmp_path / "together").buffers(*asked(known, NAMES[0]), settings, recipe)
    for each, answer in zip(settings, told, strict=True):
        alone = Oracle(child, folder=tmp_path / f"{each.repack}").buffers(*asked(known, NAMES[0]), [each], recipe)
        assert answer.buffers == alone[0].buffers
    assert told[0].buffers != told[1].buffers


def test_a_new_child_knows_nothing_and_is_told(child, known, tmp_path):
    """The one that had the model loaded is gone; the next question finds another."""
    oracle = Oracle(child, folder=tmp_path)
    before = buffers(oracle, known, NAMES[0])
    child.close()
    with EngineChild() as next_child:
        oracle._child = next_child
        assert buffers(oracle, known, NAMES[0], parallel=2) != before
        oracle._shapes.clear()
        assert buffers(oracle, known, NAMES[0]) == before
