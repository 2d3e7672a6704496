import base64
import dataclasses
import io
import math

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load_file, save_file
from skimage import color
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from anti_i2v_lit.evaluation.settings import ReportSettings
from anti_i2v_lit.evaluation.statistics import Estimate
from anti_i2v_lit.report.evaluation import write_tensorboard
from anti_i2v_lit.report.evaluation.chart import svg
from anti_i2v_lit.report.evaluation.clips import film, grouped
from anti_i2v_lit.report.evaluation.curves import chart_groups
from anti_i2v_lit.report.evaluation.heat import LEVELS, heat_style, level, ramp, worst_cases
from anti_i2v_lit.report.evaluation.photos import chosen
from anti_i2v_lit.report.evaluation.picture import clips_picture
from anti_i2v_lit.report.evaluation.tensorboard import run_name
from anti_i2v_lit.report.evaluation.text import interval, moment, number, side
from anti_i2v_lit.report.pictures import photo_pictures

from .outcomes import make, picture
from .pages import Page


@pytest.fixture(scope="module")
def outcome(tmp_path_factory):
    folder = tmp_path_factory.mktemp("parts")
    return make(folder, photos=7, frames=6), folder


def contrast(one, other):
    """WCAG contrast from scikit-image's XYZ (Y is relative luminance)."""
    shades = sorted(color.rgb2xyz(np.array([[c]]) / 255.0)[0, 0, 1] for c in (one, other))
    return (shades[1] + 0.05) / (shades[0] + 0.05)


def test_heat_colours_are_ordered_by_lightness_and_readable():
    colours = [ramp(step / LEVELS) for step in range(LEVELS + 1)]
    lightness = [color.rgb2lab(np.array([[c]]) / 255.0)[0, 0, 0] for c in colours]
    assert all(a - b > 1.5 for a, b in zip(lightness, lightness[1:], strict=False))
    style = heat_style().splitlines()
    for step, (line, colour) in enumerate(zip(style, colours, strict=True)):
        assert line.startswith(f".h{step}{{background:#{bytes(colour).hex()}")
        ink = (0, 0, 0) if "color:#000" in line.split(";")[1] else (255, 255, 255)
        assert contrast(colour, ink) >= 4.5, line


def test_levels_are_rounded_shares():
    assert [level(s) for s in (0.0, 0.02, 0.5, 1.0, math.nan)] == ["h0", "h0", "h10", "h20", "hn"]


def test_tiers_of_equal_purifications_are_one_row(outcome):
    made, _ = outcome
    names = [tiers for case, tiers in worst_cases(made) if case.protection == "ours"]
    assert names == ["all 4 (gauntlet quick)", "gauntlet written (3)"] * 2


@pytest.mark.parametrize(
    ("low", "high", "better", "expected"),
    [
        (0.1, 0.2, "higher", "better"), (0.1, 0.2, "lower", "worse"),
        (-0.2, -0.1, "lower", "better"), (-0.2, -0.1, "higher", "worse"),
        (-0.1, 0.1, "lower", ""), (0.1, 0.2, "none", ""), (math.nan, math.nan, "lower", ""),
    ],
)  # fmt: skip
def test_a_difference_is_clear_only_where_its_interval_excludes_zero(low, high, better, expected):
    assert side(Estimate(mean=0.0, low=low, high=high, count=3), better) == expected


def test_numbers_in_words():
    assert [number(v, 2) for v in (-0.5, math.nan, math.inf, -math.inf)] == [
        "−0.50",
        "–",
        "∞",
        "−∞",
    ]
    lone = Estimate(mean=1.0, low=math.nan, high=math.nan, count=1)
    assert interval(lone) == "one photo"
    assert interval(dataclasses.replace(lone, count=0)) == "–"
    assert moment("2026-11-22T05:04:03+00:00") == "2026-11-22 05:04 UTC"
    assert moment("yesterday") == "yesterday"


def test_worst_middle_and_best_photos_are_chosen(outcome):
    made, _ = outcome
    order = {"not protected": 0, "weakened": 1, "protected": 2}
    ranks = [
        (order[photo.verdicts[0].verdict], -photo.verdicts[0].value, photo.key)
        for photo in made.photos
    ]
    expected = [key for _, _, key in sorted(ranks)]
    found = chosen(made, 3)
    assert [place for _, place in found] == ["worst", "middle", "best"]
    assert [photo.key for photo, _ in found] == [expected[0], expected[3], expected[6]]
    assert [photo.key for photo, _ in chosen(made, 7)] == expected
    shown = [photo.key for photo, _ in chosen(made, 6)]
    assert len(shown) == len(set(shown)) == 6
    assert chosen(made, 0) == []


