"""The same command again: what is done is left alone, what changed is done, nothing is lost."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path

import pytest

from anti_i2v_lit.archive.in_flight import InFlightStore
from anti_i2v_lit.archive.ledger import Ledger
from anti_i2v_lit.data.folder import SourceFile
from anti_i2v_lit.exit_codes import EXIT_INTERRUPTED
from anti_i2v_lit.lit import datamodule
from anti_i2v_lit.lit.cloak_module import CloakModule
from anti_i2v_lit.lit.datamodule import plan_groups
from anti_i2v_lit.lit.run import cloak
from anti_i2v_lit.settings import Settings, load_settings
from tests.conftest import fast_values
from tests.lit.test_cloak_run import digests


def quick(checkpoint: Path, *overrides: str) -> Settings:
    words = ["attack.steps=2", "attack.num_draws=1", *overrides]
    return load_settings(values=fast_values(checkpoint), overrides=words)


def one_photo(photo_folder: Path, tmp_path: Path, name: str = "astronaut.png") -> Path:
    folder = tmp_path / "one_photo"
    folder.mkdir(exist_ok=True)
    shutil.copy(photo_folder / name, folder / "photo.png")
    return folder


class Stopped(RuntimeError):
    """A run that ends here, as if killed."""


def test_refused_and_failed_photos_are_not_worked_on_again(
    photo_folder: Path, tmp_path: Path, tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, out = one_photo(photo_folder, tmp_path), tmp_path / "out"
    (folder / "empty.jpg").write_bytes(b"")
    settings = quick(tiny_checkpoint, "gate.min_psnr_db=99", "gate.max_attempts=1")
    assert cloak(settings, photos=[str(folder)], out=out) == 2
    before = (out / "manifest.jsonl").read_bytes()
    assert len(before.splitlines()) == 2
    entered: list[object] = []
    monkeypatch.setattr(CloakModule, "_new_job", lambda self, *_: entered.append(self))
    assert cloak(settings, photos=[str(folder)], out=out) == 2
    assert (out / "manifest.jsonl").read_bytes() == before
    assert entered == []


def test_photos_that_have_a_row_already_come_last() -> None:
    keys = ["a", "b", "c", "d"]
    assert plan_groups(keys, {"b"}, [], 1, {"a", "b"}) == [("c",), ("d",), ("a",)]
    # With unrecorded company a refused photo keeps its place, so that the cuts stay.
    assert plan_groups(keys, {"b"}, [], 2, {"a", "b"}) == [("c", "d"), ("a", "b")]


def test_a_replaced_original_is_cloaked_again(
    photo_folder: Path, tmp_path: Path, tiny_checkpoint: Path
) -> None:
    folder, out = one_photo(photo_folder, tmp_path), tmp_path / "out"
    settings = quick(tiny_checkpoint)
    assert cloak(settings, photos=[str(folder)], out=out) == 0
    first = digests(out)
    later = time.time() + 86_400  # however long the run takes
    os.utime(folder / "photo.png", (later, later))
    assert cloak(settings, photos=[str(folder)], out=out) == 0
    assert digests(out) == first, "only touched, not changed"
    assert len((out / "manifest.jsonl").read_text().splitlines()) == 1
    shutil.copy(photo_folder / "sub" / "coffee.png", folder / "photo.png")
    os.utime(folder / "photo.png", (later, later))
    assert cloak(settings, photos=[str(folder)], out=out) == 0
    fresh = tmp_path / "fresh"
    cloak(settings, photos=[str(folder)], out=fresh)
    assert digests(out) == digests(fresh) != first


def test_an_original_replaced_while_it_is_in_work_is_cloaked_by_the_next_run(
    photo_folder: Path, tmp_path: Path, tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, out = one_photo(photo_folder, tmp_path), tmp_path / "out"
    settings, original = quick(tiny_checkpoint), CloakModule.training_step

    def replaced(self: CloakModule, group: object, batch_idx: int) -> object:
        if batch_idx == 0:
            shutil.copy(photo_folder / "sub" / "coffee.png", folder / "photo.png")
        return original(self, group, batch_idx)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(CloakModule, "training_step", replaced)
        assert cloak(settings, photos=[str(folder)], out=out) == 0
    fresh = tmp_path / "fresh"
    cloak(settings, photos=[str(folder)], out=fresh)
    assert digests(out) != digests(fresh), "the cloak of what was read"
    assert cloak(settings, photos=[str(folder)], out=out) == 0
    assert digests(out) == digests(fresh)


def test_an_original_replaced_in_the_middle_starts_again(
    photo_folder: Path, tmp_path: Path, fast_settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, out = one_photo(photo_folder, tmp_path), tmp_path / "out"
    original = CloakModule.training_step

    def dies(self: CloakModule, group: object, batch_idx: int) -> object:
        if batch_idx == 3:
            raise Stopped
        return original(self, group, batch_idx)  # type: ignore[arg-type]

    with monkeypatch.context() as patch, pytest.raises(Stopped):
        patch.setattr(CloakModule, "training_step", dies)
        cloak(fast_settings, photos=[str(folder)], out=out)
    assert InFlightStore(out).groups() == [("photo.png",)]
    shutil.copy(photo_folder / "sub" / "coffee.png", folder / "photo.png")
    assert cloak(fast_settings, photos=[str(folder)], out=out) == 0
    fresh = tmp_path / "fresh"
    cloak(fast_settings, photos=[str(folder)], out=fresh)
    assert digests(out) == digests(fresh)


def test_another_photo_of_the_same_name_is_not_taken_for_done(
    photo_folder: Path, tmp_path: Path, tiny_checkpoint: Path
) -> None:
    folder, out = one_photo(photo_folder, tmp_path), tmp_path / "out"
    settings = quick(tiny_checkpoint)
    assert cloak(settings, photos=[str(folder)], out=out) == 0
    other = tmp_path / "other"
    other.mkdir()
    shutil.copy(folder / "photo.png", other / "photo.png")
    assert cloak(settings, photos=[str(other)], out=out) == 0, "a copy is the same photo"
    shutil.copy(photo_folder / "sub" / "coffee.png", other / "photo.png")
    before = digests(out)
    with pytest.raises(ValueError, match="give another --out"):
        cloak(settings, photos=[str(other)], out=out)
    assert digests(out) == before


def test_a_moved_archive_is_recognised_by_its_bytes_and_not_decoded(
    photo_folder: Path, tmp_path: Path, tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, out = one_photo(photo_folder, tmp_path), tmp_path / "out"
    settings = quick(tiny_checkpoint)
    assert cloak(settings, photos=[str(folder)], out=out) == 0
    before = (out / "manifest.jsonl").read_bytes()
    moved = folder.rename(tmp_path / "moved")
    decoded: list[SourceFile] = []
    monkeypatch.setattr(datamodule, "read_photo", lambda source, _: decoded.append(source))
    assert cloak(settings, photos=[str(moved)], out=out) == 0
    assert decoded == [] and (out / "manifest.jsonl").read_bytes() == before


def test_a_group_keeps_its_progress_when_one_of_its_photos_is_gone() -> None:
    assert plan_groups(["a", "c", "d"], set(), [("a", "b", "c")], 3) == [("a", "b", "c"), ("d",)]


def test_progress_of_finished_photos_is_cleared_away(
    photo_folder: Path, tmp_path: Path, tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, out = one_photo(photo_folder, tmp_path), tmp_path / "out"
    settings = quick(tiny_checkpoint)
    # Killed between the row and the clean-up.
    with monkeypatch.context() as patch, pytest.raises(Stopped):
        patch.setattr(InFlightStore, "discard", _stop)
        cloak(settings, photos=[str(folder)], out=out)
    assert InFlightStore(out).groups() == [("photo.png",)]
    assert cloak(settings, photos=[str(folder)], out=out) == 0
    assert InFlightStore(out).groups() == []


def _stop(*_: object) -> None:
    raise Stopped


def test_a_trainer_that_stops_in_the_middle_loses_no_step(
    photo_folder: Path, tmp_path: Path, tiny_checkpoint: Path
) -> None:
    folder, out = one_photo(photo_folder, tmp_path), tmp_path / "out"
    values = {**fast_values(tiny_checkpoint), "trainer": {"accelerator": "cpu", "max_steps": 3}}
    settings = load_settings(values=values, overrides=["attack.checkpoint_every=100"])
    assert cloak(settings, photos=[str(folder)], out=out) == EXIT_INTERRUPTED
    saved = InFlightStore(out).load(("photo.png",))
    assert saved is not None and saved.facts["jobs"]["photo.png"]["step"] == 3


def test_an_interrupt_before_the_first_step_is_resumable(
    photo_folder: Path, tmp_path: Path, tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(self: CloakModule) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(CloakModule, "configure_model", interrupted)
    settings = quick(tiny_checkpoint)
    code = cloak(settings, photos=[str(photo_folder)], out=tmp_path / "out")
    assert code == EXIT_INTERRUPTED


def test_a_decoder_that_breaks_costs_one_photo(
    photo_folder: Path, tmp_path: Path, tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = datamodule.read_photo

    def reads(source: SourceFile, config: object) -> object:
        if source.key == "cat.jpg":
            raise IndexError("list index out of range")
        return original(source, config)  # type: ignore[arg-type]

    monkeypatch.setattr(datamodule, "read_photo", reads)
    out = tmp_path / "out"
    assert cloak(quick(tiny_checkpoint), photos=[str(photo_folder)], out=out) == 2
    row = Ledger(out).rows()["cat.jpg"]
    assert row.status == "failed" and "IndexError" in row.reason
    assert len(digests(out)) == 3


def test_a_name_taken_by_a_folder_costs_one_photo(
    photo_folder: Path, tmp_path: Path, tiny_checkpoint: Path
) -> None:
    out = tmp_path / "out"
    (out / "cat.jpg").mkdir(parents=True)
    assert cloak(quick(tiny_checkpoint), photos=[str(photo_folder)], out=out) == 2
    row = Ledger(out).rows()["cat.jpg"]
    assert row.status == "failed" and "cannot write cat.jpg" in row.reason
    assert len(digests(out)) == 3


def test_wrong_settings_do_not_spoil_a_folder_in_which_nothing_was_done(
    photo_folder: Path, tmp_path: Path, tiny_checkpoint: Path
) -> None:
    out = tmp_path / "out"
    wrong = quick(tiny_checkpoint, "surrogates.0.path=/no/such/model")
    with pytest.raises(ValueError, match="local model folder"):
        cloak(wrong, photos=[str(photo_folder)], out=out)
    assert cloak(quick(tiny_checkpoint), photos=[str(photo_folder)], out=out) == 0
