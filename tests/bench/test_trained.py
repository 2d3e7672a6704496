"""What a row's cloaks had seen, and what they gain by it: against NumPy on made-up results."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest

from anti_i2v_lit.bench.lists import list_path
from anti_i2v_lit.bench.plan import read_plan
from anti_i2v_lit.bench.trained import (
    DRAWN,
    MADE_OF,
    UNSEEN,
    UNTOUCHED,
    compared,
    drawn_by,
    seen_and_unseen,
)
from anti_i2v_lit.evaluation.gains import WORST, gains
from anti_i2v_lit.evaluation.store import Result

NAMES = ["none", "JPEG q75 4:2:0", "blur 1.5 px", "facebook", "WebP q50", "grey"]


def test_a_purification_was_drawn_or_is_made_of_what_was_or_is_of_another_kind() -> None:
    found = seen_and_unseen(NAMES, ["jpeg", "blur"])
    assert found == {
        UNSEEN: ["WebP q50", "grey"],
        MADE_OF: ["facebook"],
        DRAWN: ["JPEG q75 4:2:0", "blur 1.5 px"],
        UNTOUCHED: ["none"],
    }
    upload = seen_and_unseen(NAMES, ["platform"])
    assert upload[DRAWN] == [], "an upload was drawn, not a JPEG save alone"
    assert upload[MADE_OF] == ["JPEG q75 4:2:0", "facebook"]
    for drawn in ("resize", "noise"):
        shrunk = seen_and_unseen(["noisy upscaling", "grey"], [drawn])
        assert shrunk[MADE_OF] == ["noisy upscaling"], "it shrinks and adds noise first"


def test_the_packaged_list_judges_on_what_was_not_drawn() -> None:
    plan = read_plan(list_path("trained"))
    drawn = drawn_by(plan, [])
    assert (
        set(drawn) == {"trained_on_jpeg_and_resize", "trained_on_upload"} == set(compared(plan, []))
    )
    for names in drawn.values():
        groups = seen_and_unseen(plan.purifications, names)
        assert len(groups[UNSEEN]) >= 5 and groups[DRAWN] and groups[MADE_OF]
        assert {"WebP q50", "H.264 CRF 23"} <= set(groups[UNSEEN])
    assert compared(replace(plan, reference="trained_on_upload"), []) == {}, "nothing to compare"


RNG = np.random.default_rng(3)
PLACES = ("none", "jpeg", "webp", "blur")
CHANGE = {"none": 0.0, "jpeg": -0.2, "webp": 0.1, "blur": -0.1}
BASE = {place: RNG.uniform(0.4, 0.6, 9) for place in PLACES}
NOISE = 0.02 * np.resize([1, -1], 9)
TRUTH = {
    **{("plain", place): values for place, values in BASE.items()},
    **{("trained", place): BASE[place] + CHANGE[place] + NOISE for place in PLACES},
}


def results(column: str) -> list[Result]:
    return [
        Result(
            photo=f"p{number}",
            protection=protection,
            purification=place,
            prompt="",
            seed=0,
            identity=f"{protection}{place}{number}",
            figures={column: float(value)},
        )
        for (protection, place), values in TRUTH.items()
        for number, value in enumerate(values)
    ]


def line(text: str, title: str, label: str) -> str:
    (found,) = re.findall(rf"^\| {label} \| (.*) \|$", text.split(f"### {title}")[1], re.M)[:1]
    return found


@pytest.mark.parametrize(
    ("column", "words"),
    [
        ("dlib_mean_zero", {"jpeg": "gains", "webp": "loses", "blur": "gains", "none": ""}),
        ("clip_lpips", {"jpeg": "loses", "webp": "gains", "blur": "loses", "none": ""}),
    ],
)
def test_words_follow_the_interval_and_the_direction(column: str, words: dict[str, str]) -> None:
    groups = {"drawn": ["jpeg"], "others": ["webp", "blur"], "nothing": [], "as is": ["none"]}
    text = gains({"held": results(column)}, {"trained": ("other",)}, "trained", "plain", groups)
    assert "## held (held out): trained" in text and "### nothing" not in text
    where = {"jpeg": "drawn", "webp": "others", "blur": "others", "none": "as is"}
    for label, word in words.items():
        cell = line(text, where[label], label)
        expected = (TRUTH["trained", label] - TRUTH["plain", label]).mean()
        assert cell.startswith(f"{expected:+.3f} [")
        assert cell.endswith(f"**{word}**" if word else "]")
    least = np.max if column == "dlib_mean_zero" else np.min
    worst = [
        least([TRUTH[name, label] for label in ("webp", "blur")], axis=0)
        for name in ("trained", "plain")
    ]
    assert line(text, "others", WORST).startswith(f"{(worst[0] - worst[1]).mean():+.3f} [")
    assert text.count(WORST) == 1, "one row is its own worst"


def test_photos_without_a_purification_are_no_part_of_the_worst() -> None:
    some = [r for r in results("dlib_mean_zero") if (r.photo, r.purification) != ("p0", "webp")]
    text = gains({"g": some}, {}, "trained", "plain", {"others": ["webp", "blur"]})
    worst = [
        np.max([TRUTH[name, label][1:] for label in ("webp", "blur")], axis=0)
        for name in ("trained", "plain")
    ]
    assert line(text, "others", WORST).startswith(f"{(worst[0] - worst[1]).mean():+.3f} [")


def test_a_clip_that_one_side_lacks_counts_on_neither() -> None:
    """Every second seed is 0.3 higher, and the untrained cloaks lack it for three photos."""
    again = [
        replace(r, seed=1, identity=f"{r.identity}1", figures={"hse_mean_zero": value + 0.3})
        for r in results("hse_mean_zero")
        for value in r.figures.values()
        if r.protection == "trained" or r.photo not in ("p0", "p1", "p2")
    ]
    both = [*results("hse_mean_zero"), *again]
    text = gains({"g": both}, {}, "trained", "plain", {"others": ["webp", "blur"]})
    for label in ("webp", "blur"):
        expected = (TRUTH["trained", label] - TRUTH["plain", label]).mean()
        assert line(text, "others", label).startswith(f"{expected:+.3f} [")
    worst = [
        np.max([TRUTH[name, label] for label in ("webp", "blur")], axis=0)
        for name in ("trained", "plain")
    ]
    assert line(text, "others", WORST).startswith(f"{(worst[0] - worst[1]).mean():+.3f} [")