def test_a_photo_whose_file_is_no_cloak_is_always_shown(outcome):
    made, _ = outcome
    by_rank = [photo.key for photo, _ in chosen(made, 7)]
    odd = by_rank[2]  # between the worst and the middle one, and without clips

    def failing(photo, protection):
        verdicts = [
            dataclasses.replace(v, verdict="not a cloak") if v.protection == protection else v
            for v in photo.verdicts
        ]
        return dataclasses.replace(photo, verdicts=tuple(verdicts), files=())

    for name in ("ours", "RGB-PGD"):
        photos = [failing(p, name) if p.key == odd else p for p in made.photos]
        clips = [clip for clip in made.clips if clip.photo != odd]
        found = dataclasses.replace(made, photos=tuple(photos), clips=tuple(clips))
        for limit in range(1, 8):
            shown = [photo.key for photo, _ in chosen(found, limit)]
            assert odd in shown and len(set(shown)) == len(shown) == limit
    failed = [failing(p, "ours") for p in made.photos]
    assert len(chosen(dataclasses.replace(made, photos=tuple(failed)), 3)) == 3


def test_a_strip_holds_the_frames_side_by_side(tmp_path):
    frames = np.zeros((5, 3, 40, 60), np.uint8)
    for index in range(5):
        frames[index, index % 3] = 40 + 40 * index
    save_file({"frames": frames}, tmp_path / "clip.safetensors")
    made = film(
        tmp_path / "clip.safetensors", "ours", "", ReportSettings(frames=3, frame_side_px=30)
    )
    assert (made.frames, made.length, made.size) == ((0, 2, 4), 5, (30, 20))
    stored = io.BytesIO(base64.b64decode(made.uri.partition(",")[2]))
    pixels = np.asarray(Image.open(stored).convert("RGB")).astype(float)
    assert pixels.shape == (20, 90, 3)
    for place, index in enumerate(made.frames):
        seen = pixels[5:15, place * 30 + 8 : place * 30 + 22].mean((0, 1))
        assert np.abs(seen - frames[index, :, 0, 0]).max() < 6


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({"other": np.zeros(3, np.uint8)}, "has no frames"),
        ({"frames": np.zeros((2, 4, 8, 8), np.uint8)}, "expected"),
        ({"frames": np.zeros((2, 3, 8, 8), np.float32)}, "expected"),
        ({"frames": np.zeros((0, 3, 8, 8), np.uint8)}, "expected"),
    ],
)
def test_other_tensors_are_a_text(tmp_path, tensors, message):
    save_file(tensors, tmp_path / "clip.safetensors")
    made = film(tmp_path / "clip.safetensors", "ours", "", ReportSettings())
    assert made.uri == "" and message in made.problem


def test_a_picture_for_documents_holds_the_frames_of_every_clip(outcome):
    made, folder = outcome
    shown = clips_picture(made, folder, "album/photo_01.jpg", frames=3, side_px=64)
    groups = grouped(made, "album/photo_01.jpg")
    assert [c.generator for some in groups for c in some] == ["unet"] * 3 + ["mmdit"] * 3
    pixels, top = np.asarray(shown).astype(float), 14
    for clips in groups:
        top += 30 + 6
        for kept in clips:
            frames = load_file(folder / kept.path)["frames"]
            for place, index in enumerate((0, 2, 5)):  # of six; the middle one is rounded to even
                small = np.asarray(
                    Image.fromarray(frames[index].transpose(1, 2, 0)).resize((64, 64), 1)
                )
                left = 14 + 110 + 64 * place
                assert np.abs(pixels[top : top + 64, left : left + 64] - small).max() <= 1
            top += 64 + 6
    assert shown.size == (14 + 110 + 3 * 64 + 14, top - 6 + 14)
    with pytest.raises(ValueError, match="photos with clips: album/photo_00.jpg, "):
        clips_picture(made, folder, "nobody.jpg")


