"""All that an evaluation found, as plain data: what the report shows and `outcome.json` keeps."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any

from anti_i2v_lit.evaluation.facts import (
    NO_COUNTS,
    AbsentMetric,
    ColumnFacts,
    Counts,
    GeneratorFacts,
    KeptClip,
    PhotoFacts,
    Problem,
    ProtectionFacts,
    PurificationFacts,
)
from anti_i2v_lit.evaluation.statistics import Estimate

FORMAT = 2
ALL_TIERS = "all"


@dataclass(frozen=True, kw_only=True)
class Threshold:
    """Below which similarity a clip counts as somebody else's (see docs/evaluation.md).

    Attributes:
        generator: label.
        figure: identity figure that it cuts, such as "dlib_mean_zero".
        value: cosine; NaN where it could not be found, so that nothing counts as protected.
        method: how it was found, a sentence.
        own: similarity of clean clips to their own photo, mean over photos.
        others: similarity of clean clips to other people's photos, mean over photos.
        num_people: people that took part; photos of one face count once.
        error_rate: share of clean clips on the wrong side of `value`, in [0, 1].
    """

    generator: str
    figure: str
    value: float
    method: str
    own: Estimate
    others: Estimate
    num_people: int
    error_rate: float


@dataclass(frozen=True, kw_only=True)
class NoiseLimit:
    """The largest change of a figure that noise of the cloaks' size makes.

    Attributes:
        generator: label.
        protection: whose residuals the noise copies in size.
        purification: label.
        figure: which figure.
        value: change from the clean clip (negative: less similar) that noise exceeds in at most
            the share `noise.quantile` of clips; NaN where fewer than two clips under noise were
            judged.
        num_clips: clips under noise behind it.
    """

    generator: str
    protection: str
    purification: str
    figure: str
    value: float
    num_clips: int


@dataclass(frozen=True, kw_only=True)
class SummaryRow:
    """One protection (or "clean", or noise), after one purification, by one generator.

    Attributes:
        generator: label.
        knowledge: one of `facts.KNOWLEDGE`; "" for clean photos and noise.
        protection: name.
        purification: label.
        estimates: column -> mean over photos.
        to_clean: column -> paired difference to the clean photo's clip.
        to_noise: column -> paired difference to noise of equal size; empty for noise itself.
        counts: what stands behind the means.
        noise_counts: the clips that `to_noise` compares, of which noise may have fewer seeds.
    """

    generator: str
    knowledge: str
    protection: str
    purification: str
    estimates: dict[str, Estimate]
    to_clean: dict[str, Estimate]
    to_noise: dict[str, Estimate]
    counts: Counts
    noise_counts: Counts = NO_COUNTS


@dataclass(frozen=True, kw_only=True)
class WorstCase:
    """Per photo the worst purification of a tier, then the mean over photos: the headline.

    Attributes:
        generator: label.
        knowledge: one of `facts.KNOWLEDGE`.
        protection: name.
        tier: of the gauntlet; "all" for every purification of the evaluation.
        purifications: labels in the tier.
        estimates: identity figure -> mean over photos of the photo's highest value in the tier.
        clean: the clean photos' values, each at the purification that is its cloak's worst.
        share_protected: share of photos that are protected after every one of them.
        share_changed: share of photos whose clips change more than noise's after every one.
        hardest: purification -> number of photos for which it is the worst.
        counts: what was judged after all of them together; each mean has its own count of photos.
    """

    generator: str
    knowledge: str
    protection: str
    tier: str
    purifications: tuple[str, ...]
    estimates: dict[str, Estimate]
    clean: dict[str, Estimate]
    share_protected: Estimate
    share_changed: Estimate
    hardest: dict[str, int]
    counts: Counts


@dataclass(frozen=True, kw_only=True)
class HeatCell:
    """One field of the heat map: a protection after a purification, by one generator.

    Attributes:
        generator: label.
        knowledge: one of `facts.KNOWLEDGE`.
        protection: name.
        purification: label.
        share_protected: share of photos.
        share_changed: share of photos whose clips change more than noise's.
        figure: identity figure shown (or the distance of clips where there is no face network).
        value: its mean over photos.
        clean: the same of the clean photos.
        noise: the same under noise of equal size; count 0 where none was judged.
        counts: what was judged; each mean has its own count of photos.
        noise_counts: what stands behind `noise`.
    """

    generator: str
    knowledge: str
    protection: str
    purification: str
    share_protected: Estimate
    share_changed: Estimate
    figure: str
    value: Estimate
    clean: Estimate
    noise: Estimate
    counts: Counts
    noise_counts: Counts = NO_COUNTS


@dataclass(frozen=True, kw_only=True)
class Curve:
    """A figure by frame index, over the whole (chained) clip.

    Attributes:
        generator: label.
        protection: name; "clean" for the photos themselves.
        purification: label.
        figure: name of the per-frame figure, such as "dlib", "hse", "face" or "photo_lpips".
        points: one mean over photos per frame; count 0 where it is undefined.
        chain_length: frames of one link; links begin at multiples of it.
    """

    generator: str
    protection: str
    purification: str
    figure: str
    points: tuple[Estimate, ...]
    chain_length: int


@dataclass(frozen=True, kw_only=True)
class SetFigure:
    """A figure of two sets of clips, such as FVD, against the clean photos' clips."""

    generator: str
    protection: str
    purification: str
    figure: str
    value: float
    counts: Counts


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """Everything. Paths are relative to the folder of `outcome.json` unless they are absolute.

    Attributes:
        format: of this file.
        created: ISO 8601 time in UTC.
        seconds: time that this run took; rows of earlier runs cost none.
        complete: whether every row is there.
        exit_code: 0 all fine, 2 pairs failed or are no cloaks, 3 not complete.
        elsewhere: photos, counted per generator, that another run was still working on, where
            nothing else was missing; 0 for a run that was interrupted.
        headline: a few sentences, held-out generators first, then unknown, then white-box ones.
        definition: what "protected" and "weakened" mean here, sentences.
        settings: all settings.
        versions: package -> version.
        prompts: texts of the clips.
        seeds: seeds of the clips.
        generators: held-out ones first, then unknown ones.
        protections: in the order of the command line.
        purifications: in the order of the gauntlet.
        alike: labels of purifications that did the same to every file here, by group.
        columns: all figures that occur.
        thresholds: per generator and identity figure.
        noise_limits: per generator, protection, purification and figure.
        photos: sorted by key.
        summary: means.
        worst: worst cases over tiers, in the same order.
        heat: fields of the heat map.
        curves: by frame index.
        set_figures: figures of sets of clips.
        absent: metrics that could not be taken.
        problems: what went wrong.
        clips: kept for the report.
        files: what else was written: "results.parquet", "results.csv", "results.json" ...
    """

    format: int = FORMAT
    created: str = ""
    seconds: float = 0.0
    complete: bool = True
    exit_code: int = 0
    elsewhere: int = 0
    headline: tuple[str, ...] = ()
    definition: tuple[str, ...] = ()
    settings: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    prompts: tuple[str, ...] = ()
    seeds: tuple[int, ...] = ()
    generators: tuple[GeneratorFacts, ...] = ()
    protections: tuple[ProtectionFacts, ...] = ()
    purifications: tuple[PurificationFacts, ...] = ()
    alike: tuple[tuple[str, ...], ...] = ()
    columns: tuple[ColumnFacts, ...] = ()
    thresholds: tuple[Threshold, ...] = ()
    noise_limits: tuple[NoiseLimit, ...] = ()
    photos: tuple[PhotoFacts, ...] = ()
    summary: tuple[SummaryRow, ...] = ()
    worst: tuple[WorstCase, ...] = ()
    heat: tuple[HeatCell, ...] = ()
    curves: tuple[Curve, ...] = ()
    set_figures: tuple[SetFigure, ...] = ()
    absent: tuple[AbsentMetric, ...] = ()
    problems: tuple[Problem, ...] = ()
    clips: tuple[KeptClip, ...] = ()
    files: tuple[str, ...] = ()

    def distinct(self, purifications: Collection[str]) -> str:
        """Words for how many of some purifications differ here; "" if all of them do."""
        repeated = sum(max(0, len(set(group) & set(purifications)) - 1) for group in self.alike)
        return f" ({len(purifications) - repeated} of them distinct here)" if repeated else ""
