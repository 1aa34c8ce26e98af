"""Laws of medians, spreads and verdicts."""

import math
import random
from statistics import NormalDist

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from planner.measure import statistics

times = st.lists(st.integers(min_value=1_000, max_value=10**12), min_size=1, max_size=30)
several = st.lists(st.integers(min_value=1_000, max_value=10**9), min_size=3, max_size=12)


@given(times)
def test_the_median_lies_within_the_spread(samples: list[int]) -> None:
    """Low ≤ median ≤ high, whatever the number of samples."""
    found = statistics.spread(samples)
    assert min(samples) <= found.low <= found.median <= found.high <= max(samples)


@given(times, st.randoms())
def test_the_order_of_samples_does_not_matter_to_the_spread(samples: list[int], chance: random.Random) -> None:
    """Only the drift may look at the order."""
    shuffled = samples.copy()
    chance.shuffle(shuffled)
    assert statistics.spread(samples) == statistics.spread(shuffled)


@given(several, st.integers(min_value=2, max_value=1000))
def test_a_slower_clock_scales_times_and_leaves_relative_measures(samples: list[int], factor: int) -> None:
    """Median and MAD scale; relative MAD and slope do not change."""
    scaled = [sample * factor for sample in samples]
    assert statistics.spread(scaled).median == pytest.approx(statistics.spread(samples).median * factor)
    assert statistics.relative_mad(scaled) == pytest.approx(statistics.relative_mad(samples))
    assert statistics.theil_sen_slope(scaled) == pytest.approx(statistics.theil_sen_slope(samples), rel=1e-9, abs=1e-12)


@given(several)
def test_one_wild_repetition_does_not_move_the_median_out_of_the_others(samples: list[int]) -> None:
    """The median with an outlier stays between the minimum and maximum without it."""
    found = statistics.spread([*samples, 10**15])
    assert found.median <= max(samples)


def test_a_wild_repetition_is_named_and_does_not_condemn_the_run() -> None:
    """Four equal times and a double one: an outlier note, no disturbance."""
    samples = [100, 101, 99, 100, 200]
    assert "1 of 5" in (statistics.outlier_note(samples) or "")
    assert statistics.disturbances(samples) == ()


def test_quiet_repetitions_have_no_outliers() -> None:
    """Differences of a few per cent are no outliers however equal the others are."""
    assert statistics.outlier_note([100, 100, 100, 100, 105]) is None


def test_scatter_and_drift_are_told_apart() -> None:
    """Wild times scatter; a steady rise of 7 % each drifts; equal times are neither."""
    assert "scatter" in statistics.disturbances([100, 170, 70, 160, 60])[0]
    rising = [round(1000 * 1.07**step) for step in range(5)]
    assert any("drift" in sentence for sentence in statistics.disturbances(rising))
    assert statistics.disturbances([1000, 1001, 999, 1002, 1000]) == ()


def test_noise_is_told_before_it_is_too_much_to_believe():
    """Quiet, noisy and unbelievable: each sample set is exactly one of the three."""
    quiet, noisy, wild = [100, 101, 99, 100, 102], [100, 112, 90, 109, 88], [100, 170, 70, 160, 60]
    assert statistics.noise_note(quiet) is None
    assert "noisy" in statistics.noise_note(noisy)
    assert statistics.disturbances(noisy) == ()
    assert statistics.noise_note(wild) is None


@given(several)
def test_drift_needs_a_trend_of_its_own_direction(samples: list[int]) -> None:
    """Reversing the order reverses the slope and keeps the verdict."""
    assert statistics.theil_sen_slope(samples[::-1]) == pytest.approx(
        -statistics.theil_sen_slope(samples), rel=1e-9, abs=1e-12
    )
    assert statistics.drifts(samples) == statistics.drifts(samples[::-1])


def test_warm_up_ends_when_two_successive_runs_agree_and_at_the_latest_after_six() -> None:
    """One run is never enough; 5 % apart is not warm; six are the limit."""
    assert not statistics.is_warm([100])
    assert not statistics.is_warm([100, 90])
    assert statistics.is_warm([200, 100, 103])
    assert statistics.is_warm([1000, 500, 250, 120, 60, 30])


@pytest.mark.parametrize("count", [2, 3, 5, 9, 20])
def test_the_robust_deviation_is_unbiased_for_few_normal_samples(count: int) -> None:
    """Its mean over many draws is the true deviation within 3 %."""
    chance = random.Random(count)  # noqa: S311 - noise, no secret
    draws = [statistics.robust_deviation([chance.gauss(100, 5) for _ in range(count)]) for _ in range(8000)]
    assert sum(draws) / len(draws) == pytest.approx(5, rel=0.03)


@pytest.mark.parametrize(("freedom", "expected"), [(3, 1.638), (5, 1.476), (10, 1.372), (30, 1.310)])
def test_student_quantiles_equal_the_printed_table(freedom: int, expected: float) -> None:
    """Against the usual table of t at 90 %, within 1 %."""
    assert statistics.student_quantile(0.9, freedom) == pytest.approx(expected, rel=0.01)
    assert statistics.student_quantile(0.9, 10**6) == pytest.approx(NormalDist().inv_cdf(0.9), rel=1e-4)


@given(several, st.integers(min_value=1, max_value=4096))
def test_rates_are_tokens_over_seconds(samples: list[int], tokens: int) -> None:
    """Rate × time = tokens."""
    for rate, sample in zip(statistics.rates(tokens, samples), samples, strict=True):
        assert math.isclose(rate * sample, tokens * 1e9)


@given(several)
def test_quantiles_rise_with_their_share(samples: list[int]) -> None:
    """The 0 quantile is the minimum, the 1 quantile the maximum."""
    assume(len(set(samples)) > 1)
    shares = [statistics.quantile(samples, share / 10) for share in range(11)]
    assert shares == sorted(shares)
    assert (shares[0], shares[-1]) == (min(samples), max(samples))
