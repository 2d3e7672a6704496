"""Whole evaluations of folders that are not as tidy as one would like."""

import dataclasses
import io
import json
import math
import os
from pathlib import Path

import cv2
import numpy as np
import pyarrow.csv
import pyarrow.parquet
import pytest
import torch
from PIL import Image
from skimage.data import astronaut

from anti_i2v_lit.evaluation.coarse import coarse_change_8bit, other_resizes
from anti_i2v_lit.evaluation.export import write_rows
from anti_i2v_lit.evaluation.facts import NOT_A_CLOAK
from anti_i2v_lit.evaluation.gathering import gather
from anti_i2v_lit.evaluation.inspection import LIKE_A_COPY_RMS_8BIT, WHOLE, framed, like_originals
from anti_i2v_lit.evaluation.outcome_file import read_outcome, write_outcome
from anti_i2v_lit.report.evaluation import write_report, write_tensorboard
from tests.evaluation.fakes import write_noisy, write_photos
from tests.evaluation.test_workbench import Run, whole

SMALL = {"generators": [{"name": "cogvideox", "label": "a"}], "gauntlet": ["none"], "seeds": [0]}


@pytest.fixture
def folders(tmp_path: Path) -> Path:
    write_noisy(write_photos(tmp_path / "photos", 3), tmp_path / "ours", 12)
    return tmp_path


def test_names_need_not_be_utf_8(folders, monkeypatch) -> None:
    name = os.fsdecode(b"M\xfcller.png")
    for folder in ("photos", "ours"):
        (folders / folder / "photo0.png").rename(folders / folder / name)
    outcome = whole(folders, monkeypatch, **SMALL).outcome()
    assert outcome.complete and name in {photo.key for photo in outcome.photos}
    out = folders / "out"
    run = Run(folders, **SMALL)
    assert not run.bench.missing(), "its rows are found again"
    write_outcome(outcome, out)
    assert repr(read_outcome(out)) == repr(outcome)
    found = gather(run.plan, run.bench.store, run.bench.records)
    write_rows(found.results, outcome, out)
    shown = {"M\\udcfcller.png", "photo1.png", "photo2.png"}
    tables = [
        pyarrow.parquet.read_table(out / "results.parquet").to_pylist(),
        pyarrow.csv.read_csv(out / "results.csv").to_pylist(),
        json.loads((out / "results.json").read_text(encoding="utf-8")),
    ]
    assert [{row["photo"] for row in table} for table in tables] == [shown] * 3
    assert "\\udcfcller.png" in write_report(outcome, out).read_text(encoding="utf-8")
    write_tensorboard(outcome, out)


@pytest.mark.parametrize(
    ("changes", "swapped", "faint"),
    [
        ({"a": 5.0, "b": 5.0, "c": 0.9}, "c", ""),
        ({"a": 5.0, "b": 5.0, "c": 1.2}, "", "c"),
        ({"a": 5.0, "b": 5.0, "c": 1.6}, "", ""),
        ({"a": 12.5, "b": 12.5, "c": 2.4}, "c", ""),
        ({"a": 40.0, "b": 40.0, "c": 3.1}, "", ""),
        ({"a": 0.5, "b": 0.5, "c": 0.5, "d": 8.0}, "", "abc"),
        ({"a": 0.4}, "", "a"),
        ({"a": math.nan, "b": 9.0}, "", ""),
        ({}, "", ""),
    ],
)
def test_what_changes_as_little_as_a_copy_is_told(
    changes: dict[str, float], swapped: str, faint: str
) -> None:
    found = like_originals("ours", changes)
    assert "".join(p.photo for p in found if p.kind == "swapped") == swapped
    assert "".join(p.photo for p in found if p.kind == "faint") == faint
    assert all(p.fails for p in found)


def saved(photo: Image.Image, **options: object) -> Image.Image:
    stream = io.BytesIO()
    photo.save(stream, **options)
    return Image.open(stream)


def copies() -> dict[str, Image.Image]:
    """A photo as other programs save and resize it: Pillow and OpenCV."""
    photo = Image.fromarray(astronaut())
    cubic = cv2.resize(astronaut(), None, fx=0.6, fy=0.6, interpolation=cv2.INTER_CUBIC)
    return {
        "jpeg": saved(photo, format="JPEG", quality=75),
        "webp": saved(photo, format="WEBP", quality=80),
        "half": photo.resize((256, 256), Image.Resampling.BILINEAR),
        "nearest": photo.resize((256, 256), Image.Resampling.NEAREST),
        "larger": photo.resize((768, 768), Image.Resampling.LANCZOS),
        "opencv": Image.fromarray(cubic),
    }


@pytest.mark.parametrize("name", copies())
def test_copies_change_less_than_weak_cloaks(name: str) -> None:
    photo = torch.from_numpy(astronaut()).permute(2, 0, 1) / 255
    copy = torch.from_numpy(np.array(copies()[name])).permute(2, 0, 1) / 255
    size = (copy.shape[-2], copy.shape[-1])
    references = [framed(photo, WHOLE, copy), *other_resizes(photo, size)]
    change = min(coarse_change_8bit(copy, reference) for reference in references)
    assert change < LIKE_A_COPY_RMS_8BIT
    waves = np.random.default_rng(0).standard_normal((3, 32, 32)).astype(np.float32)
    weak = np.stack([np.asarray(Image.fromarray(wave).resize(size[::-1])) for wave in waves])
    weak *= 4 / np.sqrt((weak**2).mean())  # four grey levels, as a budget of 4 leaves at most
    assert coarse_change_8bit(copy + torch.from_numpy(weak) / 255, copy) > LIKE_A_COPY_RMS_8BIT


