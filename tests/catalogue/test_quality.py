"""Capability and retention: laws of the shipped profiles, held-out error, and the same numbers out of the same data."""

import itertools
import json
import math
import statistics
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner import catalogue
from planner.catalogue.quality import load_quality, years_since_2025
from planner.errors import BadInputError, MissingInputError
from planner.types.model import Model, Quantization
from planner.types.quality import Capability, TaskGroup

ROOT = Path(__file__).parents[2]
GROUPS: tuple[TaskGroup, ...] = ("chat", "code", "reasoning", "multilingual", "documents")
KINDS = {
    "K": ("Q2_K_S", "Q2_K", "Q3_K_S", "Q3_K_M", "Q3_K_L", "Q4_K_S", "Q4_K_M", "Q5_K_S", "Q5_K_M", "Q6_K"),
    "IQ": ("IQ1_S", "IQ1_M", "IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ2_M", "IQ3_XXS", "IQ3_XS", "IQ3_S", "IQ3_M", "IQ4_XS"),
    "legacy": ("Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0"),
}
KNOWN = catalogue.load()
QUALITY = load_quality()
ENTRIES = [
    (model, QUALITY.capability(model, group, thinking=thinking))
    for model in KNOWN.models.values()
    for thinking in QUALITY.modes(model)
    for group in GROUPS
]


def logits(entry: Capability) -> float:
    """The width of an interval where neither end of the scale squeezes it."""
    return math.log(entry.high / (100 - entry.high)) - math.log(entry.low / (100 - entry.low))


def model_of(parameters: float, **changes: object) -> Model:
    """A dense model that nobody scored."""
    size = round(parameters)
    return msgspec.structs.replace(
        KNOWN.model("qwen3-8b"), name="nobody's", parameters=size, parameters_active=size, **changes
    )


# --- Capability -------------------------------------------------------------------------------------------------------


def test_every_model_has_an_index_inside_its_interval_in_every_mode_and_group() -> None:
    """No model of the catalogue is without a number, and no number is outside its own doubt."""
    assert {model.id for model, _ in ENTRIES} == set(KNOWN.models)
    for model, entry in ENTRIES:
        assert 0 <= entry.low < entry.index < entry.high <= 100, model.id
        assert (entry.origin == "measured") == (entry.scores > 0), model.id


def test_every_shipped_entry_is_of_a_model_and_a_mode_that_exist() -> None:
    """The profile was made for this catalogue: no model has a mode that it lacks, none is left from an older one."""
    shipped = json.loads((ROOT / "profiles/quality/capability.json").read_text())["entries"]
    names = {model.name: model for model in KNOWN.models.values()}
    assert set(shipped) <= set(names)
    for name, entries in shipped.items():
        assert {entry["thinking"] for entry in entries} == set(QUALITY.modes(names[name]))


@pytest.mark.parametrize("group", GROUPS)
def test_less_evidence_is_more_doubt(group: TaskGroup) -> None:
    """Intervals widen from measured over related to inferred; no inferred one is as narrow as a well scored one.

    Compared between guessing and the ceiling, where the scale squeezes no interval.
    """
    widths: dict[str, list[float]] = {"measured": [], "related": [], "inferred": []}
    for _, entry in ENTRIES:
        if entry.group == group and 35 < entry.index < 92:
            widths[entry.origin].append(logits(entry))
    measured, related, inferred = (statistics.median(widths[origin]) for origin in ("measured", "related", "inferred"))
    assert measured < related < inferred
    well = [logits(entry) for _, entry in ENTRIES if entry.group == group and entry.scores >= 4 and entry.index > 35]
    assert max(well, default=0.0) < min(widths["inferred"])


@pytest.mark.parametrize("group", GROUPS)
@pytest.mark.parametrize("twin", ["qwen3-8b", "qwen2.5-72b", "deepseek-v3"])
def test_a_foreign_model_is_inferred_from_its_parameters_with_more_doubt_than_its_scored_twin(
    group: TaskGroup, twin: str
) -> None:
    """A file that nobody put into the catalogue has an index too, and the twin's lies in its interval."""
    known = KNOWN.model(twin)
    foreign = QUALITY.capability(msgspec.structs.replace(known, name="somebody's merge"), group, thinking=False)
    scored = QUALITY.capability(known, group, thinking=False)
    assert foreign.origin == "inferred"
    assert logits(foreign) > logits(scored)
    assert foreign.low < scored.index < foreign.high


@pytest.mark.parametrize("group", GROUPS)
def test_what_is_not_known_about_a_foreign_model_widens_its_interval(group: TaskGroup) -> None:
    """A date says most, a generation nearly as much, and without both the doubt is largest."""
    changes = [{}, {"released": None}, {"released": None, "generation": 0.0}]
    widths = [logits(QUALITY.capability(model_of(8e9, **change), group, thinking=False)) for change in changes]
    assert widths[0] < widths[1] < widths[2]


