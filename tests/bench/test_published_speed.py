"""The recorded error table of published speeds: it holds what it claims, and it speaks of the constants that ship."""

import json
from pathlib import Path

import pytest

from planner.estimate.physical_constants import speed_model

RESULT = json.loads(
    (Path(__file__).parents[2] / "bench" / "results" / "published_speed.json").read_text(encoding="utf-8")
)
LEFT_OUT = RESULT["errors"]["devices left out"]


def test_decode_on_devices_left_out_is_within_the_promise():
    """Median at most 15 %, nine in ten at most 45 %, at most 0.6 of each rival's median on the same rows."""
    assert LEFT_OUT["decode"]["median"] <= 0.15
    assert LEFT_OUT["decode"]["p90"] <= 0.45
    rivals = RESULT["decode at depth 0 beside rivals, devices left out"]
    for name in ("llmfit", "whichllm"):
        assert rivals["planner"]["rows"] == rivals[name]["rows"]
        assert rivals["planner"]["median"] <= 0.6 * rivals[name]["median"]
        assert rivals["planner"]["median by device"] <= 0.6 * rivals[name]["median by device"]


def test_four_of_five_left_out_rows_lie_in_their_interval():
    """75 to 85 % with every device of the same weight, for decoding and for prompts."""
    for kind in ("decode", "prefill"):
        assert 0.75 <= RESULT["coverage of the 80 % interval, devices left out"][kind]["devices"] <= 0.85


def test_the_fit_is_no_better_on_what_it_saw_than_it_should_be():
    """Few constants: left-out devices are missed by at most a half more than those that were fitted."""
    fitted = RESULT["errors"]["fitted (nothing left out)"]
    for kind in ("decode", "decode-deep", "prefill"):
        assert LEFT_OUT[kind]["median"] <= 1.5 * fitted[kind]["median"]


def test_the_constants_that_ship_are_those_of_the_table():
    """A table beside other constants would promise what nobody checked."""
    shipped = speed_model().constants
    for name, value in RESULT["constants"].items():
        if name in shipped:
            assert shipped[name] == pytest.approx(value, rel=2e-3, abs=1e-5)
