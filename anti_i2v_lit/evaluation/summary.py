"""Tables of an outcome: means, worst cases, heat map and curves, held-out generators first."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence

from anti_i2v_lit.evaluation.calibration import (
    DISTANCE,
    IDENTITY,
    face_networks,
    noise_limits,
    thresholds,
)
from anti_i2v_lit.evaluation.columns import VISIBILITY
from anti_i2v_lit.evaluation.facts import NO_COUNTS, PROTECTED, WEAKENED
from anti_i2v_lit.evaluation.gauntlet import tiers
from anti_i2v_lit.evaluation.outcome import (
    Curve,
    HeatCell,
    NoiseLimit,
    SummaryRow,
    Threshold,
    WorstCase,
)
from anti_i2v_lit.evaluation.plan import CLEAN, NOISE
from anti_i2v_lit.evaluation.settings import EvaluationSettings
from anti_i2v_lit.evaluation.statistics import Estimate, bootstrap_mean, share
from anti_i2v_lit.evaluation.trials import Trials, alike, mean
from anti_i2v_lit.evaluation.verdicts import Verdicts

CURVES = ("face", "photo_lpips", "clip_lpips", "motion")
Place = tuple[str, str, str]


class Summary:
    """Computes the tables of one evaluation.

    Args:
        trials: all results.
        settings: of the evaluation.
        generators: labels, held-out ones first.
        protections: names.
        knowledge: (generator, protection) -> what is known of the former's part in computing the
            latter, one of `KNOWLEDGE`.
        link_length: generator -> frames of one link of a clip.
    """

    def __init__(
        self,
        trials: Trials,
        settings: EvaluationSettings,
        *,
        generators: Sequence[str],
        protections: Sequence[str],
        knowledge: Mapping[tuple[str, str], str],
        link_length: Mapping[str, int],
    ) -> None:
        self._trials, self._settings = trials, settings
        self._generators, self._protections = tuple(generators), tuple(protections)
        self._knowledge, self._link_length = knowledge, link_length
        entries = settings.purifications()
        self._labels = [entry.label for entry in entries]
        self._tiers = tiers(entries)
        self.networks = face_networks(trials)
        self.thresholds: list[Threshold] = [
            threshold
            for label in self._generators
            for threshold in thresholds(
                trials, label, self._labels[0], settings.identity, settings.statistics.level
            )
        ]
        self.limits: list[NoiseLimit] = [
            limit for place in self._places() for limit in noise_limits(trials, place, settings)
        ]
        planned = list(itertools.product(settings.prompts, settings.seeds))
        self.verdicts = Verdicts(trials, self.thresholds, self.limits, planned=planned)

    def knowledge(self, generator: str, protection: str) -> str:
        """What is known of a generator's part in computing the cloaks, one of `KNOWLEDGE`."""
        return self._knowledge[generator, protection]

    def rows(self) -> Iterator[SummaryRow]:
        """Means and paired differences of everything, clean photos and noise included."""
        for generator in self._generators:
            for name in (CLEAN, *self._protections, *(NOISE + p for p in self._protections)):
                for label in self._labels:
                    if self._trials.photos(generator, name, label):
                        yield self._row((generator, name, label))

    def alike(self) -> tuple[tuple[str, ...], ...]:
        """Purifications that did the same to every file; see `trials.alike`."""
        return alike(self._trials.results, self._labels)

    def worst(self) -> Iterator[WorstCase]:
        """Worst cases over the tiers that were run whole, and over everything."""
        for generator in self._generators:
            for protection in self._protections:
                for tier, labels in self._tiers.items():
                    if self._trials.photos(generator, protection, labels[0]):
                        yield self._worst_case(generator, protection, tier, labels)

    def heat(self) -> Iterator[HeatCell]:
        """One field per protection, purification and generator."""
        for place in self._places():
            if not self._trials.photos(*place):
                continue
            generator, protection, label = place
            figure = IDENTITY.format(self.networks[0]) if self.networks else DISTANCE
            noisy = (generator, NOISE + protection, label)
            yield HeatCell(
                generator=generator,
                knowledge=self.knowledge(generator, protection),
                protection=protection,
                purification=label,
                share_protected=self._share([place], (PROTECTED,)),
                share_changed=self._share([place], (PROTECTED, WEAKENED)),
                figure=figure,
                value=self._estimate(self._trials.means(place, figure)),
                clean=self._estimate(self._trials.clean_means(place, figure)),
                noise=self._estimate(self._trials.means(noisy, figure)),
                counts=self._trials.counts(*place),
                noise_counts=self._trials.counts(*noisy),
            )

    def curves(self) -> Iterator[Curve]:
        """Figures by frame index; face networks with faceless frames dropped, and counted 0."""
        figures = (*self.networks, *(f"{n}_zero" for n in self.networks), *CURVES)
        for generator in self._generators:
            for name in (CLEAN, *self._protections, *(NOISE + p for p in self._protections)):
                for label in self._labels:
                    for figure in figures:
                        points = self._by_frame((generator, name, label), figure)
                        if any(point.count for point in points):
                            yield Curve(
                                generator=generator,
                                protection=name,
                                purification=label,
                                figure=figure,
                                points=tuple(points),
                                chain_length=self._link_length.get(generator, len(points)),
                            )

    def _places(self) -> Iterator[Place]:
        for generator in self._generators:
            for protection in self._protections:
                for label in self._labels:
                    yield generator, protection, label

    def _row(self, place: Place) -> SummaryRow:
        generator, name, label = place
        columns = sorted({c for r in self._trials.of(*place) for c in r.figures})
        own = name in self._protections
        of_files = {column.name for column in VISIBILITY}
        to_clean, to_noise = {}, {}
        for column in columns if name != CLEAN else ():
            if column in of_files or column.startswith("clip_"):
                continue  # already a comparison with the clean photo
            to_clean[column] = self._estimate(self._trials.to_clean(place, column))
        for column in columns if own else ():
            change = self._trials.to_other(place, column, NOISE + name)
            if change:
                to_noise[column] = self._estimate(change)
        return SummaryRow(
            generator=generator,
            knowledge=self.knowledge(generator, name) if own else "",
            protection=name,
            purification=label,
            estimates={c: self._estimate(self._trials.means(place, c)) for c in columns},
            to_clean=to_clean,
            to_noise=to_noise,
            counts=self._trials.counts(*place),
            noise_counts=self._trials.counts_beside(place, NOISE + name) if own else NO_COUNTS,
        )

    def _worst_case(
        self, generator: str, protection: str, tier: str, labels: Sequence[str]
    ) -> WorstCase:
        places = [(generator, protection, label) for label in labels]
        figures = [IDENTITY.format(network) for network in self.networks] or [DISTANCE]
        worst, clean, whole = {}, {}, self._whole(places)
        for figure in figures:
            sign = -1 if figure == DISTANCE else 1  # the least distance is the worst
            tables = [self._trials.means(place, figure) for place in places]
            beside = [self._trials.clean_means(place, figure) for place in places]
            found = _worst_with_clean(tables, beside, sign, whole)
            worst[figure] = self._estimate({photo: pair[0] for photo, pair in found.items()})
            clean[figure] = self._estimate({photo: pair[1] for photo, pair in found.items()})
        return WorstCase(
            generator=generator,
            knowledge=self.knowledge(generator, protection),
            protection=protection,
            tier=tier,
            purifications=tuple(labels),
            estimates=worst,
            clean=clean,
            share_protected=self._share(places, (PROTECTED,)),
            share_changed=self._share(places, (PROTECTED, WEAKENED)),
            hardest=self._hardest(places, figures[0]),
            counts=self._trials.counts_of(places),
        )

    def _hardest(self, places: Sequence[Place], figure: str) -> dict[str, int]:
        sign = -1 if figure == DISTANCE else 1
        tables = {place[2]: self._trials.means(place, figure) for place in places}
        found: Counter[str] = Counter()
        for photo in sorted(self._whole(places)):
            values = {u: sign * t[photo] for u, t in tables.items() if photo in t}
            defined = {u: v for u, v in values.items() if not math.isnan(v)}
            if defined:
                found[max(defined, key=defined.__getitem__)] += 1
        return dict(found.most_common())

    def _share(self, places: Sequence[Place], states: Sequence[str]) -> Estimate:
        """Share of photos that are in one of the states at every place.

        A photo that lacks a planned clip at one of the places counts as not being in them: what
        was not judged is not survived. A place where the clean clips do not show the person says
        nothing and is passed over; a photo with no other place is left out of the share and of
        its count. So are photos without any clip of the generator and the protection, and those
        of which only a bound from noise could tell.
        """
        tables = [self.verdicts.states(place) for place in places]
        values = []
        for photo in sorted(set.union(*(set(table) for table in tables))):
            found = [table[photo] for table in tables]
            bounded = [state for state in found if state.num_noisy is None]
            telling = [state.state for state in bounded if not state.says_nothing]
            lost = any(state not in states for state in telling)
            if telling and (lost or len(bounded) == len(found)):
                values.append(not lost)
        return share(values, level=self._settings.statistics.level)

    def _whole(self, places: Sequence[Place]) -> set[str]:
        """Photos whose every planned clip was judged at all places."""
        tables = [self.verdicts.states(place) for place in places]
        photos = set.union(*(set(table) for table in tables))
        return {p for p in photos if not any(table[p].num_missing for table in tables)}

    def _by_frame(self, place: Place, figure: str) -> list[Estimate]:
        network = figure.removesuffix("_zero")
        zeroed = network != figure and network in self.networks
        photos: dict[str, list[tuple[float, ...]]] = {}
        for result in self._trials.of(*place):
            values = result.by_frame.get(network)
            if values is None:
                continue
            has_face = not any(math.isnan(v) for v in result.by_frame.get("face", (math.nan,)))
            if zeroed and has_face:
                values = tuple(0.0 if math.isnan(v) else v for v in values)
            photos.setdefault(result.photo, []).append(values)
        length = max((len(v) for some in photos.values() for v in some), default=0)
        return [
            self._estimate({p: mean(v[i] for v in some) for p, some in photos.items()})
            for i in range(length)
        ]

    def _estimate(self, values: Mapping[str, float]) -> Estimate:
        settings = self._settings.statistics
        # Sorted, so that the resampling does not depend on the order of the work.
        listed = [values[photo] for photo in sorted(values)]
        return bootstrap_mean(listed, resamples=settings.resamples, level=settings.level)


def _worst_with_clean(
    tables: Sequence[Mapping[str, float]],
    clean: Sequence[Mapping[str, float]],
    sign: int,
    whole: Collection[str],
) -> dict[str, tuple[float, float]]:
    """Photo -> its worst value over the tables, and the clean photo's in that same table.

    Only photos with every planned clip: a worst case of some purifications is none of them all.
    Both are NaN where a value is undefined, since nobody knows then which is the worst.
    """
    found = {}
    for photo in whole:
        values = [table.get(photo, math.nan) for table in tables]
        at = max(range(len(values)), key=lambda i: sign * values[i])
        undefined = any(math.isnan(v) for v in values)
        pair = values[at], clean[at].get(photo, math.nan)
        found[photo] = (math.nan, math.nan) if undefined else pair
    return found
