"""Outcomes of made-up evaluations: random numbers, and clips of skimage's astronaut and cat."""

from anti_i2v_lit.evaluation.facts import AbsentMetric
from anti_i2v_lit.evaluation.outcome import Outcome

from .made_facts import (
    SWAPPED,
    TOLD,
    generator_facts,
    noise_limits,
    photo_facts,
    protection_facts,
    purification_facts,
    set_figures,
    threshold,
)
from .made_files import picture, write_files
from .made_numbers import Maker, columns, curves, heat, summary, worst

__all__ = ["SWAPPED", "TOLD", "make", "picture"]


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
    known = (generators, white, protections, purifications, faces)
    return Outcome(
        seconds=754.0,
        complete=complete,
        exit_code=2 if any(p.fails for p in problems) else 0 if complete else 3,
        generators=tuple(generator_facts(label, frames) for label in generators),
        protections=tuple(protection_facts(n, white, len(keys)) for n in protections),
        purifications=tuple(purification_facts(p) for p in purifications),
        columns=columns(),
        thresholds=tuple(threshold(maker, g) for g in generators) if faces else (),
        noise_limits=noise_limits(generators, protections, len(keys)),
        photos=tuple(
            photo_facts(i, k, protections, generators, white, faces, purifications)
            for i, k in enumerate(keys)
        ),
        summary=summary(maker, *known),
        worst=worst(maker, *known),
        heat=heat(maker, *known),
        curves=curves(maker, generators, protections, purifications[:2], frames, faces),
        set_figures=set_figures(maker, generators[0], protections[0]),
        problems=tuple(problems),
        clips=kept if clips else (),
        **told(keys, generators, purifications),
    )


def told(keys, generators, purifications):
    """The parts of an outcome that are words."""
    return dict(
        created="2026-11-22T05:00:00+00:00",
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
        absent=(
            AbsentMetric(
                name="dino", reason="needs dino_vits16.pth; put it into the weights folder"
            ),
            AbsentMetric(name="q_align", reason="needs the package pyiqa: pip install pyiqa"),
        ),
        files=("outcome.json", "results.csv", "results.parquet"),
    )
