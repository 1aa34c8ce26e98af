"""The facts beside the shape: licences, languages, dates, thinking, vision and MTP; and models that are only known."""

import re
from collections import defaultdict

import pytest

from planner.catalogue import load
from planner.errors import BadInputError, UsageError

_CATALOGUE = load()
_MODELS = sorted(_CATALOGUE.models.values(), key=lambda model: model.id)
_KNOWN = sorted(_CATALOGUE.known_only.values(), key=lambda model: model.id)
_EVERYBODY = [*_MODELS, *_KNOWN]
_each = pytest.mark.parametrize("model", _EVERYBODY, ids=[model.id for model in _EVERYBODY])
_each_plannable = pytest.mark.parametrize("model", _MODELS, ids=[model.id for model in _MODELS])
_each_known = pytest.mark.parametrize("model", _KNOWN, ids=[model.id for model in _KNOWN])


def test_all_models_of_the_collection_are_there_once():
    """169 models were collected; ten of them cannot be planned, and no name means two."""
    assert (len(_MODELS), len(_KNOWN)) == (159, 10)
    names = [name for model in _EVERYBODY for name in {model.id, model.name.lower()}]
    assert len(names) == len(set(names))


@_each
def test_every_source_can_be_looked_up_and_stands_once(model):
    """An address; a number in somebody's search index is none, a repository is followed by the file."""
    assert model.sources
    assert len(set(model.sources)) == len(model.sources)
    for source in model.sources:
        assert re.match(r"https://[\w.-]+/\S", source), source


@_each
def test_a_date_is_a_year_with_month_and_day_as_far_as_they_are_known(model):
    """ISO 8601, shortened where nobody says the day."""
    assert model.released is None or re.fullmatch(r"202[0-9](-(0[1-9]|1[0-2])(-[0-3][0-9])?)?", model.released)


def test_a_licence_says_the_same_for_every_model_that_carries_it():
    """Commercial use, what is allowed and what is asked are the licence's; only ``verified`` is the model's."""
    said = defaultdict(set)
    for model in _EVERYBODY:
        if model.license is not None:
            terms = model.license
            said[terms.id].add((terms.commercial, terms.allows, terms.asks, terms.source))
    assert {name: len(terms) for name, terms in said.items() if len(terms) != 1} == {}
    for ((commercial, allows, _, source),) in said.values():
        assert (allows is None) == (source is None)
        assert commercial is not True or (allows is not None and any("sell" in item for item in allows))
        assert commercial is not False or (allows is not None and not any("sell" in item for item in allows))


def test_licences_that_bite_are_not_taken_for_free_ones():
    """The small Qwen2.5 and its coder are for research; what nobody read is unknown, never allowed."""
    for name in ("qwen2.5-3b", "qwen2.5-coder-3b"):
        assert _CATALOGUE.model(name).license.commercial is False
    for name in ("qwen3.8-flash-next", "glm-5.3", "baichuan2-13b", "openpangu-embedded-7b", "hy3-preview"):
        assert _CATALOGUE.model(name).license.commercial is None


@_each_plannable
def test_languages_are_codes_and_no_more_than_are_claimed(model):
    """Each once, in lower case; an empty list would say that it speaks none."""
    assert model.languages is None or model.languages
    codes = model.languages or ()
    assert len(set(codes)) == len(codes) <= (model.languages_claimed or len(codes))
    assert all(re.fullmatch(r"[a-z]{2,3}|zh-hant", code) for code in codes)


@pytest.mark.parametrize(
    ("name", "language", "speaks"),
    [
        ("qwen3-8b", "ar", True),
        ("qwen3-8b", "AR", True),
        ("qwen3-8b", "tlh", False),  # all 119 are listed
        ("qwen3.5-9b", "ar", True),
        ("qwen3.5-9b", "mn", None),  # 201 are claimed, 119 named
        ("qwen2-7b", "ms", True),
        ("qwen2.5-7b", "ms", None),  # 29 are claimed, 13 named
        ("deepseek-r1", "ar", False),
        ("qwen3-vl-8b", "ar", None),
        ("llama-3.1-8b", "th", True),
        ("seallms-v3-7b", "km", True),
    ],
)
def test_a_language_is_spoken_not_spoken_or_unknown(name, language, speaks):
    """A list that is shorter than the claim leaves the rest open."""
    assert _CATALOGUE.model(name).speaks(language) is speaks


@_each_plannable
def test_what_a_published_count_covers_is_known(model):
    """A count that includes an MTP block names its size, and a part that is counted is no part of the trunk."""
    if "mtp" in model.published_counts:
        assert model.mtp_parameters is not None
    for part in (model.mtp_parameters, model.vision.parameters if model.vision else None):
        assert part is None or 0 < part < model.parameters


