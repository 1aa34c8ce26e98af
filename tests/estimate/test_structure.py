"""What one structure of layers teaches about another: nothing across recurrent layers, with doubt across experts."""

import pytest

from planner.estimate.speed import Stage, Structure, TimedRun, calibrate, generate_speed

DENSE, MIXTURE, RECURRENT = Structure(), Structure(mixture=True), Structure(recurrent=True)


def stage(structure, calibrations):
    """A CPU that reads 4 GB for a token."""
    return Stage(
        device="CPU",
        backend="cpu",
        weights_bytes=4_000_000_000,
        layers=32,
        quantization="Q4_K_M",
        threads=4,
        structure=structure,
        calibrations=calibrations,
    )


def run(structure, tokens_per_s):
    """A run of that structure that read 2 GB for a token."""
    return TimedRun(
        label="measured",
        quantization="Q4_K_M",
        bytes_per_token=2_000_000_000,
        parameters_active=3_000_000_000,
        generate_tokens_per_s=tokens_per_s,
        structure=structure,
    )


def test_a_slow_recurrent_model_says_nothing_about_a_dense_one():
    """The prediction is the one without any measurement."""
    learnt = calibrate([run(RECURRENT, 1.0)])
    assert generate_speed([stage(DENSE, learnt)]) == generate_speed([stage(DENSE, ())])
    assert generate_speed([stage(RECURRENT, learnt)]).tokens_per_s == pytest.approx(0.5)


def test_the_same_structure_speaks_for_itself_and_another_with_doubt():
    """A mixture's rate is used for a dense model where nothing better is known, in a wider interval."""
    learnt = calibrate([run(MIXTURE, 10.0)])
    same, other = (generate_speed([stage(structure, learnt)]) for structure in (MIXTURE, DENSE))
    assert same.tokens_per_s == other.tokens_per_s == pytest.approx(5.0)
    assert other.high / other.low > same.high / same.low
    both = calibrate([run(MIXTURE, 10.0), run(DENSE, 8.0)])
    assert generate_speed([stage(DENSE, both)]).tokens_per_s == pytest.approx(4.0)
