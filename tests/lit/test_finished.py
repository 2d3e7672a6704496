"""What exit code and plan say when originals changed after they were cloaked."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from anti_i2v_lit.archive.ledger import Ledger, Row
from anti_i2v_lit.exit_codes import EXIT_DONE, EXIT_INTERRUPTED
from anti_i2v_lit.lit.datamodule import PhotoDataModule
from anti_i2v_lit.lit.planning import plan
from anti_i2v_lit.lit.run import exit_code
from anti_i2v_lit.settings import Settings, load_settings
from tests.data.shards.making import photo_bytes


def cloaked(folder: Path, out: Path) -> Path:
    """A photo, and a folder in which it is recorded as cloaked."""
    for place in (folder, out):
        place.mkdir(parents=True)
        (place / "a.png").write_bytes(photo_bytes(0))
    original = folder / "a.png"
    row = Row(
        key="a.png", status="cloaked", output="a.png", source=str(original),
        source_sha256=hashlib.sha256(original.read_bytes()).hexdigest(),
        source_mtime_ns=original.stat().st_mtime_ns,
    )  # fmt: skip
    Ledger(out).append(row)
    return original


def touch(path: Path) -> None:
    state = path.stat()
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns + 10**9))


def test_a_run_that_is_stopped_before_a_changed_original_is_interrupted(tmp_path: Path) -> None:
    original, out = cloaked(tmp_path / "photos", tmp_path / "out"), tmp_path / "out"
    original.write_bytes(photo_bytes(1))
    touch(original)
    data = PhotoDataModule(Settings(), photos=[str(original.parent)], out=out)
    data.setup("fit")
    assert data.stream is not None and data.stream.left == 1
    data.stream.stop_requested = True
    assert exit_code(out, data) == EXIT_INTERRUPTED
    data.stream.stop_requested = False  # the Trainer came to an end of its own
    assert exit_code(out, data) == EXIT_INTERRUPTED


def test_groups_that_were_gone_through_are_not_left(tmp_path: Path) -> None:
    original, out = cloaked(tmp_path / "photos", tmp_path / "out"), tmp_path / "out"
    touch(original)
    data = PhotoDataModule(Settings(), photos=[str(original.parent)], out=out)
    data.setup("fit")
    assert data.stream is not None
    for group in data.stream:
        assert not group.loaded, "only touched, not changed"
        group.done = True
    assert data.stream.left == 0 and exit_code(out, data) == EXIT_DONE
    data.stream.stop_requested = True  # after the last group: nothing is left to be interrupted
    assert exit_code(out, data) == EXIT_DONE


def test_a_plan_counts_changed_originals_as_work(tmp_path: Path) -> None:
    original, out = cloaked(tmp_path / "photos", tmp_path / "out"), tmp_path / "out"

    def done() -> tuple[int, int]:
        photos = [str(original.parent)]
        found = plan(Settings(), photos=photos, out=out, trial_steps=0, free_bytes=None)
        return found.done, found.remaining

    assert done() == (1, 0)
    touch(original)
    assert done() == (1, 0)
    original.write_bytes(photo_bytes(1))
    touch(original)
    assert done() == (0, 1)


def test_two_photos_of_one_output_are_refused_before_any_is_read(tmp_path: Path) -> None:
    for name in ("a.jpg", "a.jpg.png"):
        (tmp_path / "photos").mkdir(exist_ok=True)
        (tmp_path / "photos" / name).write_bytes(b"x")
    settings = load_settings(overrides=["output.format=png"])
    with pytest.raises(ValueError, match=r"both be written as a\.jpg\.png"):
        PhotoDataModule(settings, photos=[str(tmp_path / "photos")], out=tmp_path / "out")