@_each_plannable
def test_the_size_of_a_vision_part_follows_from_its_parameters_or_is_unknown(model):
    """F16 takes two bytes; the note says that it was computed."""
    if model.vision is None:
        return
    assert model.vision.note
    assert (model.vision.parameters is None) == (model.vision.mmproj_bytes is None)
    if model.vision.parameters is not None:
        assert model.vision.mmproj_bytes == 2 * model.vision.parameters
        assert "computed" in model.vision.note


def test_the_models_that_see_are_told_from_those_that_do_not():
    """Their vision part is a file of its own beside the weights."""
    sees = {model.family for model in _MODELS if model.vision is not None}
    assert sees == {"Qwen3-VL", "Qwen3.5", "Qwen3.6", "Qwen3.8", "GLM-5", "Kimi-K2", "Mistral-Small"}


@_each_plannable
def test_thinking_is_only_told_of_models_that_think(model):
    """A number of thinking tokens for a model that answers at once would slow it down in every plan."""
    if model.thinking == "none":
        assert model.thinking_tokens is None
        assert "reasoning" not in model.uses
    assert model.thinking_tokens is None or model.thinking_note is not None


def test_a_later_model_of_a_line_is_of_a_later_generation():
    """``generation`` orders what came out when, over all vendors."""
    lines = (
        ("qwen1.5-7b", "qwen2-7b", "qwen2.5-7b", "qwen3-8b", "qwen3.5-9b"),
        ("qwen3-next-80b-a3b", "qwen3-coder-next", "qwen3.6-35b-a3b", "qwen3.8-27b"),
        ("deepseek-llm-67b", "deepseek-v2", "deepseek-v3", "deepseek-v3.1", "deepseek-v3.2", "deepseek-v4-pro"),
        ("llama-2-7b", "llama-3.1-8b", "llama-3.3-70b"),
        ("glm-4-9b", "glm-4-32b-0414", "glm-4.5", "glm-4.6", "glm-4.7", "glm-5", "glm-5.1", "glm-5.2", "glm-5.3"),
        ("kimi-k2", "kimi-k2-0905", "kimi-k2-thinking", "kimi-k2.5", "kimi-k2.6", "kimi-k2.7-code", "kimi-k3"),
    )
    for line in lines:
        generations = [_CATALOGUE.model(name).generation for name in line]
        assert generations == sorted(set(generations)), line
    for newer in _MODELS:
        for older in _MODELS:
            # A year apart is never the other way round.
            if newer.released and older.released and int(newer.released[:4]) > int(older.released[:4]) + 1:
                assert newer.generation > older.generation, (newer.id, older.id)


@_each_known
def test_a_known_model_is_found_by_its_names_and_refused_with_its_reason(model):
    """``find`` gives it, ``model`` says why it cannot be planned."""
    for name in (model.id, model.name, *([model.hf_repo] if model.hf_repo else [])):
        assert _CATALOGUE.find(name) is model
        with pytest.raises(UsageError) as caught:
            _CATALOGUE.model(name)
        assert caught.value.code == "not-plannable"
        assert model.reason in caught.value.message
    assert model.reason[0].islower()
    assert not model.reason.endswith(".")


@pytest.mark.parametrize(
    ("file", "old", "new", "named"),
    [
        ("models/qwen3.toml", 'languages_from = "qwen3"', 'languages_from = "qwen9"', "qwen9"),
        ("models/qwen3.toml", 'id = "Apache-2.0"', 'name = "Apache-2.0"', "models.qwen3-0.6b"),
        ("models/qwen3.toml", 'languages_from = "qwen3"', 'languages = "all"', "languages"),
        ("models/qwen3.5.toml", "mmproj_bytes", "mmproj_byte", "models.qwen3.5-0.8b"),
        ("models/qwen3.5.toml", '"text+mtp+vision"', '"everything"', "published_counts"),
        ("models/qwen1.5.toml", "reason = ", "because = ", "known.qwen1.5-110b"),
        ("models/qwen1.5.toml", '[known."qwen1.5-110b"]', "[known.qwen3-8b]", "taken"),
        ("languages.toml", "claimed = 119", 'claimed = "many"', "languages.toml"),
        ("licenses.toml", "allows = [", "permits = [", "licenses.toml"),
    ],
)
def test_a_wrong_fact_names_its_file_and_place(broken, file, old, new, named):
    """As for shapes: one line that says where the slip is."""
    with pytest.raises(BadInputError) as caught:
        load(broken(file, old, new))
    assert named in caught.value.message
