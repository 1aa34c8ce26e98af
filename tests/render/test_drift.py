"""Drift in words: both numbers and the change, each number of a model once, refusals in the engine's words."""

from planner.render.drift import change_words, drift_text
from planner.render.style import WIDTH, Style
from planner.types.drift import Change, DriftReport

MIB = 1 << 20


def change(**other):
    """Compute of a model that grew from 304.75 to 330.12 MiB."""
    told = {
        "shape_key": "9166f1d2928f0e9f", "model": "qwen3-8b", "question": "{}", "quantization": "Q4_K_M",
        "quantity": "compute", "buffer": "CUDA0", "before_bytes": 319_553_536, "after_bytes": 346_155_909,
    }  # fmt: skip
    return Change(**{**told, **other})


def test_a_change_is_a_sentence_with_both_numbers():
    """What moved, of which model, from where to where."""
    assert change_words(change()) == "compute of qwen3-8b Q4_K_M (CUDA0) 304.75 → 330.12 MiB, +8.3 %"
    assert change_words(change(model=None, buffer=""), Style(unicode=False)) == (
        "compute of a model of shape 9166f1d2928f Q4_K_M 304.75 -> 330.12 MiB, +8.3 %"
    )
    assert change_words(change(before_bytes=0)).endswith("0.00 → 330.12 MiB, new")
    refused = change(quantity="refusal", before_bytes=None, after_bytes=None, text="no such type")
    assert change_words(refused) == "qwen3-8b Q4_K_M: the engine refuses what it used to answer: no such type"


def test_the_table_has_each_number_once_with_its_count(drifted):
    """Two contexts in which the same buffer grew are one row; the first, the largest, gives the numbers."""
    text = drift_text(drifted)
    (row,) = [line for line in text.splitlines() if "compute CUDA0" in line]
    assert row.split() == ["qwen3-8b", "Q4_K_M", "compute", "CUDA0", "304.75", "330.12", "+8.3", "%", "2"]
    assert "refused" in text
    assert "3 questions were asked about a file" in text
    assert max(map(len, text.splitlines())) <= WIDTH


def test_no_drift_says_so():
    """The quiet case is an answer, too: how many questions, and against which build."""
    quiet = DriftReport(build="now", build_before="then", questions=1234, changes=())
    assert "1,234 questions that build then had answered were asked again; no number moved" in drift_text(quiet)
    first = DriftReport(build="now", build_before=None, questions=0, changes=())
    assert "nothing to compare with" in drift_text(first)
