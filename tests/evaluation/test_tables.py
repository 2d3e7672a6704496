import csv
import io
import math

import numpy as np
import pytest

from anti_i2v_lit.evaluation.store import Result, ResultStore
from anti_i2v_lit.evaluation.tables import csv_text, markdown, sort_rows, summarise

RNG = np.random.default_rng(0)
TRUTH = {
    protection: RNG.uniform(low, low + 0.2, (6, 2))  # photos, seeds
    for protection, low in (("clean", 0.7), ("rgb_pgd", 0.4), ("full", 0.1))
}


def results(column: str = "dlib_mean_zero") -> list[Result]:
    return [
        Result(
            photo=f"photo{photo}",
            protection=protection,
            purification="none",
            prompt="p",
            seed=seed,
            identity=f"{protection}{photo}{seed}",
            figures={column: float(values[photo, seed]), "motion": 1.0, "fdfr": math.nan},
        )
        for protection, values in TRUTH.items()
        for photo in range(6)
        for seed in range(2)
    ]


def test_means_and_differences_are_those_of_numpy() -> None:
    rows = {row.protection: row for row in summarise(results(), "rgb_pgd")}
    for protection, values in TRUTH.items():
        estimate = rows[protection].estimates["dlib_mean_zero"]
        assert estimate.mean == pytest.approx(values.mean())
        assert estimate.count == 6  # seeds are averaged first
        assert values.mean(axis=1).min() < estimate.low < estimate.high < values.mean(axis=1).max()
    difference = rows["full"].differences["dlib_mean_zero"]
    assert difference.mean == pytest.approx((TRUTH["full"] - TRUTH["rgb_pgd"]).mean())
    assert difference.high < 0 and not rows["rgb_pgd"].differences


def test_an_undefined_trial_does_not_spoil_its_photo() -> None:
    extra = Result(
        photo="photo0", protection="full", purification="none", prompt="p", seed=9,
        identity="x", figures={"dlib_mean_zero": math.nan},
    )  # fmt: skip
    with_nan = summarise([*results(), extra], "rgb_pgd")
    assert with_nan[2].estimates == summarise(results(), "rgb_pgd")[2].estimates


def test_differences_are_between_clips_of_the_same_seed() -> None:
    """Seed 1 is twice as high on both sides; each side lost the face in another clip."""
    column, rows = "dlib_mean", []
    lost = {("full", 0, 1), ("rgb_pgd", 1, 0), ("full", 2, 0), ("full", 2, 1)}
    truth = {
        name: np.array(
            [[low * (1 + seed) + 0.01 * photo for seed in range(2)] for photo in range(4)]
        )
        for name, low in (("full", 0.2), ("rgb_pgd", 0.3))
    }
    for name, values in truth.items():
        for photo, seed in np.ndindex(values.shape):
            if (name, photo, seed) in lost:
                values[photo, seed] = math.nan
            rows.append(
                Result(
                    photo=f"p{photo}", protection=name, purification="none", prompt="", seed=seed,
                    identity=f"{name}{photo}{seed}", figures={column: float(values[photo, seed])},
                )
            )  # fmt: skip
    found = next(r for r in summarise(rows, "rgb_pgd") if r.protection == "full")
    per_photo = np.nanmean((truth["full"] - truth["rgb_pgd"])[[0, 1, 3]], axis=1)
    assert per_photo == pytest.approx([-0.1, -0.2, -0.15])
    assert found.differences[column].count == 3
    assert found.differences[column].mean == pytest.approx(per_photo.mean())
    assert found.estimates[column].count == 3, "means keep every clip with a face"
    assert found.estimates[column].mean == pytest.approx(
        np.nanmean(truth["full"][[0, 1, 3]], axis=1).mean()
    )


def test_markdown_shows_absent_undefined_and_intervals() -> None:
    text = markdown(summarise(results(), "rgb_pgd"), "rgb_pgd")
    lines = [line for line in text.splitlines() if line.startswith("| full")]
    mean = TRUTH["full"].mean()
    assert f"{mean:.3f} [" in lines[0] and "absent" in lines[0]
    assert lines[0].rstrip(" |").endswith("-")  # fdfr, undefined everywhere
    widths = {line.count("|") for line in text.splitlines() if "dlib first" in line}
    assert widths == {lines[0].count("|")}
    assert "Paired difference to rgb_pgd" in text


def test_csv_reads_back() -> None:
    rows = list(csv.DictReader(io.StringIO(csv_text(summarise(results(), "rgb_pgd")))))
    chosen = [r for r in rows if (r["protection"], r["column"]) == ("full", "dlib_mean_zero")]
    assert len(chosen) == 1 and chosen[0]["photos"] == "6"
    assert float(chosen[0]["mean"]) == pytest.approx(TRUTH["full"].mean(), rel=1e-5)
    undefined = [r for r in rows if r["column"] == "fdfr"]
    assert all(r["mean"] == "" for r in undefined)


def test_rows_are_sorted_best_first() -> None:
    rows = summarise(results(), "rgb_pgd")
    names = [row.protection for row in sort_rows(rows, "dlib_mean_zero")]
    assert names == ["full", "rgb_pgd", "clean"]
    higher = summarise(results("clip_lpips"), "rgb_pgd")
    assert sort_rows(higher, "clip_lpips")[0].protection == "clean"
    with pytest.raises(ValueError, match="describes"):
        sort_rows(rows, "motion")
    with pytest.raises(ValueError, match="absent"):
        sort_rows(rows, "hse_mean")


def test_a_damaged_store_names_the_line(tmp_path) -> None:
    store = ResultStore(tmp_path)
    store.append(results()[:3])
    assert ResultStore(tmp_path).find("clean00").photo == "photo0"
    assert math.isnan(ResultStore(tmp_path).find("clean00").figures["fdfr"])
    with store.path.open("a") as file:
        file.write("[1, 2]\n")
    with pytest.raises(ValueError, match="line 4"):
        ResultStore(tmp_path)
