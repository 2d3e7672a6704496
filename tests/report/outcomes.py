"""Outcomes of made-up evaluations: random numbers, and clips of skimage's astronaut and cat."""

import math

import numpy as np
from PIL import Image
from safetensors.numpy import save_file
from skimage import data

from anti_i2v_lit.evaluation.facts import (
    AbsentMetric,
    ColumnFacts,
    Counts,
    GeneratorFacts,
    KeptClip,
    PhotoFacts,
    Problem,
    ProtectedFile,
    ProtectionFacts,
    PurificationFacts,
    Verdict,
)
from anti_i2v_lit.evaluation.outcome import (
    Curve,
    HeatCell,
    NoiseLimit,
    Outcome,
    SetFigure,
    SummaryRow,
    Threshold,
    WorstCase,
)
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


def picture(index, size=192):
    base = data.astronaut() if index % 2 == 0 else data.chelsea()[:, 60:360]
    return np.asarray(Image.fromarray(base).resize((size, size)))


def write_files(folder, keys, names, frames, generators, purifications):
    """Photos, cloaks and clips below `folder`; returns the kept clips."""
    random = np.random.default_rng(1)
    kept = []
    (folder / "clips").mkdir(exist_ok=True)
    for index, key in enumerate(keys):
        photo = picture(index)
        Image.fromarray(photo).save(folder / f"photo{index}.png")
        for place in range(len(names)):
            noise = random.integers(-8, 9, photo.shape)
            cloak = (photo.astype(int) + noise).clip(0, 255).astype(np.uint8)
            Image.fromarray(cloak).save(folder / f"cloak{index}_{place}.png")
        for generator in generators:
            for purification in purifications:
                for place, name in enumerate(["clean", *names]):
                    path = f"clips/{len(kept)}.safetensors"
                    save_file({"frames": clip(index, frames, place)}, folder / path)
                    kept.append(
                        KeptClip(
                            photo=key,
                            protection=name,
                            generator=generator,
                            seed=0,
                            purification=purification,
                            prompt="a person is talking",
                            path=path,
                        )
                    )
    return tuple(kept)


def clip(index, frames, place):
    """The picture moves to the side; a cloak's falls apart as it goes on."""
    small = np.asarray(Image.fromarray(picture(index)).resize((128, 128))).astype(np.float64)
    random = np.random.default_rng(place)
    found = []
    for t in range(frames):
        shown = np.roll(small, 2 * t, axis=1)
        if place:
            noise = random.normal(0, 60, (16, 16, 3)).repeat(8, 0).repeat(8, 1)
            shown = shown + noise * min(1.0, (t + 1) / 6)
        found.append(shown.clip(0, 255).astype(np.uint8))
    return np.ascontiguousarray(np.stack(found).transpose(0, 3, 1, 2))


def make(
    folder,
    *,
    photos=6,
    protections=("ours", "RGB-PGD"),
    purifications=("none", "JPEG q75 4:2:0", "half size + JPEG q75", "greyscale"),
    generators=("unet", "mmdit"),
    frames=8,
    clips=True,
    faces=True,
    keys=None,
    problems=(),
    complete=True,
):
    """An outcome with everything in it, and its files; the last generator is white-box."""
    keys = keys or [f"album/photo_{i:02d}.jpg" for i in range(photos)]
    maker = Maker(len(keys), 2, 3)
    white = generators[-1:] if len(generators) > 1 else ()
    kept = write_files(folder, keys, protections, frames, list(generators), list(purifications[:1]))
    return Outcome(
        created="2026-11-22T05:00:00+00:00",
        seconds=754.0,
        complete=complete,
        exit_code=2 if any(p.fails for p in problems) else 0 if complete else 3,
        headline=(
            f"Protected after every one of {len(purifications) - 1} purifications: 3 of "
            f"{len(keys)} photos, measured on the held-out {generators[0]}.",
            "On the white-box mmdit it is 5 of 6.",
        ),
        definition=(
            "Protected: the clip resembles the person less than the threshold.",
            "Weakened: it changed more than noise of equal size changes it, no more.",
        ),
        settings={"seeds": [0, 1, 2], "gauntlet": "quick", "identity": {"others": 32}},
        versions={"anti-i2v-lit": "0.1.0", "torch": "2.15"},
        prompts=("a person is talking", "a person turns the head"),
        seeds=(0, 1, 2),
        generators=tuple(generator_facts(label, frames) for label in generators),
        protections=tuple(protection_facts(n, white, len(keys)) for n in protections),
        purifications=tuple(
            PurificationFacts(
                label=p,
                name="" if p == "none" else "jpeg",
                severity=0.5,
                tier="quick",
                settings={"subsampling": "4:2:0"},
                description=f"What {p} does.",
            )
            for p in purifications
        ),
        columns=columns(),
        thresholds=tuple(threshold(maker, g) for g in generators) if faces else (),
        noise_limits=tuple(
            NoiseLimit(
                generator=g,
                protection=p,
                purification="none",
                figure="dlib_mean_zero",
                value=-0.0625,
                num_clips=len(keys),
            )
            for g in generators
            for p in protections
        ),
        photos=tuple(
            photo_facts(i, k, protections, generators, white, faces) for i, k in enumerate(keys)
        ),
        summary=summary(maker, generators, white, protections, purifications, faces),
        worst=worst(maker, generators, white, protections, purifications, faces),
        heat=heat(maker, generators, white, protections, purifications, faces),
        curves=curves(maker, generators, protections, purifications[:2], frames, faces),
        set_figures=(
            SetFigure(
                generator=generators[0],
                protection=protections[0],
                purification="none",
                figure="fvd",
                value=123.456,
                counts=maker.counts,
            ),
        ),
        absent=(
            AbsentMetric(
                name="dino", reason="needs dino_vits16.pth; put it into the weights folder"
            ),
            AbsentMetric(name="q_align", reason="needs the package pyiqa: pip install pyiqa"),
        ),
        problems=tuple(problems),
        clips=kept if clips else (),
        files=("outcome.json", "results.csv", "results.parquet"),
    )


