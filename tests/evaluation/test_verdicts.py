"""Verdicts on rows whose thresholds and limits are worked out by hand.

Clean clips have 0.7, other people's photos 0.1: the threshold is 0.4. Noise takes 0.1, 0.05, 0.1
and 0.05: mean 0.075, standard deviation 0.02887, t(0.95, 3) = 2.3534, so the limit is
-(0.075 + 2.3534 * 0.02887 * sqrt(1.25)) = -0.15095.
"""

import math
from dataclasses import replace

import pytest

from anti_i2v_lit.evaluation.facts import (
    HELD_OUT,
    NOT_JUDGED,
    PROTECTED,
    UNPROTECTED,
    WEAKENED,
    Verdict,
)
from anti_i2v_lit.evaluation.plan import CLEAN, NOISE
from anti_i2v_lit.evaluation.store import Result
from anti_i2v_lit.evaluation.summary import Summary
from anti_i2v_lit.evaluation.verdicts import NO_PERSON, overall
from tests.evaluation.rows import JPEG, NONE, PLACES, cloaked, row, summary, surroundings

PHOTOS = ("a", "b", "c", "d")
BASE = surroundings(PHOTOS)


def verdict_of(found: Summary, photo: str) -> Verdict:
    return found.verdicts.verdict(photo, "ours", "g", HELD_OUT, PLACES)


def everywhere(photo: str, *values: float) -> list[Result]:
    return [r for place in PLACES for r in cloaked(photo, values, place)]


def test_threshold_and_limit_are_those_worked_out_by_hand() -> None:
    found = summary([*BASE, *everywhere("a", 0.1, 0.1)])
    (threshold,) = found.thresholds
    assert threshold.value == pytest.approx(0.4) and threshold.error_rate == 0
    assert threshold.num_people == 4
    limit = next(n for n in found.limits if n.figure == "dlib_mean_zero")
    assert limit.value == pytest.approx(-0.15095, abs=1e-4) and limit.num_clips == 4


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ((0.1, 0.39), PROTECTED),  # mean change -0.455, highest 0.39
        ((0.1, 0.41), WEAKENED),  # mean change -0.445, highest 0.41
        ((0.54, 0.54), WEAKENED),  # change -0.16
        ((0.56, 0.56), UNPROTECTED),  # change -0.14
    ],
)
def test_every_verdict_is_reached(values: tuple[float, float], expected: str) -> None:
    verdict = verdict_of(summary([*BASE, *everywhere("a", *values)]), "a")
    assert verdict.verdict == expected
    assert verdict.value == pytest.approx(sum(values) / 2) and verdict.clean == pytest.approx(0.7)
    assert (verdict.protected_after == PLACES) == (expected == PROTECTED)
    assert (verdict.lost_after == PLACES) == (expected == UNPROTECTED)


def test_the_worst_purification_decides() -> None:
    rows = [*BASE, *cloaked("a", (0.1, 0.1), NONE), *cloaked("a", (0.6, 0.6), JPEG)]
    verdict = verdict_of(summary(rows), "a")
    assert verdict.verdict == UNPROTECTED and verdict.hardest == JPEG
    assert verdict.protected_after == (NONE,) and verdict.lost_after == (JPEG,)


def test_a_photo_without_clips_after_a_purification_is_not_judged() -> None:
    verdict = verdict_of(summary([*BASE, *cloaked("a", (0.1, 0.1), NONE)]), "a")
    assert verdict.verdict == NOT_JUDGED and verdict.protected_after == (NONE,)
    assert f"missing after {JPEG} (2 clips)" in verdict.reason


def test_a_photo_that_lacks_one_seed_is_not_judged() -> None:
    rows = [*BASE, *everywhere("a", 0.1, 0.1)]
    missing_cloak = [r for r in rows if r is not rows[-1]]
    assert "(1 clips)" in verdict_of(summary(missing_cloak), "a").reason
    assert verdict_of(summary(missing_cloak), "a").verdict == NOT_JUDGED
    is_pair = lambda r: (r.photo, r.protection, r.purification, r.seed) == ("a", CLEAN, JPEG, 1)  # noqa: E731
    missing_clean = [r for r in rows if not is_pair(r)]
    assert len(missing_clean) == len(rows) - 1
    assert verdict_of(summary(missing_clean), "a").verdict == NOT_JUDGED


def test_what_was_judged_can_show_that_a_photo_is_not_protected() -> None:
    verdict = verdict_of(summary([*BASE, *cloaked("a", (0.6, 0.6), NONE)]), "a")
    assert verdict.verdict == UNPROTECTED and verdict.lost_after == (NONE,)
    assert f"missing after {JPEG}" in verdict.reason


def test_without_clean_clips_nothing_shows_that_a_photo_is_lost() -> None:
    rows = [*BASE, *everywhere("a", 0.6, 0.6)]
    rows = [r for r in rows if (r.photo, r.protection) != ("a", CLEAN)]
    assert verdict_of(summary(rows), "a").verdict == NOT_JUDGED


def faded(rows: list[Result], photo: str, places: tuple[str, ...]) -> list[Result]:
    """The same rows with clean clips of a photo at 0.2, below the threshold of 0.4."""
    shown = []
    for r in rows:
        is_clean = (r.photo, r.protection) == (photo, CLEAN) and r.purification in places
        shown.append(replace(r, figures={**r.figures, "dlib_mean_zero": 0.2}) if is_clean else r)
    return shown


