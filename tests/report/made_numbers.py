"""Made-up figures of an outcome: random numbers, every one different."""

import math

import numpy as np

from anti_i2v_lit.evaluation.facts import ColumnFacts, Counts
from anti_i2v_lit.evaluation.outcome import Curve, HeatCell, SummaryRow, WorstCase
from anti_i2v_lit.evaluation.statistics import Estimate

NONE = Estimate(mean=math.nan, low=math.nan, high=math.nan, count=0)
FIGURES = ("dlib_mean_zero", "clip_lpips")


class Maker:
    """Draws numbers; every one differs, so that a page cannot mix them up unnoticed."""

    def __init__(self, photos, prompts, seeds):
        self.random = np.random.default_rng(0)
        self.counts = Counts(
            photos=photos, prompts=prompts, seeds=seeds, clips=photos * prompts * seeds
        )

    def estimate(self, centre=0.5, half=0.05):
        mean = float(np.clip(centre + self.random.normal() * 0.04, 0.0, 1.0))
        if self.counts.photos == 1:
            return Estimate(mean=mean, low=math.nan, high=math.nan, count=1)
        return Estimate(mean=mean, low=mean - half, high=mean + half, count=self.counts.photos)

    def share(self, centre):
        mean = float(np.clip(centre + self.random.normal() * 0.1, 0.0, 1.0))
        low, high = max(0.0, mean - 0.2), min(1.0, mean + 0.2)
        return Estimate(mean=mean, low=low, high=high, count=self.counts.photos)


def columns():
    def column(name, title, better, group, digits=3):
        return ColumnFacts(
            name=name,
            title=title,
            unit="",
            better=better,
            digits=digits,
            group=group,
            source="ours",
        )

    return (
        column("dlib_mean_zero", "Likeness (dlib), faceless = 0", "lower", "Identity"),
        column("fdfr", "Frames without a face", "higher", "Identity"),
        column("clip_lpips", "LPIPS to the clean clip", "higher", "Fidelity"),
        column("motion", "Motion (grey levels)", "none", "Fidelity", 2),
        column("psnr", "PSNR (dB)", "none", "Visibility", 2),
        column("ciede2000", "CIEDE2000", "none", "Visibility", 2),
    )


def known_of(generator, white, protection, protections):
    if protection not in protections:
        return ""
    return "white-box" if generator in white else "held-out"


def summary(maker, generators, white, protections, purifications, faces):
    found = []
    for generator in generators:
        for purification in purifications:
            for name in ["clean", *protections, *(f"noise of {p}" for p in protections)]:
                centre = {"clean": 0.7}.get(name, 0.35 if name in protections else 0.65)
                estimates = {c.name: maker.estimate(centre) for c in columns()[:4]}
                if not faces:
                    estimates["dlib_mean_zero"] = NONE
                apart = {c: maker.estimate(0.2, 0.5) for c in estimates} if name != "clean" else {}
                found.append(
                    SummaryRow(
                        generator=generator,
                        purification=purification,
                        protection=name,
                        knowledge=known_of(generator, white, name, protections),
                        estimates=estimates,
                        to_clean=apart,
                        to_noise={c: maker.estimate(-0.3) for c in FIGURES}
                        if name in protections
                        else {},
                        counts=maker.counts,
                    )
                )
    return tuple(found)


def worst(maker, generators, white, protections, purifications, faces):
    return tuple(
        WorstCase(
            generator=generator,
            knowledge="white-box" if generator in white else "held-out",
            protection=name,
            tier=tier,
            purifications=tuple(labels),
            estimates={"dlib_mean_zero": maker.estimate(0.4)} if faces else {},
            clean={"dlib_mean_zero": maker.estimate(0.7)} if faces else {},
            share_protected=maker.share(0.5) if faces else NONE,
            share_changed=maker.share(0.8),
            hardest={"greyscale": 2, "none": 1},
            counts=maker.counts,
        )
        for generator in generators
        for name in protections
        for tier, labels in (
            ("all", purifications),
            ("written", purifications[:3]),
            ("quick", purifications),
        )
    )


def heat(maker, generators, white, protections, purifications, faces):
    return tuple(
        HeatCell(
            generator=generator,
            knowledge="white-box" if generator in white else "held-out",
            protection=name,
            purification=purification,
            share_protected=maker.share(0.9 - 0.8 * i / len(purifications)) if faces else NONE,
            share_changed=maker.share(0.8),
            figure="dlib_mean_zero" if faces else "clip_lpips",
            value=maker.estimate(0.3),
            clean=maker.estimate(0.7),
            noise=maker.estimate(0.65),
            counts=maker.counts,
        )
        for generator in generators
        for name in protections
        for i, purification in enumerate(purifications)
    )


def curves(maker, generators, protections, purifications, frames, faces):
    found = []
    for generator in generators:
        for purification in purifications:
            for figure in ("dlib", "photo_lpips") if faces else ("photo_lpips",):
                for name in ["clean", *protections, *(f"noise of {p}" for p in protections)]:
                    start = 0.8 if name not in protections else 0.5
                    points = tuple(maker.estimate(start - 0.3 * t / frames) for t in range(frames))
                    found.append(
                        Curve(
                            generator=generator,
                            protection=name,
                            purification=purification,
                            figure=figure,
                            points=points,
                            chain_length=max(1, frames // 2),
                        )
                    )
    return tuple(found)
