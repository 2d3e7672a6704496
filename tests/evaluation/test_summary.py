"""Shares, worst cases and calibrated thresholds of rows that can be worked out by hand."""

import math

import pytest
from scipy.stats import binomtest, ttest_1samp

from anti_i2v_lit.evaluation.calibration import count_people, thresholds
from anti_i2v_lit.evaluation.outcome import ALL_TIERS, Threshold, WorstCase
from anti_i2v_lit.evaluation.plan import CLEAN
from anti_i2v_lit.evaluation.settings import IdentitySettings
from anti_i2v_lit.evaluation.store import Result
from anti_i2v_lit.evaluation.trials import Trials
from tests.evaluation.rows import JPEG, NONE, PLACES, SEEDS, cloaked, row, summary, surroundings

NAN = math.nan


def worst(rows: list[Result], cuts: dict[str, float] | None = None) -> WorstCase:
    return next(case for case in summary(rows, cuts).worst() if case.tier == ALL_TIERS)


def four_photos() -> list[Result]:
    """Protected, weakened, unprotected; the fourth failed after its first purification."""
    rows = surroundings("abcd")
    for place in PLACES:
        rows += cloaked("a", (0.1, 0.1), place)  # change -0.6, never above 0.4
        rows += cloaked("b", (0.1, 0.5), place)  # change -0.4, once above 0.4
        rows += cloaked("c", (0.6, 0.6), place)  # change -0.1, noise reaches -0.151
    return [*rows, *cloaked("d", (0.0, 0.0), NONE)]


def test_a_photo_with_missing_clips_counts_as_not_protected() -> None:
    case = worst(four_photos())
    assert case.purifications == PLACES
    assert case.share_protected.mean == pytest.approx(1 / 4) and case.share_protected.count == 4
    assert case.share_changed.mean == pytest.approx(2 / 4) and case.share_changed.count == 4
    cells = {cell.purification: cell for cell in summary(four_photos()).heat()}
    assert cells[NONE].share_protected.mean == pytest.approx(2 / 4)
    assert cells[JPEG].share_protected.mean == pytest.approx(1 / 4)


def test_shares_of_all_and_of_none_have_an_interval() -> None:
    for values, hits in (((0.6, 0.6), 0), ((0.1, 0.1), 4)):
        rows = [r for photo in "abcd" for place in PLACES for r in cloaked(photo, values, place)]
        case = worst([*surroundings("abcd"), *rows], {"dlib": 0.4})
        expected = binomtest(hits, 4).proportion_ci(method="wilson")
        share = case.share_protected
        assert (share.mean, share.count) == (hits / 4, 4) and share.low < share.high
        assert (share.low, share.high) == pytest.approx((expected.low, expected.high))


def test_worst_values_are_those_of_photos_that_have_every_clip() -> None:
    case = worst(four_photos())
    assert case.counts.clips == 3 * 2 * 2 + 2, "after both purifications"
    figure = case.estimates["dlib_mean_zero"]
    assert figure.count == 3 and figure.mean == pytest.approx((0.1 + 0.3 + 0.6) / 3)
    assert case.clean["dlib_mean_zero"].count == 3
    assert sum(case.hardest.values()) == 3


def test_a_photo_that_no_clean_clip_shows_is_left_out_of_the_share() -> None:
    rows = [r for r in four_photos() if r.photo != "a"]
    rows += surroundings("a", clean=0.2)
    rows += [r for place in PLACES for r in cloaked("a", (-0.5, -0.5), place)]
    case = worst(rows, {"dlib": 0.4})
    assert case.share_protected.count == 3 and case.share_protected.mean == 0


def test_the_clean_value_beside_a_worst_case_is_that_after_the_same_purification() -> None:
    """Photo a is worst untouched and b after JPEG; clean clips are always better the other way."""
    values = {"a": {NONE: (0.5, 0.6), JPEG: (0.1, 0.9)}, "b": {NONE: (0.2, 0.8), JPEG: (0.4, 0.3)}}
    rows = []
    for photo, places in values.items():
        for place, (own, clean_value) in places.items():
            rows += cloaked(photo, (own, own), place)
            rows += [row(photo, CLEAN, place, seed, clean_value) for seed in SEEDS]
    case = worst(rows)
    assert case.estimates["dlib_mean_zero"].mean == pytest.approx((0.5 + 0.4) / 2)
    assert case.clean["dlib_mean_zero"].mean == pytest.approx((0.6 + 0.3) / 2)


