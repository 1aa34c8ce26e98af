"""A calibration as text: every type that was timed, what is unknown left empty, and a disturbed one marked."""

import msgspec

from planner.render.calibration import calibration_text


def test_each_type_is_told_in_bytes_per_second_with_its_doubt(calibration):
    """0.05 ns a byte are 20 GB/s; what was not timed is empty and not zero."""
    text = calibration_text(calibration)
    (row,) = [line.split() for line in text.splitlines() if line.split()[:1] == ["q8_0"]]
    assert row == ["q8_0", "plain", "20.0", "5.00", "0.12", "10", "%"]
    (row,) = [line.split() for line in text.splitlines() if line.split()[:1] == ["q4_K"]]
    assert row == ["q4_K", "repacked", "10.0", "10", "%"]
    assert "iq1_s-few: no time was left" in text
    assert "not kept" not in text


def test_a_disturbed_calibration_says_so_and_what_to_do(calibration):
    """Nobody takes its numbers for those that are used."""
    busy = msgspec.structs.replace(calibration.conditions, disturbed=("other processes used 1.0 of 2 CPUs",))
    text = calibration_text(msgspec.structs.replace(calibration, conditions=busy))
    assert "Disturbed: not kept" in text
    assert "calibrate again" in text