def test_a_chart_draws_its_points_where_they_belong(outcome):
    made, _ = outcome
    groups, total = chart_groups(made, 100)
    assert total == sum(len(group.charts) for group in groups) == 2 * 2 * 2 * 2
    chart = groups[0].charts[0]
    assert (chart.generator, chart.protection, chart.figure) == ("unet", "ours", "dlib")
    assert [kind for kind, _ in chart.lines] == ["noise", "clean", "cloak"]
    assert chart.threshold == 0.3125
    page = Page(str(svg(chart)))
    paths = {a["class"]: a["d"] for a in page.all("path")}
    ticks = [a for a in page.all("text") if a.get("class") != "x"]
    scale = np.polyfit([float(t.replace("−", "-")) for t in page.texts[: len(ticks)]],
                       [float(a["y"]) for a in ticks], 1)  # fmt: skip
    points = [tuple(map(float, p.split())) for p in paths["line cloak"][1:].split("L")]
    assert len(points) == len(chart.cloak.points)
    for (_, y), point in zip(points, chart.cloak.points, strict=True):
        assert abs(np.polyval(scale, point.mean) - y) < 0.2
    band = [tuple(map(float, p.split())) for p in paths["band cloak"][1:-1].split("L")]
    assert abs(np.polyval(scale, chart.cloak.points[0].high) - band[0][1]) < 0.2
    assert abs(np.polyval(scale, chart.cloak.points[0].low) - band[-1][1]) < 0.2
    assert paths["link"].startswith(f"M{(points[2][0] + points[3][0]) / 2:.1f} ")


def test_undefined_frames_interrupt_a_line(outcome):
    made, _ = outcome
    chart = chart_groups(made, 1)[0][0].charts[0]
    gone = Estimate(mean=math.nan, low=math.nan, high=math.nan, count=0)
    points = (*chart.cloak.points[:2], gone, *chart.cloak.points[3:])
    broken = dataclasses.replace(chart, cloak=dataclasses.replace(chart.cloak, points=points))
    page = Page(str(svg(broken)))
    assert len(page.all("path", **{"class": "line cloak"})) == 2
    lost = dataclasses.replace(chart.cloak, points=(gone,) * 6)
    empty = svg(dataclasses.replace(chart, cloak=lost, clean=None, noise=None))
    assert "cloak: undefined" in empty and "nan" not in empty


def test_a_part_of_another_size_is_compared_with_that_part(tmp_path):
    photo = picture(0, 256)
    part = Image.fromarray(photo[64:192, 0:128]).resize((64, 64), Image.Resampling.LANCZOS)
    Image.fromarray(photo).save(tmp_path / "p.png")
    Image.fromarray(np.asarray(part)).save(tmp_path / "same.png")
    frame = (0.0, 0.25, 0.5, 0.75)
    paths = tmp_path / "p.png", tmp_path / "same.png"
    found = photo_pictures(*paths, with_crop=False, frame=frame).whole
    assert not found.problem
    stored = io.BytesIO(base64.b64decode(found.residual.partition(",")[2]))
    assert np.abs(np.asarray(Image.open(stored)).astype(int) - 128).max() <= 2
    assert "differ in size" in photo_pictures(*paths, with_crop=False).whole.problem


def test_limits_are_checked():
    with pytest.raises(ValueError, match="report.photos"):
        ReportSettings(photos=-1)
    with pytest.raises(ValueError, match="report.frames"):
        ReportSettings(frames=1)


def test_tensorboard_holds_every_number(outcome):
    made, folder = outcome
    root = write_tensorboard(made, folder)
    assert root == folder / "tensorboard"
    assert write_tensorboard(made, folder) == root, "a second time, in place of the first"
    assert all(len(list(run.iterdir())) == 1 for run in root.iterdir())
    runs = {}
    for name in [
        "clean",
        *(p.name for p in made.protections),
        *(p.noise for p in made.protections),
    ]:
        runs[name] = EventAccumulator(str(root / run_name(name)))
        runs[name].Reload()
    for row in made.summary:
        for figure, estimate in row.estimates.items():
            tag = f"mean/{row.generator}/{row.purification}/{figure}"
            (event,) = runs[row.protection].Scalars(tag)
            assert event.value == pytest.approx(estimate.mean, rel=1e-6)
    for curve in made.curves:
        tag = f"frames/{curve.generator}/{curve.purification}/{curve.figure}"
        events = runs[curve.protection].Scalars(tag)
        assert [event.step for event in events] == list(range(1, 7))
        assert [e.value for e in events] == pytest.approx([p.mean for p in curve.points])
    for case in (w for w in made.worst if w.tier == "all"):
        (event,) = runs[case.protection].Scalars(f"worst/{case.generator}/all/protected")
        assert event.value == pytest.approx(case.share_protected.mean)
    tags = runs["ours"].Tags()["images"]
    assert "clip/unet/none/album_photo_00.jpg/a person is talking" in tags and len(tags) == 14


def test_run_names_are_safe_and_different():
    names = ["ours", "a/b", "a b", "../up", "", "x" * 300]
    made = [run_name(name) for name in names]
    assert made[0] == "ours" and len(set(made)) == len(names)
    assert all("/" not in name and ".." not in name and name and len(name) < 80 for name in made)