def test_a_place_where_the_clean_clip_does_not_show_the_person_is_no_evidence() -> None:
    rows = faded([*BASE, *everywhere("a", -0.3, -0.3)], "a", (JPEG,))
    verdict = verdict_of(summary(rows), "a")
    assert verdict.verdict == PROTECTED and verdict.protected_after == (NONE,)
    assert f"do not show the person either: {JPEG}" in verdict.reason


def test_a_photo_whose_clean_clips_never_show_the_person_is_not_judged() -> None:
    rows = faded([*BASE, *everywhere("a", -0.3, -0.3)], "a", PLACES)
    verdict = verdict_of(summary(rows, {"dlib": 0.4}), "a")
    assert verdict.verdict == NOT_JUDGED and verdict.reason == NO_PERSON
    assert verdict.protected_after == ()


def test_a_cloaked_clip_that_shows_the_person_counts_even_so() -> None:
    rows = faded([*BASE, *everywhere("a", 0.5, 0.5)], "a", PLACES)
    assert verdict_of(summary(rows, {"dlib": 0.4}), "a").verdict == UNPROTECTED


@pytest.mark.parametrize(("hse", "expected"), [(0.1, PROTECTED), (0.5, WEAKENED)])
def test_both_networks_must_agree(hse: float, expected: str) -> None:
    rows = [replace(r, figures={**r.figures, "hse_mean_zero": 0.7}) for r in BASE]
    rows += [row("a", "ours", place, s, 0.1, hse=hse) for place in PLACES for s in (0, 1)]
    for r in range(len(rows)):
        if rows[r].protection.startswith("noise"):
            figures = {**rows[r].figures, "hse_mean_zero": rows[r].figures["dlib_mean_zero"]}
            rows[r] = replace(rows[r], figures=figures)
    found = summary(rows, {"dlib": 0.4, "hse": 0.4})
    assert found.networks == ("dlib", "hse")
    verdict = verdict_of(found, "a")
    assert verdict.verdict == expected
    assert expected == PROTECTED or verdict.figure == "hse_mean_zero"


def test_over_generators_the_lost_one_decides_and_blind_ones_are_left_out() -> None:
    good = Verdict(
        protection="ours", generator="g", knowledge=HELD_OUT, verdict=PROTECTED, reason="fine"
    )
    blind = replace(good, generator="h", verdict=NOT_JUDGED, reason=NO_PERSON)
    lacking = replace(good, generator="i", verdict=NOT_JUDGED, reason="missing")
    lost = replace(good, generator="j", verdict=UNPROTECTED, reason="lost")
    assert overall([good, lacking]).verdict == NOT_JUDGED
    assert overall([good, lacking, lost]).verdict == UNPROTECTED
    assert overall([blind]).verdict == NOT_JUDGED
    both = overall([blind, good])
    assert both.verdict == PROTECTED and "nothing is known of h" in both.reason


def of_one_photo(values: tuple[float, float], noisy: int) -> Summary:
    """One photo with this many clips under noise at each place; threshold 0.4."""
    rows = [r for r in surroundings("a") if not r.protection.startswith("noise")]
    rows += [row("a", NOISE + "ours", p, s, 0.6 - 0.05 * s) for p in PLACES for s in range(noisy)]
    return summary([*rows, *everywhere("a", *values)], {"dlib": 0.4})


@pytest.mark.parametrize("values", [(0.1, 0.1), (0.5, 0.5), (0.7, 0.7)])
@pytest.mark.parametrize("noisy", [0, 1])
def test_without_a_bound_from_noise_nothing_is_judged(
    values: tuple[float, float], noisy: int
) -> None:
    found = of_one_photo(values, noisy)
    assert all(math.isnan(limit.value) for limit in found.limits)
    verdict = verdict_of(found, "a")
    assert verdict.verdict == NOT_JUDGED and verdict.lost_after == ()
    assert f"too few noise clips ({noisy}) for a bound: raise noise.seeds" in verdict.reason
    assert verdict.value == pytest.approx(values[0])
    assert {case.share_protected.count for case in found.worst()} == {0}
    assert {cell.share_changed.count for cell in found.heat()} == {0}


def test_two_clips_under_noise_are_a_bound() -> None:
    assert verdict_of(of_one_photo((0.7, 0.7), 2), "a").verdict == UNPROTECTED


def test_a_person_who_is_not_there_needs_no_bound() -> None:
    rows = [r for r in surroundings("a", clean=0.2) if not r.protection.startswith("noise")]
    found = summary([*rows, *everywhere("a", -0.3, -0.3)], {"dlib": 0.4})
    assert verdict_of(found, "a").reason == NO_PERSON


def test_a_bound_at_one_place_shows_what_is_lost_there() -> None:
    rows = [row("a", CLEAN, place, seed, 0.7) for place in PLACES for seed in (0, 1)]
    rows += [row("a", NOISE + "ours", NONE, seed, 0.6 - 0.05 * seed) for seed in (0, 1)]
    found = summary([*rows, *everywhere("a", 0.6, 0.6)], {"dlib": 0.4})
    verdict = verdict_of(found, "a")
    assert verdict.verdict == UNPROTECTED and verdict.lost_after == (NONE,)
    assert f"not judged after {JPEG}" in verdict.reason
    (case,) = found.worst()
    assert case.share_protected.count == 1 and case.share_protected.mean == 0
