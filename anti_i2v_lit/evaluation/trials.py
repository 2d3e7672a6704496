"""Results in the order that statistics need: photo by photo, paired by prompt, seed and frame."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence

from anti_i2v_lit.evaluation.facts import Counts
from anti_i2v_lit.evaluation.plan import CLEAN
from anti_i2v_lit.evaluation.store import Result

SHIFT = "shift_"  # figures of a view's latent
Trial = tuple[str, int, str]
Pairs = dict[str, list[tuple[Result, Result]]]


def mean(values: Iterable[float]) -> float:
    """Mean of the defined values; NaN if there are none."""
    defined = [value for value in values if not math.isnan(value)]
    return sum(defined) / len(defined) if defined else math.nan


class Trials:
    """Results by generator, protection and purification.

    Args:
        results: of one evaluation.
    """

    def __init__(self, results: Sequence[Result]) -> None:
        self.results = tuple(results)
        self._rows: dict[tuple[str, str, str], dict[str, dict[Trial, Result]]] = {}
        self._pairs: dict[tuple[tuple[str, str, str], str], Pairs] = {}
        for result in results:
            place = (result.generator, result.protection, result.purification)
            photos = self._rows.setdefault(place, {})
            photos.setdefault(result.photo, {})[_trial(result)] = result

    def of(self, generator: str, protection: str, purification: str) -> list[Result]:
        """All results of one place."""
        photos = self._rows.get((generator, protection, purification), {})
        return [result for trials in photos.values() for result in trials.values()]

    def photos(self, generator: str, protection: str, purification: str) -> list[str]:
        """Keys of the photos that have results in one place."""
        return list(self._rows.get((generator, protection, purification), {}))

    def clean_of(self, generator: str, protection: str, purification: str) -> list[Result]:
        """The clean clips of the photos and frames of one place."""
        framed = {(r.photo, r.frame) for r in self.of(generator, protection, purification)}
        clean = self.of(generator, CLEAN, purification)
        return [result for result in clean if (result.photo, result.frame) in framed]

    def counts(self, generator: str, protection: str, purification: str) -> Counts:
        """How much there is at one place."""
        return self.counts_of([(generator, protection, purification)])

    def counts_of(self, places: Iterable[tuple[str, str, str]]) -> Counts:
        """How much there is at several places together."""
        return _counts([result for place in places for result in self.of(*place)])

    def counts_beside(self, place: tuple[str, str, str], protection: str) -> Counts:
        """How much of it has a partner of another protection: what differences stand on."""
        pairs = self._paired(place, protection)
        return _counts([result for some in pairs.values() for result, _ in some])

    def means(self, place: tuple[str, str, str], column: str) -> dict[str, float]:
        """Photo -> mean of a column over its clips; photos without the column left out."""
        return self.reduced(place, column, mean)

    def highest(self, place: tuple[str, str, str], column: str) -> dict[str, float]:
        """Photo -> highest value of a column over its clips; NaN if any is undefined."""
        return self.reduced(place, column, _highest)

    def reduced(
        self,
        place: tuple[str, str, str],
        column: str,
        reduce: Callable[[Iterable[float]], float],
    ) -> dict[str, float]:
        """Photo -> a summary of a column over its clips."""
        found = {}
        for photo, trials in self._rows.get(place, {}).items():
            values = [r.figures[column] for r in trials.values() if column in r.figures]
            if values:
                found[photo] = reduce(values)
        return found

    def clean_means(self, place: tuple[str, str, str], column: str) -> dict[str, float]:
        """The same of the clean counterparts: same photo, frame, prompts and seeds."""
        pairs = self._paired(place, CLEAN)
        nan = math.nan
        return {p: mean(c.figures.get(column, nan) for _, c in some) for p, some in pairs.items()}

    def to_clean(self, place: tuple[str, str, str], column: str) -> dict[str, float]:
        """Photo -> mean difference of its clips to the clean ones of the same prompt and seed."""
        return self.to_other(place, column, CLEAN)

    def single(self, place: tuple[str, str, str], column: str) -> list[float]:
        """A column's defined values, clip by clip."""
        values = [r.figures.get(column, math.nan) for r in self.of(*place)]
        return [value for value in values if not math.isnan(value)]

    def single_changes(self, place: tuple[str, str, str], column: str) -> list[float]:
        """Defined differences to the clean clips of the same prompt and seed, clip by clip."""
        pairs = [pair for some in self._paired(place, CLEAN).values() for pair in some]
        nan = math.nan
        values = [a.figures.get(column, nan) - b.figures.get(column, nan) for a, b in pairs]
        return [value for value in values if not math.isnan(value)]

    def to_other(
        self, place: tuple[str, str, str], column: str, protection: str
    ) -> dict[str, float]:
        """Photo -> mean difference to another protection, over what both have.

        Compared are clips of the same prompt, seed and frame.
        """
        own, other = paired_means(self._paired(place, protection), column)
        return {photo: own[photo] - other[photo] for photo in own}

    def _paired(self, place: tuple[str, str, str], protection: str) -> Pairs:
        if (place, protection) not in self._pairs:
            generator, _, purification = place
            others = self.of(generator, protection, purification)
            self._pairs[place, protection] = pair_up(self.of(*place), others)
        return self._pairs[place, protection]


