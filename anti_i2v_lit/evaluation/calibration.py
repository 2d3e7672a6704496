"""Where "somebody else" begins, and how much a change of equal size does by itself.

A photo counts as **protected** after a purification, for one generator, if for both face networks
that decide (dlib and hse; for the one that is at hand if the other is absent)

1. its clips' similarity to the photo falls by more than random noise of the same size makes it
   fall (`NoiseLimit`), and
2. not one of its clips (all prompts and seeds) is as similar to the photo as the threshold, above
   which clips of clean photos show the person and below which they show others (`Threshold`).

With 1 alone it counts as **weakened**. Frames without a face count as similarity 0. Where the clean
photo's clips lie below the threshold themselves, a purification says nothing about the cloak.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from scipy.stats import t as student_t

from anti_i2v_lit.evaluation.columns import EMBEDDERS
from anti_i2v_lit.evaluation.outcome import NoiseLimit, Threshold
from anti_i2v_lit.evaluation.plan import CLEAN, NOISE
from anti_i2v_lit.evaluation.settings import EvaluationSettings, IdentitySettings
from anti_i2v_lit.evaluation.statistics import LEVEL, bootstrap_mean
from anti_i2v_lit.evaluation.trials import Trials, mean

OTHERS = "others_"
IDENTITY = "{}_mean_zero"
# No cosine is published for centred descriptors. These are the highest between photos of two people
# (608 pairs, metrics/face_centres.md): a clip that is more alike cannot be called somebody else's.
HIGHEST_OF_STRANGERS = {"dlib": 0.46, "hse": 0.35}
LARGEST_ERROR = 0.1  # share; with more clips on the wrong side a calibrated cut separates nobody
DISTANCE = "clip_lpips"  # what is left to look at where no face can be compared


def face_networks(trials: Trials) -> tuple[str, ...]:
    """Face networks that were at hand for every clip."""
    results = trials.results
    found = (n for n in EMBEDDERS if all(IDENTITY.format(n) in r.figures for r in results))
    return tuple(found) if results else ()


def equal_error(own: Sequence[float], others: Sequence[float]) -> tuple[float, float]:
    """Threshold at which as many own values lie below it as others' lie at or above it.

    Where many thresholds do equally well, the middle of them is taken.

    Returns:
        The threshold, and the larger of the two shares there.

    Raises:
        ValueError: no values.
    """
    if not len(own) or not len(others):
        raise ValueError("expected values of both kinds")
    mine, theirs = np.sort(np.asarray(own)), np.sort(np.asarray(others))
    values = np.unique(np.concatenate([mine, theirs]))
    cuts = np.concatenate([[values[0]], (values[1:] + values[:-1]) / 2])
    missed = np.searchsorted(mine, cuts, side="left") / len(mine)
    accepted = 1 - np.searchsorted(theirs, cuts, side="left") / len(theirs)
    worst = np.maximum(missed, accepted)
    best = np.flatnonzero(worst == worst.min())
    edges = values[max(best[0] - 1, 0)], values[best[-1]]
    cut = float((edges[0] + edges[1]) / 2) if len(best) else float(cuts[0])
    return cut, float(worst.min())


def thresholds(
    trials: Trials,
    generator: str,
    first: str,
    settings: IdentitySettings,
    level: float = LEVEL,
) -> list[Threshold]:
    """One threshold per face network, from the clean clips of one generator.

    Args:
        trials: all results.
        generator: label.
        first: label of the purification whose clean clips are taken, the gauntlet's first.
        settings: fixed thresholds and fallbacks.
        level: coverage of the intervals of both means, in (0, 1).
    """
    return [
        _threshold(trials, generator, first, network, settings, level)
        for network in face_networks(trials)
    ]


def _threshold(
    trials: Trials,
    generator: str,
    first: str,
    network: str,
    settings: IdentitySettings,
    level: float,
) -> Threshold:
    figure = IDENTITY.format(network)
    rows = [r for r in trials.of(generator, CLEAN, first) if not math.isnan(r.figures[figure])]
    own_by_photo: dict[str, list[float]] = {}
    seen_by_photo: dict[str, list[Sequence[float]]] = {}
    for row in rows:
        own_by_photo.setdefault(row.photo, []).append(row.figures[figure])
        seen = row.by_frame.get(OTHERS + network, ())
        seen_by_photo.setdefault(row.photo, []).append(seen)
    others_by_photo = {photo: _of_others(seen) for photo, seen in seen_by_photo.items()}
    own = [value for values in own_by_photo.values() for value in values]
    others = [value for values in others_by_photo.values() for value in values]
    people = count_people(list(seen_by_photo.values()))
    value, method, error = _cut(network, own, others, people, settings)
    return Threshold(
        generator=generator,
        figure=figure,
        value=value,
        method=method,
        own=bootstrap_mean([mean(values) for values in own_by_photo.values()], level=level),
        others=bootstrap_mean([mean(values) for values in others_by_photo.values()], level=level),
        num_people=people,
        error_rate=error,
    )


def _cut(
    network: str,
    own: Sequence[float],
    others: Sequence[float],
    people: int,
    settings: IdentitySettings,
) -> tuple[float, str, float]:
    """A threshold, how it was found, and the share on its wrong side (NaN where unknown)."""
    if network in settings.thresholds:
        return settings.thresholds[network], "set by the user", math.nan
    fixed = settings.fallback.get(network, math.nan)
    if not own:
        return fixed, "fixed, since no face was found in a clean photo", math.nan
    if not others:
        return fixed, "fixed, since no other people were compared", math.nan
    if people < settings.min_people:
        reason = f"{people} people are fewer than the {settings.min_people} that it needs"
        return fixed, f"fixed, not calibrated: {reason}", math.nan
    value, error = equal_error(own, others)
    if error > LARGEST_ERROR:
        reason = f"at the best cut {error:.0%} of clips would lie on the wrong side"
        return fixed, f"fixed, not calibrated: {reason}", math.nan
    method = "equal error rate between clean clips and other people's photos"
    highest = HIGHEST_OF_STRANGERS.get(network, math.inf)
    if value > highest:
        missed = sum(v < highest for v in own) / len(own)
        accepted = sum(v >= highest for v in others) / len(others)
        method += f", {value:.3f}, lowered to the highest that photos of two people reached"
        return highest, method, max(missed, accepted)
    return value, method, error


def _of_others(seen: Sequence[Sequence[float]]) -> list[float]:
    """Similarities of a photo's clips to other people; possible pictures of the same one left out.

    Those are NaN, except in clips without a face, where everything is 0.
    """
    same = {i for values in seen for i, value in enumerate(values) if math.isnan(value)}
    return [v for values in seen for i, v in enumerate(values) if i not in same]


def count_people(seen: Sequence[Sequence[Sequence[float]]]) -> int:
    """How many people are on some photos, counted as clusters of photos that look alike.

    A photo that looks like s others counts as 1 / (1 + s) of a person. For clusters that is their
    number; where looking alike is not transitive, at least as many photos look different from each
    other (Caro 1979, Wei 1981). A photo that was compared with a part of the others only is taken
    to look like the same share of all.

    Args:
        seen: per photo and clip, similarities to the photos it was compared with, NaN for those
            that may show the same person.
    """
    total = 0.0
    for clips in seen:
        compared = max((len(values) for values in clips), default=0)
        same = {i for values in clips for i, value in enumerate(values) if math.isnan(value)}
        share = len(same) / compared if compared else 1.0
        total += 1 / (1 + share * (len(seen) - 1))
    return math.floor(total + 1e-9)


def noise_limits(
    trials: Trials, place: tuple[str, str, str], settings: EvaluationSettings
) -> list[NoiseLimit]:
    """How far noise of equal size moves each deciding figure, at one place.

    Identity figures: how much less similar noise makes a clip than the clean one, never above 0;
    see `outer_bound`. The distance between clips: the same upwards. The values are those of single
    clips, while a photo is judged by the mean of its clips, which varies less.
    """
    generator, protection, purification = place
    noisy, share = (generator, NOISE + protection, purification), settings.noise.quantile
    found = []
    for network in face_networks(trials):
        figure = IDENTITY.format(network)
        changes = trials.single_changes(noisy, figure)
        bound = outer_bound([-change for change in changes], share)
        value = -bound if math.isnan(bound) else min(0.0, -bound)
        found.append(_limit(place, figure, value, len(changes)))
    distances = trials.single(noisy, DISTANCE)
    return [*found, _limit(place, DISTANCE, outer_bound(distances, share), len(distances))]


def outer_bound(values: Sequence[float], share: float) -> float:
    """What one more value of the same kind exceeds with a probability of at most `share`.

    The empirical quantile, or the normal prediction bound mean + t s sqrt(1 + 1/n) if that is
    farther out (Hahn and Meeker, Statistical Intervals, 1991): with few values the largest one
    alone would be a weak bound.

    Returns:
        The bound; NaN below two values, from which nothing can be said.
    """
    if len(values) < 2:
        return math.nan
    sample = np.asarray(values, dtype=np.float64)
    spread = float(sample.std(ddof=1)) * math.sqrt(1 + 1 / len(sample))
    predicted = float(sample.mean()) + float(student_t.ppf(1 - share, len(sample) - 1)) * spread
    return max(predicted, float(np.quantile(sample, 1 - share, method="higher")))


def _limit(place: tuple[str, str, str], figure: str, value: float, count: int) -> NoiseLimit:
    generator, protection, purification = place
    return NoiseLimit(
        generator=generator,
        protection=protection,
        purification=purification,
        figure=figure,
        value=value,
        num_clips=count,
    )
