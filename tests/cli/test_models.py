"""``planner models`` and ``planner show`` over the shipped catalogue: what is asked narrows, text and JSON agree."""

import itertools
import json
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from planner import catalogue, workflow
from planner.cli import run
from planner.errors import UsageError

_MODELS = catalogue.load().models

_CONDITIONS = st.fixed_dictionaries(
    {},
    optional={
        "families": st.sampled_from([("qwen",), ("deepseek", "glm"), ("Llama-3", "kimi"), ("qwen3.5",)]),
        "commercial": st.just(value=True),
        "languages": st.sampled_from([("ar",), ("zh", "en"), ("th", "ms"), ("de",)]),
        "thinking": st.booleans(),
        "max_bytes": st.sampled_from([1 << 30, 8 << 30, 64 << 30]),
        "fits": st.just(value=True),
    },
)


def _found(conditions):
    where = {"machine": "laptop-16gb-igpu"} if conditions.get("fits") else {}
    return {model.id for model in workflow.select(workflow.ModelFilter(**conditions, **where)).models}


@settings(deadline=None, max_examples=12)
@given(conditions=_CONDITIONS)
def test_what_several_conditions_leave_is_what_each_of_them_leaves(conditions):
    """Filters are intersections, in whatever order and number they are given."""
    together = _found(conditions)
    alone = [_found({name: value}) for name, value in conditions.items()]
    assert together == set(_MODELS).intersection(*alone)


def test_two_families_are_both_meant_and_two_languages_are_both_asked():
    """``--family`` widens what ``--family`` narrows; every ``--language`` narrows."""
    both = _found({"families": ("qwen3.5", "yi")})
    assert both == _found({"families": ("qwen3.5",)}) | _found({"families": ("yi",)})
    spoken = _found({"languages": ("ar", "th")})
    assert spoken == _found({"languages": ("ar",)}) & _found({"languages": ("th",)})
    assert spoken


def test_every_model_passes_one_side_of_thinking_and_a_hybrid_both():
    """A hybrid can think and can answer at once."""
    thinks, answers = _found({"thinking": True}), _found({"thinking": False})
    assert thinks | answers == set(_MODELS)
    assert {_MODELS[name].thinking for name in thinks & answers} == {"hybrid"}


def test_an_unknown_language_is_no_yes_and_is_told():
    """Who is left out only because nobody says which languages it speaks is named."""
    listing = workflow.select(workflow.ModelFilter(languages=("ar",)))
    unsure = set(listing.languages_unknown)
    assert unsure.isdisjoint(model.id for model in listing.models)
    assert all(_MODELS[name].speaks("ar") is None for name in unsure)
    assert "qwen3-vl-8b" in unsure
    assert "deepseek-r1" not in unsure


def test_more_memory_never_leaves_a_model_out():
    """What fits a laptop fits a server, and a larger size allows what a smaller one did."""
    machines = ("laptop-8gb", "laptop-16gb-igpu", "m3-max-64gb", "epyc-768gb")
    fitting = [
        {model.id for model in workflow.select(workflow.ModelFilter(fits=True, machine=name)).models}
        for name in machines
    ]
    assert all(smaller < larger for smaller, larger in itertools.pairwise(fitting))
    sizes = [_found({"max_bytes": size << 30}) for size in (1, 4, 40, 4000)]
    assert all(smaller < larger for smaller, larger in itertools.pairwise(sizes))
    assert sizes[-1] == set(_MODELS)


@pytest.mark.parametrize(
    ("asked", "code"),
    [({"families": ("gpt",)}, "unknown-family"), ({"languages": ("tlh",)}, "unknown-language")],
    ids=["family", "language"],
)
def test_what_no_model_has_is_a_usage_error_and_no_empty_list(asked, code):
    """A typing slip must not look like an answer."""
    with pytest.raises(UsageError) as caught:
        workflow.select(workflow.ModelFilter(**asked))
    assert caught.value.code == code


@pytest.fixture
def planner(capfd):
    """The real command line in this process: exit code, stdout, stderr."""

    def call(*words):
        with pytest.raises(SystemExit) as leaving:
            run(words)
        out, err = capfd.readouterr()
        return leaving.value.code, out, err

    return call


@pytest.mark.parametrize(
    "words",
    [(), ("--family", "qwen3"), ("--license", "commercial", "--language", "ar"), ("--max-size", "2GiB")],
    ids=" ".join,
)
def test_the_list_in_text_and_in_json_names_the_same_models(words, planner):
    """Nothing is on paper that a script does not see, and the other way round."""
    _, out, _ = planner("models", *words, "--json")
    document = json.loads(out)
    _, text, _ = planner("models", *words)
    before, _, after = text.partition("Known, not plannable\n")
    assert re.findall(r"^  ([a-z][\w.-]*)  +\d", before, re.MULTILINE) == [
        entry["name"] for entry in document["models"]
    ]
    assert re.findall(r"^  (\S+): ", after, re.MULTILINE) == [entry["name"] for entry in document["known_only"]]


def test_what_cannot_be_planned_is_listed_with_its_reason(planner):
    """The ten of which too little is known are in the plain list, and in none that asks for more than is known."""
    _, out, _ = planner("models", "--json")
    known = json.loads(out)["known_only"]
    assert len(known) == 10
    assert all(len(entry["reason"]) > 20 for entry in known)
    _, out, _ = planner("models", "--json", "--thinking")
    assert json.loads(out)["known_only"] == []


@pytest.mark.parametrize("words", [("estimate", "ChatLaw-13B"), ("estimate", "deepseek-v4.1-flash")], ids=" ".join)
def test_a_model_that_is_only_known_is_refused_with_the_reason(words, planner):
    """The error says why, not that the name is unknown."""
    code, out, err = planner(*words, "--json")
    assert (code, err) == (2, "")
    error = json.loads(out)["error"]
    assert error["code"] == "not-plannable"
    assert catalogue.load().find(words[1]).reason in error["message"]


@pytest.mark.parametrize("name", [*sorted(_MODELS)[::12], "qwen3.5-27b", "kimi-k3", "qwen3.8-2.4t-a95b"])
def test_show_tells_every_fact_of_the_document_in_its_text_too(name, planner):
    """Licence, sources, notes, languages and counts stand in both."""
    _, out, _ = planner("show", name, "--json")
    model = json.loads(out)["model"]
    _, text, _ = planner("show", name)
    flat = re.sub(r"\s+", " ", text)
    wanted = [
        model["license"]["id"],
        f"{model['parameters']:,}",
        f"{model['context_native']:,}",
        *model["sources"],
        *(model["license"]["asks"] or []),
        *(model[key] for key in ("notes", "released", "thinking_note", "languages_note", "hf_repo") if model[key]),
        ", ".join(model["languages"] or []),
    ]
    assert [fact for fact in wanted if fact not in flat] == []


def test_show_tells_a_known_model_and_why_it_cannot_be_planned(planner):
    """It is found by its published name, and both documents carry the reason."""
    _, out, _ = planner("show", "tencent/Hy4-preview", "--json")
    document = json.loads(out)
    assert document["model"] is None
    _, text, _ = planner("show", "hy4-preview")
    assert document["known_only"]["reason"] in re.sub(r"\s+", " ", text)


def test_show_of_an_unknown_name_suggests_a_known_one(planner):
    """As everywhere."""
    code, _, err = planner("show", "qwen3-9b")
    assert code == 2
    assert "qwen3-8b" in err
