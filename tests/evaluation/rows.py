"""Rows of an evaluation whose thresholds, limits and verdicts can be worked out by hand."""

from __future__ import annotations

from collections.abc import Sequence

from anti_i2v_lit.evaluation.facts import HELD_OUT
from anti_i2v_lit.evaluation.plan import CLEAN, NOISE
from anti_i2v_lit.evaluation.settings import load_evaluation_settings
from anti_i2v_lit.evaluation.store import Result
from anti_i2v_lit.evaluation.summary import Summary
from anti_i2v_lit.evaluation.trials import Trials

PROMPT = "a person"
NONE, JPEG = "none", "jpeg at 0.5"
PLACES = (NONE, JPEG)
SEEDS = (0, 1)
OTHERS = (0.1, 0.1, 0.1)


def row(
    photo: str,
    protection: str,
    purification: str,
    seed: int,
    value: float,
    *,
    hse: float | None = None,
    others: Sequence[float] = OTHERS,
    generator: str = "g",
) -> Result:
    """One clip; its similarity to the photo is `value` for dlib, and `hse` where it is given."""
    figures = {"dlib_mean_zero": value, "clip_lpips": 0.1}
    by_frame = {"others_dlib": tuple(others)} if protection == CLEAN else {}
    if hse is not None:
        figures["hse_mean_zero"] = hse
        by_frame.update({"others_hse": tuple(others)} if protection == CLEAN else {})
    return Result(
        photo=photo,
        protection=protection,
        purification=purification,
        prompt=PROMPT,
        seed=seed,
        identity=f"{photo}/{protection}/{purification}/{seed}/{generator}",
        figures=figures,
        generator=generator,
        by_frame=by_frame,
    )


def cloaked(photo: str, values: Sequence[float], purification: str) -> list[Result]:
    """The clips of one cloak at one place, one per seed."""
    return [row(photo, "ours", purification, s, v) for s, v in zip(SEEDS, values, strict=True)]


def surroundings(photos: Sequence[str], clean: float = 0.7) -> list[Result]:
    """Clean clips, and noise that takes 0.05 and 0.1 from their similarity by turns."""
    found = []
    for number, photo in enumerate(photos):
        for place in PLACES:
            found += [row(photo, CLEAN, place, seed, clean) for seed in SEEDS]
            lost = 0.05 if number % 2 else 0.1
            found.append(row(photo, NOISE + "ours", place, 0, clean - lost))
    return found


def summary(rows: Sequence[Result], thresholds: dict[str, float] | None = None) -> Summary:
    """What is made of the rows: one held-out generator, two purifications, two seeds."""
    settings = load_evaluation_settings(
        values={
            "generators": [{"name": "cogvideox", "label": "g"}],
            "seeds": list(SEEDS),
            "prompts": [PROMPT],
            "gauntlet": ["none", {"name": "jpeg", "severity": 0.5}],
            "metrics": ["motion"],
            "identity": {"thresholds": thresholds or {}},
            "statistics": {"resamples": 50},
        }
    )
    return Summary(
        Trials(rows),
        settings,
        generators=["g"],
        protections=["ours"],
        knowledge={("g", "ours"): HELD_OUT},
        link_length={},
    )