def test_a_folder_of_originals_saved_again_is_told_and_judged(folders, monkeypatch) -> None:
    for path in (folders / "ours").iterdir():
        pixels = np.asarray(Image.open(folders / "photos" / path.name)).astype(int)
        again = np.where(pixels > 128, pixels - 1, pixels + 1).astype(np.uint8)
        Image.fromarray(again).save(path)
    outcome = whole(folders, monkeypatch, **SMALL).outcome()
    assert outcome.exit_code == 2 and outcome.complete
    assert [(p.kind, p.photo) for p in outcome.problems] == [
        ("faint", f"photo{number}.png") for number in range(3)
    ]
    assert outcome.headline[0].startswith("3 file(s) look like the originals")
    assert all(v.generator or v.verdict != NOT_A_CLOAK for p in outcome.photos for v in p.verdicts)
    assert {row.counts.photos for row in outcome.summary if row.protection == "ours"} == {3}


def test_an_original_that_was_saved_again_is_no_cloak(folders, monkeypatch) -> None:
    pixels = np.asarray(Image.open(folders / "photos" / "photo1.png")).astype(int)
    again = np.where(pixels > 128, pixels - 1, pixels + 1).astype(np.uint8)
    Image.fromarray(again).save(folders / "ours" / "photo1.png")
    outcome = whole(folders, monkeypatch, **SMALL).outcome()
    assert outcome.exit_code == 2 and outcome.complete
    (problem,) = outcome.problems
    assert (problem.kind, problem.photo) == ("swapped", "photo1.png")
    assert "1.00 grey levels" in problem.reason and "12.00 (median)" in problem.reason
    verdicts = {photo.key: photo.verdicts for photo in outcome.photos}
    assert [v.verdict for v in verdicts["photo1.png"]] == [NOT_A_CLOAK]
    assert NOT_A_CLOAK not in {v.verdict for v in verdicts["photo0.png"]}
    assert {case.counts.photos for case in outcome.worst} == {2}


def test_folders_may_move(folders, monkeypatch) -> None:
    whole(folders, monkeypatch, **SMALL)
    moved = folders / "elsewhere"
    moved.mkdir()
    for name in ("photos", "ours"):
        (folders / name).rename(moved / name)
    run = Run(moved, out=str(folders / "out"), **SMALL)
    assert not run.bench.missing()
    for photo in run.outcome().photos:
        assert photo.path == str(moved / "photos" / photo.key)
        assert [file.path for file in photo.files] == [str(moved / "ours" / photo.key)]


def test_paths_of_an_outcome_hold_in_every_folder(folders, monkeypatch) -> None:
    run = whole(folders, monkeypatch, **SMALL)
    monkeypatch.chdir(folders)
    (matched,) = run.plan.protections
    pairs = {
        key: dataclasses.replace(
            pair, file=dataclasses.replace(pair.file, path=pair.file.path.relative_to(folders))
        )
        for key, pair in matched.pairs.items()
    }
    plan = dataclasses.replace(run.plan, protections=(dataclasses.replace(matched, pairs=pairs),))
    for record in gather(plan, run.bench.store, run.bench.records).records.values():
        assert [file.path for file in record.files] == [str(folders / "ours" / record.key)]


def test_a_dead_link_among_the_photos_is_a_problem(folders, monkeypatch) -> None:
    (folders / "photos" / "gone.png").symlink_to(folders / "nowhere.png")
    outcome = whole(folders, monkeypatch, **SMALL).outcome()
    (problem,) = outcome.problems
    assert problem.reason.startswith("gone.png: ") and outcome.exit_code == 2


def test_networks_that_store_alike_are_named(folders, monkeypatch) -> None:
    nodes = [{"name": "social_network", "network": n, "label": n} for n in ("facebook", "x")]
    gauntlet = ["none", *nodes, {"name": "jpeg"}]
    outcome = whole(folders, monkeypatch, **{**SMALL, "gauntlet": gauntlet}).outcome()
    assert outcome.alike == (("facebook", "x"),)
    assert (
        "untouched and after every one of 3 purifications (2 of them distinct here)"
        in outcome.headline[0]
    )
    page = write_report(outcome, folders / "out").read_text()
    assert "count as one: facebook, x." in page


def test_clips_that_a_crash_left_empty_are_made_again(folders, monkeypatch) -> None:
    first = whole(folders, monkeypatch, **SMALL)
    clips = sorted((folders / "out" / "rows" / "clips").iterdir())
    clips[0].write_bytes(b"")
    clips[1].write_bytes(clips[1].read_bytes()[:100])
    broken = Run(folders, **SMALL)
    assert broken.bench.missing(), "what cannot be read is not there"
    assert {clip.path for clip in broken.outcome().clips} == {
        f"rows/clips/{path.name}" for path in clips[2:]
    }
    broken.work(monkeypatch)
    assert not Run(folders, **SMALL).bench.missing()
    assert len(broken.outcome().clips) == len(first.outcome().clips) == len(clips)