def test_differences_to_noise_say_what_stands_behind_them() -> None:
    made = summary(four_photos())
    for place in PLACES:
        found = next(r for r in made.rows() if (r.protection, r.purification) == ("ours", place))
        photos = 4 if place == NONE else 3
        assert (found.counts.photos, found.counts.seeds) == (photos, 2)
        assert found.counts.clips == 2 * photos
        counts = found.noise_counts
        assert (counts.photos, counts.prompts, counts.seeds) == (photos, 1, 1)
        assert counts.clips == found.to_noise["dlib_mean_zero"].count == photos
        cell = next(c for c in made.heat() if c.purification == place)
        assert cell.noise_counts.clips == cell.noise.count == 4, "noise of the failed photo too"
    clean_row = next(r for r in made.rows() if r.protection == CLEAN)
    assert clean_row.noise_counts.clips == 0


def cut(rows: list[Result], **values: object) -> Threshold:
    settings = IdentitySettings(**values)  # type: ignore[arg-type]
    (found,) = thresholds(Trials(rows), "g", NONE, settings)
    return found


def clean(photo: str, value: float, others: tuple[float, ...]) -> Result:
    return row(photo, CLEAN, NONE, 0, value, others=others)


def test_means_beside_a_threshold_have_intervals_of_the_coverage_that_is_asked_for() -> None:
    rows = [clean(n, v, (0.1, 0.1)) for n, v in zip("abcd", (0.5, 0.6, 0.8, 0.9), strict=True)]
    for level in (0.9, 0.95):
        (found,) = thresholds(Trials(rows), "g", NONE, IdentitySettings(), level)
        expected = ttest_1samp([0.5, 0.6, 0.8, 0.9], 0).confidence_interval(level)
        assert (found.own.low, found.own.high) == pytest.approx((expected.low, expected.high))


def test_pictures_of_the_same_person_are_neither_strangers_nor_people() -> None:
    album = [clean(name, 0.7, (NAN, NAN, 0.1, 0.1, 0.1)) for name in "abc"]
    rest = [clean(name, 0.7, (0.1, 0.1, 0.1, 0.1, 0.1)) for name in "def"]
    found = cut(album + rest)
    assert found.num_people == 4 and found.value == pytest.approx(0.4)
    assert found.others.mean == pytest.approx(0.1)
    fewer = cut(album + rest, min_people=5)
    assert fewer.value == 0.25 and "4 people are fewer than the 5" in fewer.method


def test_an_album_of_one_person_has_no_others() -> None:
    found = cut([clean(name, 0.7, (NAN, NAN, NAN)) for name in "abcd"])
    assert found.num_people == 1 and found.value == 0.25
    assert found.method == "fixed, since no other people were compared"
    # A clip without a face is 0 to everybody; those zeros are not strangers either.
    album = [clean("a", 0.7, (NAN,)), row("a", CLEAN, NONE, 1, 0.0, others=(0.0,))]
    assert cut(album).others.count == 0


def test_people_are_clusters() -> None:
    pair, alone = [(NAN, 0.1, 0.1)], [(0.1, 0.1, 0.1)]
    assert count_people([pair, pair, alone, alone]) == 3
    assert count_people([alone] * 4) == 4
    assert count_people([[(NAN, NAN)]] * 3) == 1
    assert count_people([]) == 0
    # Three people of 20 photos each; each photo was compared with 8 others only.
    assert count_people([[(NAN,) * 3 + (0.1,) * 6]] * 60) <= 3


def test_a_cut_above_every_pair_of_strangers_is_lowered() -> None:
    found = cut([clean(name, 0.9, (0.5, 0.5, 0.5)) for name in "abcd"])
    # Halfway between 0.5 and 0.9 lies 0.7; no photos of two people reached more than 0.46.
    assert found.value == 0.46 and found.error_rate == 1 and "lowered" in found.method


def test_a_calibration_that_separates_nobody_is_not_used() -> None:
    own = (0.1, 0.2, 0.3, 0.4)
    found = cut([clean(n, v, own) for n, v in zip("abcd", own, strict=True)])
    assert found.value == 0.25 and "50% of clips" in found.method


def test_thresholds_of_the_user_are_kept() -> None:
    found = cut([clean(n, 0.9, (0.5,)) for n in "abcd"], thresholds={"dlib": 0.6})
    assert found.value == 0.6 and found.method == "set by the user"
