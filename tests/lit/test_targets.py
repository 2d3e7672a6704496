"""No file that the folder's runs did not make is replaced, and their own ones still are."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
import torch

from anti_i2v_lit.archive.in_flight import InFlightStore, Progress
from anti_i2v_lit.archive.ledger import Ledger, Row
from anti_i2v_lit.checks import PhotoFailure
from anti_i2v_lit.data.folder import scan
from anti_i2v_lit.lit.cloak_module import CloakModule
from anti_i2v_lit.lit.run import cloak
from anti_i2v_lit.lit.targets import Targets, check_shards
from tests.data.shards.making import photo_bytes, write
from tests.lit.test_again import Stopped, one_photo, quick

STEPS = 5


def progress(**steps: int) -> Progress:
    jobs = {key: {"step": step} for key, step in steps.items()}
    return Progress(tensors={"d": torch.zeros(1)}, facts={"step": 0, "jobs": jobs})


def test_files_without_a_line_or_all_steps_belong_to_somebody_else(tmp_path: Path) -> None:
    out, ledger, store = tmp_path / "out", Ledger(tmp_path / "out"), InFlightStore(tmp_path / "out")
    names = {key: f"{key}.png" for key in ("foreign", "free", "begun", "ended", "listed", "again")}
    out.mkdir()
    for key in names.keys() - {"free"}:
        (out / names[key]).write_bytes(b"x")
    ledger.append(Row(key="listed", status="cloaked", output="listed.png"))
    ledger.append(Row(key="again", status="cloaked", output="again.png", source_sha256="1"))
    ledger.append(Row(key="again", status="failed", reason="damaged", source_sha256="2"))
    store.save(("begun", "ended"), progress(begun=STEPS - 1, ended=STEPS))
    targets = Targets(out, (), names)
    assert targets.blocked(ledger, store, STEPS).keys() == {"foreign", "begun"}
    for key in ("free", "ended", "listed", "again"):
        targets.check(key, out / names[key])
    (out / "free.png").write_bytes(b"came meanwhile")
    for key in ("foreign", "free"):
        with pytest.raises(PhotoFailure, match="did not make is there"):
            targets.check(key, out / names[key])


def test_an_original_is_never_a_target(tmp_path: Path) -> None:
    photos, out = tmp_path / "photos", tmp_path / "out"
    for folder in (photos, out):
        folder.mkdir()
    (photos / "a.png").write_bytes(b"x")
    sources = scan([str(photos)], out).sources
    (out / "sub").symlink_to(photos)  # laid while the run works
    targets = Targets(out, sources, {"sub/a.png": "sub/a.png"})
    with pytest.raises(PhotoFailure, match="is an original"):
        targets.check("sub/a.png", out / "sub" / "a.png")


def test_a_tar_of_somebody_else_is_not_replaced(tmp_path: Path) -> None:
    out, ledger = tmp_path / "out", Ledger(tmp_path / "out")
    out.mkdir()
    write(tmp_path / "p.tar", [("a.png", photo_bytes(0))])
    found = scan([str(tmp_path / "p.tar")], out)
    check_shards(out, found.shards, ledger)
    (out / "p.tar").write_bytes(b"x")
    with pytest.raises(ValueError, match="no run of this folder made it"):
        check_shards(out, found.shards, ledger)
    ledger.append(Row(key="p/a.png", status="failed", reason="damaged"))
    check_shards(out, found.shards, ledger)


def test_a_file_of_somebody_else_costs_its_photo_before_any_step(
    photo_folder: Path, tmp_path: Path, tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, out = one_photo(photo_folder, tmp_path), tmp_path / "out"
    out.mkdir()
    shutil.copy(photo_folder / "cat.jpg", out / "photo.png")
    foreign = (out / "photo.png").read_bytes()
    settings = quick(tiny_checkpoint)
    with monkeypatch.context() as patch:
        patch.setattr(CloakModule, "_new_job", lambda *_: pytest.fail("it was worked on"))
        assert cloak(settings, photos=[str(folder)], out=out) == 2
    row = Ledger(out).rows()["photo.png"]
    assert row.status == "failed" and "did not make is there" in row.reason
    assert (out / "photo.png").read_bytes() == foreign
    os.unlink(out / "photo.png")
    # Killed between the file and its row: the next run takes the file for its own.
    with monkeypatch.context() as patch, pytest.raises(Stopped):
        patch.setattr(Ledger, "add", _stop_at_cloaks)
        cloak(settings, photos=[str(folder)], out=out)
    assert (out / "photo.png").read_bytes() != foreign
    assert cloak(settings, photos=[str(folder)], out=out) == 0


def _stop_at_cloaks(self: Ledger, row: Row) -> None:
    assert row.status == "cloaked"
    raise Stopped
