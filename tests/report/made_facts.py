"""What a made-up outcome says of its generators, protections, photos and problems."""

from anti_i2v_lit.evaluation.facts import (
    GeneratorFacts,
    PhotoFacts,
    Problem,
    ProtectedFile,
    ProtectionFacts,
    PurificationFacts,
    Verdict,
)
from anti_i2v_lit.evaluation.outcome import NoiseLimit, SetFigure, Threshold


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
        told_by="manifest",
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


def purification_facts(label):
    return PurificationFacts(
        label=label,
        name="" if label == "none" else "jpeg",
        severity=0.5,
        tier="quick",
        settings={"subsampling": "4:2:0"},
        description=f"What {label} does.",
    )


def noise_limits(generators, protections, photos):
    return tuple(
        NoiseLimit(
            generator=g,
            protection=p,
            purification="none",
            figure="dlib_mean_zero",
            value=-0.0625,
            num_clips=photos,
        )
        for g in generators
        for p in protections
    )


def set_figures(maker, generator, protection):
    return (
        SetFigure(
            generator=generator,
            protection=protection,
            purification="none",
            figure="fvd",
            value=123.456,
            counts=maker.counts,
        ),
    )


def photo_facts(index, key, protections, generators, white, faces, purifications):
    verdicts = []
    for place, name in enumerate(protections):
        verdicts += verdicts_on(index, place, name, generators, white, purifications)
    return PhotoFacts(
        key=key,
        path=f"photo{index}.png",
        sha256=f"a{index}" * 16,
        size=(192, 192),
        has_face=faces,
        files=tuple(protected_file(index, place, name) for place, name in enumerate(protections)),
        verdicts=tuple(verdicts),
    )


def verdicts_on(index, place, name, generators, white, purifications):
    word = ("protected", "weakened", "not protected")[(index + place) % 3]
    value = 0.25 + 0.01 * index + 0.001 * place
    common = dict(
        protection=name,
        verdict=word,
        hardest="greyscale",
        figure="dlib_mean_zero",
        value=value,
        clean=0.7,
        protected_after=tuple(purifications) if word == "protected" else ("none",),
        lost_after=() if word == "protected" else ("greyscale",),
        reason=f"{word}: after greyscale the likeness is {value:.3f}",
    )
    return [
        Verdict(generator="", knowledge="held-out", **common),
        *(
            Verdict(
                generator=generator,
                knowledge="white-box" if generator in white else "held-out",
                **common,
            )
            for generator in generators
        ),
    ]


def protected_file(index, place, name):
    return ProtectedFile(
        protection=name,
        path=f"cloak{index}_{place}.png",
        sha256=f"c{index}{place}" * 8,
        frame=(0.0, 0.0, 1.0, 1.0),
        pairing="same name",
        residual_rms_8bit=4.9,
        figures={"psnr": 33.0 + index, "ciede2000": 1.5 + 0.1 * place},
    )


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