def pair_up(results: Iterable[Result], others: Iterable[Result]) -> Pairs:
    """Photo -> pairs of its clips of the same prompt, seed and frame.

    Args:
        results: of one protection after one purification, by one generator.
        others: of another one. Photos of `results` without a partner have an empty list.
    """
    partners = {(other.photo, *_trial(other)): other for other in others}
    found: Pairs = {}
    for result in results:
        partner = partners.get((result.photo, *_trial(result)))
        found.setdefault(result.photo, []).extend([(result, partner)] if partner else [])
    return found


def paired_means(pairs: Pairs, column: str) -> tuple[dict[str, float], dict[str, float]]:
    """Photo -> mean of a column, on both sides, over the trials in which both are defined.

    A trial that one side lacks or that is undefined there counts on neither side: else the means
    would be those of different seeds. Photos are left out where the column never stands on both.

    Returns:
        The means of `results` and of `others` of `pair_up`, of the same photos; NaN for photos
        whose trials are all undefined.
    """
    own, other = {}, {}
    for photo, some in pairs.items():
        both = [(a.figures.get(column), b.figures.get(column)) for a, b in some]
        present = [(a, b) for a, b in both if a is not None and b is not None]
        if present:
            defined = [(a, b) for a, b in present if not math.isnan(a - b)]
            own[photo], other[photo] = mean(a for a, _ in defined), mean(b for _, b in defined)
    return own, other


def _counts(found: Sequence[Result]) -> Counts:
    return Counts(
        photos=len({r.photo for r in found}),
        prompts=len({r.prompt for r in found}),
        seeds=len({r.seed for r in found}),
        clips=len(found),
    )


def _trial(result: Result) -> Trial:
    return result.prompt, result.seed, result.frame


def _highest(values: Iterable[float]) -> float:
    listed = list(values)
    return math.nan if any(math.isnan(v) for v in listed) else max(listed)


def alike(results: Iterable[Result], purifications: Sequence[str]) -> tuple[tuple[str, ...], ...]:
    """Purifications that did the same to every file, as two networks' limits do to small photos.

    They are told by the latents of the views that the generators were given, which are encoded one
    by one: only equal views have equal ones.

    Args:
        results: of one evaluation.
        purifications: labels.

    Returns:
        Groups of at least two labels, in the order of `purifications`.
    """
    seen: dict[str, dict[tuple[str | int, ...], tuple[tuple[str, float], ...]]] = {}
    for r in results:
        clip = (r.generator, r.protection, r.photo, r.frame, r.prompt, r.seed)
        shifts = sorted((n, v) for n, v in r.figures.items() if n.startswith(SHIFT))
        seen.setdefault(r.purification, {})[clip] = tuple(shifts)
    groups: dict[object, list[str]] = {}
    for label in purifications:
        views = seen.get(label, {})
        if views and all(views.values()):
            groups.setdefault(frozenset(views.items()), []).append(label)
    return tuple(tuple(group) for group in groups.values() if len(group) > 1)
