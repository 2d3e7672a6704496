"""The verb from words to exit code, with random weights in the published layout."""

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet
import pytest
from PIL import Image

from anti_i2v_lit.cli.evaluate_verb import folders
from anti_i2v_lit.cli.main import main
from anti_i2v_lit.evaluation.outcome_file import read_outcome
from tests.architecture.test_layering import imports_of
from tests.evaluation.fakes import write_noisy, write_photos

ROOT = Path(__file__).parents[2]


@pytest.fixture
def words(tmp_path: Path, tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.delenv("ANTI_I2V_DATA", raising=False)
    monkeypatch.chdir(tmp_path)
    photos = write_photos(tmp_path / "photos", 2)
    write_noisy(photos, tmp_path / "ours", 10)
    return [
        *("evaluate", "--clean", "photos", "--cloaked", "ours", "--out", "out"),
        f"generators=[{{name: cogvideox, path: {tiny_checkpoint}, num_frames: 9}}]",
        *("gauntlet=[none,grey]", "seeds=[0]", "sampling_steps=1", "trainer.accelerator=cpu"),
        *("statistics.resamples=100", "metrics=[identity_dlib,motion_amount]"),
    ]


def test_the_verb_evaluates_and_continues(words, tmp_path, capsys) -> None:
    assert main(words) == 0
    said = capsys.readouterr()
    assert "ours, generator cogvideox (nobody says which models" in said.out
    assert "outcome.json" in said.out
    assert "absent: identity_dlib" in said.err and "face_recognition_models" in said.err
    outcome = read_outcome(tmp_path / "out")
    assert outcome.complete and outcome.files == (
        "results.parquet",
        "results.csv",
        "results.json",
        "report.html",
        "tensorboard",
    )
    assert all((tmp_path / "out" / name).exists() for name in outcome.files)
    table = pyarrow.parquet.read_table(tmp_path / "out" / "results.parquet").to_pylist()
    plain = json.loads((tmp_path / "out" / "results.json").read_text())
    assert table == plain and len(plain) == 2 * 2 * 3
    csv = (tmp_path / "out" / "results.csv").read_text().splitlines()
    assert len(csv) == 1 + len(plain) and "clip_lpips" in csv[0]
    assert {row["verdict"] for row in plain if row["protection"] == "ours"} <= {
        "weakened",
        "not protected",
    }  # no face network is here, so nothing may be called protected
    lines = sorted((tmp_path / "out" / "rows").glob("results*.jsonl"))
    before = [path.read_bytes() for path in lines]
    page = tmp_path / "out" / "report.html"
    assert page.read_text().count("<article") == 2
    assert main([*words, "--surrogates", "other", "report.photos=1"]) == 0
    assert "ours, held-out generator cogvideox" in capsys.readouterr().out
    assert page.read_text().count("<article") == 1
    assert [path.read_bytes() for path in lines] == before


def test_a_swapped_file_fails(words, tmp_path, capsys) -> None:
    photo = tmp_path / "photos" / "photo0.png"
    Image.open(photo).save(tmp_path / "ours" / "photo0.png", compress_level=1)
    assert main([*words, "gauntlet=none"]) == 2
    said = capsys.readouterr()
    assert "1 file(s) are not cloaks" in said.out and "swapped: ours photo0.png" in said.err


def test_usage_errors(words, tmp_path, capsys) -> None:
    (tmp_path / "empty").mkdir()
    assert main([*words, "--cloaked", "none=empty"]) == 1
    assert main([*words, "--cloaked", "clean=ours"]) == 1
    assert main([*words, "sedes=[1]"]) == 1
    assert main([*words[:5], "--out", "photos/out"]) == 1
    assert "choose a folder outside it" in capsys.readouterr().err


def test_folders_have_names(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a=b").mkdir()
    assert folders(["x/ours", "peer one=y/z"]) == {"ours": Path("x/ours"), "peer one": Path("y/z")}
    assert folders(["a=b"]) == {"a=b": Path("a=b")}
    with pytest.raises(ValueError, match="NAME=DIR"):
        folders(["x/ours", "y/ours"])


def test_the_judge_reaches_nothing_of_the_attack() -> None:
    seen: set[str] = set()
    pending = ["anti_i2v_lit.lit.evaluating", "anti_i2v_lit.cli.evaluate_verb"]
    while pending:
        name = pending.pop()
        path = ROOT.joinpath(*name.split("."))
        path = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
        if name in seen or not path.is_file():
            continue
        seen.add(name)
        pending += [n for n in imports_of(path) if n.startswith("anti_i2v_lit.")]
    assert "anti_i2v_lit.evaluation.workbench" in seen and len(seen) > 50
    attack = ("anti_i2v_lit.objectives", "anti_i2v_lit.cloaking", "anti_i2v_lit.settings")
    assert [name for name in sorted(seen) if name.startswith(attack)] == []


def test_a_model_that_cannot_be_loaded_is_a_usage_error(words, capsys) -> None:
    assert main([*words, "generators.0.num_frames=5"]) == 1
    assert "generator cogvideox: num_frames must be 1 plus" in capsys.readouterr().err


def test_numbers_of_the_store_are_those_of_the_table(words, tmp_path) -> None:
    assert main([*words, "gauntlet=none"]) == 0
    stored = [
        json.loads(line)
        for line in (tmp_path / "out" / "rows" / "results.jsonl").read_text().splitlines()
    ]
    cloaked = [r["figures"]["photo_psnr"] for r in stored if r["protection"] == "ours"]
    row = next(r for r in read_outcome(tmp_path / "out").summary if r.protection == "ours")
    assert row.estimates["photo_psnr"].mean == pytest.approx(np.mean(cloaked), rel=1e-9)