@given(
    parameters=st.floats(5e8, 2e11),
    more=st.floats(1.05, 4.0),
    group=st.sampled_from(GROUPS),
    thinking=st.booleans(),
)
def test_a_larger_foreign_model_of_the_same_age_has_a_higher_index(
    parameters: float, more: float, group: TaskGroup, thinking: bool
) -> None:
    """Size alone never speaks against a model, over the sizes that the scores cover."""
    small, large = (
        QUALITY.capability(model_of(size), group, thinking=thinking) for size in (parameters, parameters * more)
    )
    assert large.index > small.index


def test_no_larger_model_of_a_family_is_clearly_below_a_smaller_one_of_its_time() -> None:
    """Same family and generation, within half a year: the intervals never say that the larger one is worse."""
    wrong = []
    by_cell: dict[tuple[object, ...], list[tuple[Model, Capability]]] = {}
    for model, entry in ENTRIES:
        by_cell.setdefault((model.family, model.generation, entry.group, entry.thinking), []).append((model, entry))
    for some in by_cell.values():
        for small, lesser in some:
            for large, better in some:
                apart = abs((years_since_2025(large.released) or 0) - (years_since_2025(small.released) or 0))
                larger = (
                    large.parameters > 1.2 * small.parameters and large.parameters_active >= small.parameters_active
                )
                if larger and apart < 0.5 and better.high < lesser.low:
                    wrong.append((large.id, small.id, better.group))
    assert not wrong


@pytest.mark.parametrize("size", ["0.5b", "1.5b", "3b", "7b", "14b", "32b"])
def test_a_coder_is_better_at_code_than_its_sibling(size: str) -> None:
    """What a model was specialised in is what it is best at."""
    coder, sibling = (
        QUALITY.capability(KNOWN.model(name + size), "code", thinking=False).index
        for name in ("qwen2.5-coder-", "qwen2.5-")
    )
    assert coder > sibling


@pytest.mark.parametrize("group", GROUPS)
@pytest.mark.parametrize(
    ("old", "new", "thinking"),
    [
        ("qwen1.5-7b", "qwen2-7b", False),
        ("qwen2-7b", "qwen2.5-7b", False),
        ("qwen2.5-7b", "qwen3-8b", False),
        ("qwen3-8b", "qwen3.5-9b", True),
        ("qwen3-4b", "qwen3-4b-thinking-2507", True),
        ("qwen3-30b-a3b", "qwen3-30b-a3b-instruct-2507", False),
        ("qwen3.5-27b", "qwen3.8-27b", True),
        ("deepseek-v3", "deepseek-v3.1", False),
        ("deepseek-r1", "deepseek-r1-0528", True),
    ],
)
def test_a_newer_generation_of_the_same_size_is_not_worse(old: str, new: str, thinking: bool, group: TaskGroup) -> None:
    """Time went one way, within the margin at which two indices can be told apart."""
    before, after = (QUALITY.capability(KNOWN.model(name), group, thinking=thinking).index for name in (old, new))
    assert after > before - QUALITY.overlap_margin(group)


def test_a_profile_that_is_missing_or_broken_is_named(tmp_path: Path) -> None:
    """Somebody with a damaged installation reads which file it is."""
    with pytest.raises(MissingInputError, match=r"capability\.json"):
        load_quality(tmp_path)
    (tmp_path / "quality").mkdir()
    (tmp_path / "quality/capability.json").write_text('{"features": 3}')
    with pytest.raises(BadInputError, match=r"capability\.json.*features"):
        load_quality(tmp_path)


# --- Retention --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("model", ["qwen3-0.6b", "qwen3-8b", "qwen3-235b-a22b"])
def test_more_bits_of_a_kind_never_retain_less(kind: str, model: str) -> None:
    """The recipes of a kind, from few bits to many: share up, divergence down, agreement up."""
    kept = [QUALITY.retention(KNOWN.quantizations[name], KNOWN.model(model)) for name in KINDS[kind]]
    for fewer, more in itertools.pairwise(kept):
        assert fewer.share <= more.share
        assert fewer.kld >= more.kld
        assert (fewer.agreement or 0) <= (more.agreement or 0)


def test_every_recipe_has_a_share_inside_its_interval_and_sixteen_bits_lose_nothing() -> None:
    """All 30 recipes, for models of every size."""
    for model in KNOWN.models.values():
        for recipe in KNOWN.quantizations.values():
            kept = QUALITY.retention(recipe, model)
            assert 0 < kept.low <= kept.share <= kept.high <= 1, (model.id, recipe.name)
            if recipe.bits_per_weight >= 16:
                assert kept.low > 0.999


@given(
    name=st.sampled_from(sorted(KNOWN.quantizations)),
    parameters=st.floats(3e8, 1e12),
    more=st.floats(1.0, 100.0),
)
def test_a_larger_model_never_retains_less(name: str, parameters: float, more: float) -> None:
    """Small models lose more."""
    recipe = KNOWN.quantizations[name]
    small, large = (QUALITY.retention(recipe, model_of(size)).share for size in (parameters, parameters * more))
    assert large >= small


