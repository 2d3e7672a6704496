import math

import numpy as np
import pytest
from scipy import stats

from anti_i2v_lit.evaluation.statistics import bootstrap_mean, paired_difference

VALUES = [0.1, 0.4, 0.35, 0.8, 0.55, 0.2, 0.9, 0.45, 0.31, 0.62]


def test_interval_is_that_of_scipy() -> None:
    found = bootstrap_mean(VALUES, seed=3, resamples=20_000)
    expected = stats.bootstrap(
        (np.array(VALUES),), np.mean, method="percentile", n_resamples=20_000, rng=5
    ).confidence_interval
    assert found.mean == pytest.approx(np.mean(VALUES)) and found.count == 10
    # two independent resamplings of 20,000 agree to a few thousandths
    assert found.low == pytest.approx(expected.low, abs=0.006)
    assert found.high == pytest.approx(expected.high, abs=0.006)


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
