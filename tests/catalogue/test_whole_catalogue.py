"""The whole catalogue before the engine and beside what others published, by the functions of bench/catalogue.py."""

import importlib
import math
import sys
from pathlib import Path

import pytest

from planner.catalogue import load

pytestmark = pytest.mark.engine

_BENCH = Path(__file__).parents[2] / "bench"


@pytest.fixture(scope="module")
def bench():
    """``bench/catalogue.py`` and the two modules it stands on."""
    pytest.importorskip("llama_cpp", reason="needs the engine")
    sys.path.insert(0, str(_BENCH))
    try:
        names = ("published_sizes", "examination", "catalogue")
        modules = {name: importlib.import_module(name) for name in names}
    finally:
        sys.path.remove(str(_BENCH))
    yield modules
    for name in modules:
        del sys.modules[name]


@pytest.fixture(scope="module")
def rows(bench, catalogue):
    """One row for each model that can be planned."""
    examination = bench["examination"]
    return list(examination.examine(catalogue, catalogue.models.values(), examination.read_evidence(catalogue)))


@pytest.mark.timeout(120)
def test_every_model_loads_counts_the_same_and_quantizes_to_the_published_sizes(bench, catalogue, rows):
    """No claim of the program fails for any model, in under two minutes."""
    assert [row.model for row in rows] == list(catalogue.models)
    assert bench["catalogue"].faults(rows) == []


def test_the_evidence_is_wide(bench, rows):
    """Three published quantizations or more for many models, over most architectures, and few that nobody explains."""
    summary = bench["catalogue"].summarize(rows)
    assert summary.models >= 159
    assert summary.models_with_three_sizes >= 80
    assert summary.architectures_with_sizes >= 20
    assert summary.sizes_compared >= 530
    assert summary.counts_printed_elsewhere >= 50
    assert summary.median_deviation_percent <= 0.1
    assert summary.differ <= 15
    assert summary.differ_unknown_cause <= 5


_SMALL, _DENSE = "models/qwen3.toml", "architectures/qwen3.toml"


@pytest.mark.parametrize(
    ("file", "old", "new", "fault"),
    [
        (_SMALL, "parameters = 596_049_920", "parameters = 596_049_921", "stated"),
        (_SMALL, "n_ff = 3072", "n_ff = 3104", "printed as 0.596"),
        (_SMALL, "parameters_published = 600_000_000.0", "parameters_published = 690_000_000.0", "label"),
        (_SMALL, 'architecture = "qwen3"', 'architecture = "nowhere"', "does not load"),
        (_DENSE, "blk.{i}.attn_k_norm", "blk.{i}.attn_k_nrm", "does not load"),
        (_DENSE, 'ffn_norm.weight", dims = ["n_embd"]', 'ffn_norm.weight", dims = ["n_ff"]', "does not load"),
    ],
)
def test_a_wrong_profile_is_a_fault(bench, broken, file, old, new, fault):
    """A count, a width, a label, a missing architecture, a tensor's name, a tensor's shape."""
    changed = load(broken(file, old, new))
    examination = bench["examination"]
    row = list(examination.examine(changed, [changed.model("qwen3-0.6b")], examination.read_evidence(changed)))
    faults = bench["catalogue"].faults(row)
    assert any(fault in each for each in faults), faults


@pytest.mark.parametrize(
    ("size", "differs", "faults"),
    [("4.68", {}, 0), ("4.75", {}, 1), ("4.61", {}, 1), ("4.75", {"Q4_K_M": "why"}, 0), ("4.68", {"Q4_K_M": "why"}, 1)],
)
def test_a_size_that_is_off_needs_a_cause_and_a_cause_needs_a_size_that_is_off(bench, catalogue, size, differs, faults):
    """1.5 % to either side is a fault, and so is an excuse for a size that agrees."""
    examination, model = bench["examination"], catalogue.model("qwen2.5-7b")
    page = bench["published_sizes"].Published(
        model=model.id,
        publisher="p",
        source="s",
        counts="file",
        unit="GB",
        digits=3,
        sizes={"Q4_K_M": size},
        differs=differs,
    )
    evidence = examination.Evidence({catalogue.shape_key(model): [page]}, {})
    assert len(bench["catalogue"].faults(examination.examine(catalogue, [model], evidence))) == faults


@pytest.mark.parametrize(
    ("unit", "digits", "excess", "text", "low", "high"),
    [
        ("GB", 3, 0.0, "4.68", 4.675e9, 4.685e9),
        ("GB", 3, 0.0, "8.1", 8.095e9, 8.105e9),
        ("GB", 3, 0.0, "19", 18.95e9, 19.05e9),
        ("GB", None, 0.1, "18.7", 18.55e9, 18.65e9),
        ("GiB", None, 0.0, "21.50", 21.495 * 2**30, 21.505 * 2**30),
        ("bytes", None, 0.0, "4677120000", 4677120000, 4677120000),
    ],
)
def test_a_printed_size_is_the_interval_that_rounds_to_it(bench, unit, digits, excess, text, low, high):
    """A hub shows three digits and drops zeros; a log shows decimals; a card of one publisher adds 0.1 GB."""
    sizes = bench["published_sizes"]
    page = sizes.Published(
        model="m",
        publisher="p",
        source="s",
        counts="file",
        unit=unit,
        digits=digits,
        excess=excess,
        sizes={"Q4_0": text},
    )
    interval = sizes.interval(page, "Q4_0")
    assert math.isclose(interval.low, low)
    assert math.isclose(interval.high, high)


def test_a_gap_is_what_rounding_does_not_explain(bench):
    """Two intervals that meet are no gap; beyond that it counts, with its sign."""
    interval = bench["published_sizes"].Interval
    assert interval(95, 105).gap(interval(100, 100)) == 0
    assert interval(103, 105).gap(interval(98, 102)) == pytest.approx(0.01)
    assert interval(90, 95).gap(interval(98, 102)) == pytest.approx(-0.03)


@pytest.mark.parametrize(
    ("label", "counted", "holds"),
    [
        (32e9, 32_566_081_536, True),
        (21e9, 21_825_437_888, True),
        (0.5e9, 463_987_712, True),
        (48e9, 49_122_681_728, False),
        (32e9, 31_400_000_000, False),
        (7.6e9, 7_715_616_512, False),
        (671e9, 671_026_419_200, True),
    ],
)
def test_a_label_is_rounded_or_cut_off(bench, label, counted, holds):
    """32B is a label for 32.57 billion; for 31.4 it would be another model's."""
    assert bench["examination"].label_holds(label, counted) is holds


@pytest.mark.parametrize(
    ("printed", "count", "names"),
    [
        ("8.03", 8_030_261_248, True),
        ("8.03", 8_036_000_000, False),
        ("0.596", 596_049_920, True),
        ("1.026 T", 1_026_408_232_448, True),
        ("4022468096", 4_022_468_096, True),
        ("4022468096", 4_022_468_097, False),
    ],
)
def test_a_printed_count_names_what_rounds_to_it(bench, printed, count, names):
    """As llama.cpp prints parameters: rounded decimals, or every digit."""
    assert bench["published_sizes"].Counted(model="m", parameters=printed, source="s").names(count) is names
