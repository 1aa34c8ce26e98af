"""Capability and retention as shipped: laws that every entry keeps."""

import msgspec
import pytest

from planner import catalogue
from planner.catalogue.quality import Quality, load_quality
from planner.types.quality import TaskGroup

GROUPS: tuple[TaskGroup, ...] = ("chat", "code", "reasoning", "multilingual", "documents")


@pytest.fixture(scope="module")
def models() -> catalogue.Catalogue:
    """The shipped catalogue."""
    return catalogue.load()


@pytest.fixture(scope="module")
def quality() -> Quality:
    """The shipped profiles."""
    return load_quality()


@pytest.mark.parametrize("group", GROUPS)
def test_every_model_has_an_index_inside_its_interval_in_every_mode(models, quality, group: TaskGroup) -> None:
    """No model of the catalogue is without a number, and no number is outside its own doubt."""
    for model in models.models.values():
        for thinking in quality.modes(model):
            found = quality.capability(model, group, thinking=thinking)
            assert 0 <= found.low < found.index < found.high <= 100
            assert (found.group, found.thinking) == (group, thinking)
            assert (found.origin == "measured") == (found.scores > 0)


@pytest.mark.parametrize("group", GROUPS)
def test_a_foreign_model_is_inferred_from_its_parameters(models, quality, group: TaskGroup) -> None:
    """A file that nobody put into the catalogue has an index too, with more doubt than its scored twin."""
    twin = models.model("qwen3-8b")
    foreign = msgspec.structs.replace(twin, name="somebody's merge")
    found = quality.capability(foreign, group, thinking=False)
    known = quality.capability(twin, group, thinking=False)
    assert found.origin == "inferred"
    assert found.high - found.low > known.high - known.low