@given(bits=st.floats(1.0, 16.0), more=st.floats(0.0, 8.0), parameters=st.floats(3e8, 1e12))
def test_an_unknown_recipe_is_judged_by_its_bits(bits: float, more: float, parameters: float) -> None:
    """A mix that nobody measured: more bits never keep less, and the doubt is larger than for a measured recipe."""
    few, many = (
        Quantization(name="SOMEBODY_S_MIX", ftype=-1, bits_per_weight=at, kld=None, kld_source=None)
        for at in (bits, bits + more)
    )
    model = model_of(parameters)
    assert QUALITY.retention(few, model).share <= QUALITY.retention(many, model).share
    assert QUALITY.retention(few, model).origin == "interpolated"


def test_published_losses_lie_in_the_intervals() -> None:
    """Divergences of the data against the curve of the shipped profile: about four of five inside, as 80 % promises."""
    sizes = {"Llama-3-8B": 8.03e9, "Llama-2-7B": 6.74e9, "Qwen3.5-27B": 26.9e9, "Qwen3.5-9B": 8.95e9}
    curve = json.loads((ROOT / "profiles/quality/retention.json").read_text())["types"]
    inside = []
    for line in (ROOT / "bench/data/quant_loss.jsonl").read_text().splitlines():
        row = json.loads(line)
        name = row["quant"].split(" (")[0]
        if row["metric"] == "mean_kld" and row["model"] in sizes and name in curve and name != "F16":
            kept = QUALITY.retention(KNOWN.quantizations[name], model_of(sizes[row["model"]]))
            inside.append(abs(math.log(row["value"] / kept.kld)) < 1.2816 * curve[name]["deviation"])
    assert len(inside) > 40
    assert statistics.fmean(inside) > 0.7


# --- The programs that made the profiles ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def bench() -> Iterator[ModuleType]:
    """``bench/quality.py`` as a module, with its neighbours importable."""
    sys.path.insert(0, str(ROOT / "bench"))
    try:
        import quality

        yield quality
    finally:
        sys.path.remove(str(ROOT / "bench"))


def test_hidden_scores_were_predicted_better_than_by_every_baseline(bench: ModuleType) -> None:
    """The recorded validation, in every way of hiding, and the profile quotes it."""
    recorded = json.loads(bench.RESULTS.read_text())["held_out"]
    assert list(recorded) == list(bench.SPLITS)
    assert bench.broken(recorded) == []
    assert json.loads((ROOT / "profiles/quality/capability.json").read_text())["held_out"] == recorded


def test_models_hidden_now_are_predicted_better_than_by_mean_and_size(bench: ModuleType) -> None:
    """One part of ten of the hardest split, live: all scores of some models, from their family, size, age and mode.

    A dozen models are too few to tell the fit from a baseline that knows size and mode; the recorded run tells.
    """
    import quality_validate

    attributes = bench.read_attributes()
    rows, _ = bench.read_rows(attributes)
    hidden = quality_validate.parts(rows, "a model", 10, 0)[0]
    errors = quality_validate.errors_of([quality_validate.fold(rows, attributes, hidden, iterations=12)])["all"]
    assert errors["scores"] > 50
    for baseline in ("mean", "size"):
        assert errors["fit_mae"] < errors[f"{baseline}_mae"]


def test_every_row_of_the_data_is_used_or_left_out_for_a_reason(bench: ModuleType) -> None:
    """Nothing is lost on the way, and every row says where it was read."""
    data = [json.loads(line) for line in (ROOT / "bench/data/quality.jsonl").read_text().splitlines()]
    rows, left_out = bench.read_rows(bench.read_attributes())
    assert len(rows) + sum(left_out.values()) == len(data)
    assert all(row["source"] for row in data)


def test_the_shipped_profiles_come_out_of_the_data_again(bench: ModuleType) -> None:
    """Fitted anew: every index within 0.05 points, every recipe within 0.01 of its logarithm. Data changed? Write."""
    attributes = bench.read_attributes()
    rows, left_out = bench.read_rows(attributes)
    fitted = bench.fit(rows, attributes)
    shipped = json.loads((ROOT / "profiles/quality/capability.json").read_text())
    assert (shipped["scores"], shipped["left_out"]) == (len(rows), left_out)
    for name, entries in bench.capabilities(fitted, sorted(shipped["entries"])).items():
        for entry, old in zip(entries, shipped["entries"][name], strict=True):
            numbers = [entry.pop(key) - old.pop(key) for key in ("index", "low", "high")]
            assert max(abs(number) for number in numbers) < 0.05, (name, old)
            assert entry == old
    retention = bench.retention_profile(bench.fit_retention())
    old = json.loads((ROOT / "profiles/quality/retention.json").read_text())
    assert retention["loss"] == pytest.approx(old["loss"], abs=0.01)
    for name, curve in retention["types"].items():
        assert curve["log_kld"] == pytest.approx(old["types"][name]["log_kld"], abs=0.01), name
