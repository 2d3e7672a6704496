"""Lists of pairs for several protections."""

import warnings
from pathlib import Path

import pytest
from PIL import Image

from anti_i2v_lit.archive.ledger import MANIFEST
from anti_i2v_lit.cli.evaluate_verb import pair_files
from anti_i2v_lit.evaluation.plan import make_plan, pairs_of
from anti_i2v_lit.evaluation.settings import load_evaluation_settings
from tests.evaluation.fakes import write_photos


def test_every_foreign_folder_has_a_list_of_its_own(tmp_path: Path) -> None:
    write_photos(tmp_path / "photos", 2)
    for name in ("x", "y"):
        (tmp_path / name).mkdir()
        lines = []
        for number in range(2):
            Image.new("RGB", (48, 48)).save(tmp_path / name / f"{name}{number}z.png")
            lines.append(f"photo{number}.png,{name}{1 - number}z.png")
        (tmp_path / f"{name}.csv").write_text("\n".join(lines))
    words = [f"{name}={tmp_path / name}.csv" for name in ("x", "y")]
    plan = make_plan(
        load_evaluation_settings(),
        clean=tmp_path / "photos",
        cloaked={"x": tmp_path / "x", "y": tmp_path / "y"},
        out=tmp_path / "out",
        pairs=pair_files(words),
    )
    found = {m.name: [p.file.key for p in m.pairs.values()] for m in plan.protections}
    assert found == {"x": ["x1z.png", "x0z.png"], "y": ["y1z.png", "y0z.png"]}


def test_a_list_without_a_name_needs_one_foreign_folder(tmp_path: Path) -> None:
    cloaked = {name: tmp_path / name for name in ("ours", "peer", "other")}
    for folder in cloaked.values():
        folder.mkdir()
    (cloaked["ours"] / MANIFEST).write_text("")
    listed = tmp_path / "a.csv"
    with pytest.raises(ValueError, match="peer or other.*NAME="):
        pairs_of(cloaked, {"": listed})
    assert pairs_of(cloaked, {"": listed, "other": tmp_path}) == {"peer": listed, "other": tmp_path}
    del cloaked["other"]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert pairs_of(cloaked, {"": listed}) == {"peer": listed}
    with pytest.raises(ValueError, match="Did you mean 'peer'"):
        pairs_of(cloaked, {"pear": listed})


def test_a_list_for_a_folder_with_a_manifest_is_ignored_aloud(tmp_path: Path) -> None:
    (tmp_path / MANIFEST).write_text("")
    with pytest.warns(UserWarning, match="ignored for ours"):
        pairs_of({"ours": tmp_path}, {"": tmp_path / "a.csv"})


def test_two_lists_for_one_protection_are_refused() -> None:
    with pytest.raises(ValueError, match="one per protection"):
        pair_files(["x=a.csv", "x=b.csv"])
