"""Whole evaluations of folders that are not as tidy as one would like."""

import dataclasses
import json
import os
from pathlib import Path

import numpy as np
import pyarrow.csv
import pyarrow.parquet
import pytest
from PIL import Image

from anti_i2v_lit.evaluation.export import write_rows
from anti_i2v_lit.evaluation.facts import NOT_A_CLOAK
from anti_i2v_lit.evaluation.gathering import gather
from anti_i2v_lit.evaluation.inspection import unlike_the_rest
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


@pytest.mark.parametrize(("odd", "expected"), [(0.9, ["c"]), (1.2, []), (5.0, [])])
def test_a_residual_far_below_the_others_is_told(odd: float, expected: list[str]) -> None:
    found = unlike_the_rest("ours", {"a": 5.0, "b": 5.0, "c": odd})
    assert [problem.photo for problem in found] == expected
    assert unlike_the_rest("ours", {"a": 10.0, "b": 10.0, "c": 1.6}) == []
    assert unlike_the_rest("ours", {"a": 0.5}) == [], "all cloaks are as faint"


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
