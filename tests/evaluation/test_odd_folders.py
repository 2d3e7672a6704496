"""Whole evaluations of folders that are not as tidy as one would like."""

import json
import os
from pathlib import Path

import pyarrow.csv
import pyarrow.parquet
import pytest

from anti_i2v_lit.evaluation.concluding import gather
from anti_i2v_lit.evaluation.export import write_rows
from anti_i2v_lit.evaluation.outcome_file import read_outcome, write_outcome
from anti_i2v_lit.report.evaluation import write_report, write_tensorboard
from tests.evaluation.fakes import write_noisy, write_photos
from tests.evaluation.test_workbench import Run, whole


@pytest.fixture
def folders(tmp_path: Path) -> Path:
    write_noisy(write_photos(tmp_path / "photos", 3), tmp_path / "ours", 12)
    return tmp_path


def test_names_need_not_be_utf_8(folders, monkeypatch) -> None:
    name = os.fsdecode(b"M\xfcller.png")
    for folder in ("photos", "ours"):
        (folders / folder / "photo0.png").rename(folders / folder / name)
    outcome = whole(folders, monkeypatch).outcome()
    assert outcome.complete and name in {photo.key for photo in outcome.photos}
    out = folders / "out"
    run = Run(folders)
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
