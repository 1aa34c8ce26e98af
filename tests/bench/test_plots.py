"""The pictures of recorded speeds: what the file holds, drawn, in a file that stands alone."""

import runpy
import sys
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

BENCH = Path(__file__).parents[2] / "bench"
SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture(scope="module")
def plots():
    """The program's own functions."""
    sys.path.insert(0, str(BENCH))
    try:
        yield runpy.run_path(str(BENCH / "plots.py"), run_name="plots")
    finally:
        sys.path.remove(str(BENCH))
        sys.modules.pop("speed_report", None)


@pytest.fixture
def done():
    """Two models; one was not timed at depth, and one test was not predicted."""
    times = {"tg": [1e8, 0.9e8, 1.1e8], "tg@8192": [2e8, 1.9e8, 2.2e8], "pp512": [5.12e9, 5e9, 5.3e9]}
    samples = {name: [value, value * 1.01] for name, (value, _, _) in times.items()}
    reference = {"generate_ns": [5e6], "prompt_ns": [1.5e6]}
    return {
        "calibrated_at": [{"46": reference}],
        "models": {
            "first Q8_0": {
                "took_ns": {"tg": 1e8, "tg@8192": 2e8, "pp512": 5.12e9},
                "passes": [{"samples_ns": samples, "reference": reference, "predicted_ns": {"46": times, "5": {}}}],
            },
            "second Q4_0": {
                "took_ns": {"tg": 5e7, "x4": 1e8},
                "passes": [
                    {
                        "reference": reference,
                        "samples_ns": {"tg": [5e7], "x4": [1e8]},
                        "predicted_ns": {"46": {"tg": [5e7, 4e7, 6e7], "x4": None}},
                    }
                ],
            },
        },
    }


def test_times_become_speeds_with_their_ends_in_order(plots, done):
    """Nanoseconds of a token, of a prompt, of four sequences: always tokens per second."""
    found = {(point.model, point.test): point for point in plots["read"](done)}
    assert set(found) == {
        ("first Q8_0", "tg"),
        ("first Q8_0", "tg@8192"),
        ("first Q8_0", "pp512"),
        ("second Q4_0", "tg"),
    }
    assert found["first Q8_0", "tg"].measured == pytest.approx(10)
    assert found["first Q8_0", "pp512"].measured == pytest.approx(100)
    assert all(point.low < point.predicted < point.high for point in found.values())


def test_the_pictures_stand_alone(plots, done, tmp_path, monkeypatch):
    """Whole XML with both themes, nothing fetched, and the same bytes when made again."""
    import json

    file = tmp_path / "speed.json"
    file.write_text(json.dumps(done))
    monkeypatch.setattr(sys, "argv", ["plots.py", "--results", str(file), "--to", str(tmp_path / "images")])
    assert plots["main"]() == 0
    for name in ("speed-predicted.svg", "speed-depth.svg"):
        text = (tmp_path / "images" / name).read_text()
        root = ET.fromstring(text)  # noqa: S314 - made a line above
        assert root.tag == f"{SVG}svg"
        assert "prefers-color-scheme:dark" in "".join(root.itertext())
        assert "http" not in text.replace("http://www.w3.org/2000/svg", "")
    first = (tmp_path / "images" / "speed-depth.svg").read_bytes()
    plots["main"]()
    assert (tmp_path / "images" / "speed-depth.svg").read_bytes() == first
    assert b"first Q8_0" in first
    assert b"second Q4_0" not in first
