import math

import numpy as np
import pytest
from scipy import stats

from anti_i2v_lit.evaluation.statistics import bootstrap_mean, paired_difference, share

VALUES = [0.1, 0.4, 0.35, 0.8, 0.55, 0.2, 0.9, 0.45, 0.31, 0.62]


def expanded(level: float, count: int) -> float:
    """Level of the percentile interval that Hesterberg (2015) takes in its place."""
    reach = stats.t(count - 1).isf((1 - level) / 2)
    return 1 - 2 * stats.norm.sf(np.sqrt(count / (count - 1)) * reach)


@pytest.mark.parametrize("level", [0.8, 0.95])
def test_interval_is_that_of_scipy_at_the_expanded_level(level: float) -> None:
    found = bootstrap_mean(VALUES, seed=3, resamples=20_000, level=level)
    expected, plain = (
        stats.bootstrap(
            (np.array(VALUES),),
            np.mean,
            method="percentile",
            n_resamples=20_000,
            rng=5,
            confidence_level=wanted,
        ).confidence_interval
        for wanted in (expanded(level, 10), level)
    )
    assert found.mean == pytest.approx(np.mean(VALUES)) and found.count == 10
    # two independent resamplings of 20,000 agree to a few thousandths
    assert found.low == pytest.approx(expected.low, abs=0.006)
    assert found.high == pytest.approx(expected.high, abs=0.006)
    assert found.low < plain.low - 0.006 and found.high > plain.high + 0.006


@pytest.mark.parametrize("count", [3, 4, 5, 10])
def test_intervals_cover_what_they_say(count: int) -> None:
    rng, covered, trials = np.random.default_rng(count), 0, 1000
    for trial in range(trials):
        found = bootstrap_mean(list(rng.normal(size=count)), seed=trial, resamples=4000)
        covered += found.low <= 0 <= found.high
    assert 0.90 <= covered / trials <= 0.98


def test_below_five_values_the_interval_is_students() -> None:
    for count in (2, 3, 4):
        found = bootstrap_mean(VALUES[:count])
        sample = np.array(VALUES[:count])
        expected = stats.ttest_1samp(sample, 0).confidence_interval()
        assert (found.low, found.high) == pytest.approx((expected.low, expected.high))


@pytest.mark.parametrize(
    ("hits", "count", "low", "high"),
    [
        # Newcombe, Statistics in Medicine 17, 1998, table I, method 3 (score)
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
        (20, 20, 1 - 0.1611, 1.0),
    ],
)
def test_shares_have_the_published_score_interval(hits, count, low, high) -> None:
    found = share([True] * hits + [False] * (count - hits))
    assert found.mean == pytest.approx(hits / count) and found.count == count
    assert (found.low, found.high) == pytest.approx((low, high), abs=5e-5)
    assert 0 <= found.low <= found.mean <= found.high <= 1


def test_shares_of_one_photo_or_none_have_no_interval() -> None:
    one, none = share([True]), share([])
    assert (one.mean, one.count) == (1.0, 1) and math.isnan(one.low)
    assert none.count == 0 and math.isnan(none.mean)


def test_same_seed_same_interval_and_other_seed_another() -> None:
    assert bootstrap_mean(VALUES, seed=1) == bootstrap_mean(VALUES, seed=1)
    assert bootstrap_mean(VALUES, seed=1).low != bootstrap_mean(VALUES, seed=2).low


def test_nan_is_left_out() -> None:
    assert bootstrap_mean([*VALUES, math.nan]) == bootstrap_mean(VALUES)
    nothing = bootstrap_mean([math.nan])
    assert nothing.count == 0 and math.isnan(nothing.mean)


def test_one_photo_has_a_mean_and_no_interval() -> None:
    found = bootstrap_mean([0.25])
    assert (found.mean, found.count) == (0.25, 1) and math.isnan(found.low)


def test_infinity_is_refused() -> None:
    with pytest.raises(ValueError, match="finite"):
        bootstrap_mean([1.0, math.inf])


def test_pairing_removes_what_the_photos_differ_in() -> None:
    reference = {str(i): 10.0 * i for i in range(8)}
    better = {key: value - 1 - 0.01 * int(key) for key, value in reference.items()}
    found = paired_difference({**better, "extra": 99.0}, {**reference, "other": 7.0})
    assert found.count == 8
    assert found.mean == pytest.approx(-1 - 0.01 * 3.5)
    assert -1.07 <= found.low < found.mean < found.high <= -1.0
    unpaired = bootstrap_mean(list(better.values()))
    assert unpaired.high - unpaired.low > 100 * (found.high - found.low)


def test_blocks_change_nothing(monkeypatch) -> None:
    whole = bootstrap_mean(VALUES, resamples=1000)
    monkeypatch.setattr("anti_i2v_lit.evaluation.statistics.BLOCK", 70)
    assert bootstrap_mean(VALUES, resamples=1000) == whole
