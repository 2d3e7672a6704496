"""Who beats whom, and the worst purification, against NumPy on made-up results."""

from __future__ import annotations

import numpy as np

from anti_i2v_lit.evaluation.headline import WORST, by_purification, wins
from anti_i2v_lit.evaluation.store import Result
from anti_i2v_lit.evaluation.tables import summarise

RNG = np.random.default_rng(5)
PHOTOS, PURIFICATIONS = 8, ("none", "blur", "jpeg")
LEVELS = {"clean": 0.7, "weak": 0.5, "equal": 0.3, "strong": 0.1, "ours": 0.3}
TRUTH = {
    (protection, purification): level + RNG.uniform(-0.02, 0.02, PHOTOS)
    for protection, level in LEVELS.items()
    for purification in PURIFICATIONS
}
for purification in PURIFICATIONS:  # as often above as below
    TRUTH["equal", purification] = TRUTH["ours", purification] + 0.05 * np.resize([1, -1], PHOTOS)


def results(column: str = "dlib_mean_zero") -> list[Result]:
    return [
        Result(
            photo=f"p{number}",
            protection=protection,
            purification=purification,
            prompt="",
            seed=0,
            identity=f"{protection}{purification}{number}",
            figures={column: float(value)},
        )
        for (protection, purification), values in TRUTH.items()
        for number, value in enumerate(values)
    ]


def lines(text: str, name: str) -> list[str]:
    return [line for line in text.splitlines() if line.startswith(f"| {name} |")]


def test_words_follow_the_interval_and_the_direction_of_the_figure() -> None:
    rows = {"held": summarise(results(), "ours")}
    text = wins(rows, {"ours": ("other",)}, "ours")
    assert "## held (held out), purification blur" in text
    assert all("**better**" in line for line in lines(text, "weak")) and lines(text, "weak")
    assert all("**worse**" in line for line in lines(text, "strong"))
    assert not lines(text, "ours")
    assert text.count("better than 1 of 3, worse than strong.") == 3
    difference = (TRUTH["weak", "none"] - TRUTH["ours", "none"]).mean()
    assert f"{difference:+.3f}" in lines(text, "weak")[0]
    # The same numbers in a figure where higher protects better.
    turned = wins({"held": summarise(results("clip_lpips"), "ours")}, {"ours": ("held",)}, "ours")
    assert "## held (white box)" in turned
    assert all("**worse**" in line for line in lines(turned, "weak"))
    assert all("**better**" in line for line in lines(turned, "strong"))


def test_the_worst_case_is_taken_photo_by_photo() -> None:
    text = by_purification({"held": results()}, {"ours": ("held",)})
    heads = next(line for line in text.splitlines() if line.startswith("| |"))
    names = [cell.strip() for cell in heads.split("|")[2:-1]]
    assert names == ["clean", "weak", "equal", "strong", "ours*"]
    (worst,) = lines(text, WORST)
    for name, cell in zip(LEVELS, worst.split("|")[2:-1], strict=True):
        stacked = np.stack([TRUTH[name, q] for q in PURIFICATIONS])
        assert cell.strip().startswith(f"{stacked.max(axis=0).mean():.3f} [")
        assert stacked.max(axis=0).mean() > stacked.mean(axis=1).max()
    (blur,) = lines(text, "blur")
    assert f"{TRUTH['weak', 'blur'].mean():.3f} [" in blur
    turned = by_purification({"held": results("clip_lpips")}, {})
    stacked = np.stack([TRUTH["ours", q] for q in PURIFICATIONS])
    assert f"{stacked.min(axis=0).mean():.3f} [" in lines(turned, WORST)[0]


def test_figures_that_nobody_has_are_left_out() -> None:
    text = wins({"held": summarise(results("motion"), "ours")}, {}, "ours")
    assert "##" not in text