def generator_facts(label, frames):
    return GeneratorFacts(
        label=label,
        name="dynamicrafter",
        path="embedded",
        model_sha256=f"{label}-" + "ab" * 16,
        view_size=(128, 96),
        num_frames=frames,
        settings={"eta": 1.0, "label": label},
    )


def protection_facts(name, white, photos):
    return ProtectionFacts(
        name=name,
        folder=f"/somewhere/{name}",
        source="manifest",
        surrogates=("cogvideox:embedded",),
        white_box=tuple(white),
        noise=f"noise of {name}",
        num_pairs=photos,
        num_missing=0,
        num_failed=0,
    )


def threshold(maker, generator):
    return Threshold(
        generator=generator,
        figure="dlib_mean_zero",
        value=0.3125,
        method="equal error rate",
        own=maker.estimate(0.7),
        others=maker.estimate(0.1),
        num_people=6,
        error_rate=0.04,
    )


def photo_facts(index, key, protections, generators, white, faces):
    words = ("protected", "weakened", "not protected")
    verdicts, files = [], []
    for place, name in enumerate(protections):
        word = words[(index + place) % 3]
        value = 0.25 + 0.01 * index + 0.001 * place
        common = dict(
            protection=name,
            figure="dlib_mean_zero",
            value=value,
            clean=0.7,
            reason=f"{word}: after greyscale the likeness is {value:.3f}",
        )
        verdicts.append(
            Verdict(generator="", knowledge="held-out", verdict=word, hardest="greyscale", **common)
        )
        for generator in generators:
            known = "white-box" if generator in white else "held-out"
            verdicts.append(
                Verdict(
                    generator=generator,
                    knowledge=known,
                    verdict=word,
                    hardest="greyscale",
                    protected_after=("none",),
                    lost_after=("greyscale",),
                    **common,
                )
            )
        files.append(
            ProtectedFile(
                protection=name,
                path=f"cloak{index}_{place}.png",
                sha256=f"c{index}{place}" * 8,
                frame=(0.0, 0.0, 1.0, 1.0),
                pairing="same name",
                residual_rms_8bit=4.9,
                figures={"psnr": 33.0 + index, "ciede2000": 1.5 + 0.1 * place},
            )
        )
    return PhotoFacts(
        key=key,
        path=f"photo{index}.png",
        sha256=f"a{index}" * 16,
        size=(192, 192),
        has_face=faces,
        files=tuple(files),
        verdicts=tuple(verdicts),
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


SWAPPED = Problem(
    kind="swapped",
    protection="ours",
    photo="album/photo_01.jpg",
    reason="its protected file is the photo itself: byte for byte the same",
)
TOLD = Problem(
    kind="missing",
    protection="RGB-PGD",
    photo="album/photo_02.jpg",
    reason="no file of this name lies in the folder",
    fails=False,
)
