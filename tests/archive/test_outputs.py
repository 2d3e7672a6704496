"""Outputs as files, waiting for their shard, and in it."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from anti_i2v_lit.archive.changes import mtime_ns, possibly_changed
from anti_i2v_lit.archive.ledger import Ledger, Row
from anti_i2v_lit.archive.outputs import (
    OutputsThere,
    file_of,
    in_shard,
    open_output,
    output_exists,
    shard_counts,
    shard_stage,
)
from anti_i2v_lit.tars import write_tar


def test_an_output_is_found_wherever_it_is(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "file.jpg").write_bytes(b"file")
    # A folder of photos may be named as a tar.
    (tmp_path / "odd.tar").mkdir()
    (tmp_path / "odd.tar" / "x.jpg").write_bytes(b"odd")
    waiting = shard_stage(tmp_path) / "p" / "deep" / "1.jpg"
    waiting.parent.mkdir(parents=True)
    waiting.write_bytes(b"waits")
    (shard_stage(tmp_path) / "q").mkdir()
    (shard_stage(tmp_path) / "q" / "2.jpg").write_bytes(b"newer")
    write_tar(tmp_path / "q.tar", [("1.jpg", b"tar"), ("2.jpg", b"older"), ("deep/3.jpg", b"3")])
    expected = {
        "sub/file.jpg": b"file",
        "odd.tar/x.jpg": b"odd",
        "p.tar/deep/1.jpg": b"waits",
        "q.tar/1.jpg": b"tar",
        "q.tar/2.jpg": b"newer",
        "q.tar/deep/3.jpg": b"3",
    }
    missing = {"sub/none.jpg", "p.tar/2.jpg", "q.tar/none.jpg", "q.tar/deep", "r.tar/1.jpg", "none"}
    there = OutputsThere(tmp_path)
    assert {output for output in [*expected, *missing] if output in there} == set(expected)
    for output, content in expected.items():
        assert output_exists(tmp_path, output)
        with open_output(tmp_path, output) as stream:
            assert stream.read() == content
    assert not any(output_exists(tmp_path, output) for output in missing)
    assert shard_counts(tmp_path) == (0, 2)


def test_names_of_outputs() -> None:
    assert in_shard("p-000003/000017.jpg") == "p-000003.tar/000017.jpg"
    assert file_of("p-000003.tar/000017.jpg") == "p-000003.tar"
    assert file_of("sub/a.jpg") == "sub/a.jpg"


def test_a_shard_that_is_newer_than_its_rows_is_read_again(tmp_path: Path) -> None:
    tar = tmp_path / "p.tar"
    write_tar(tar, [("1.jpg", b"photo")])
    os.utime(tar, (1e9, 1e9))
    ledger = Ledger(tmp_path / "out")
    row = Row(key="p/1.jpg", status="cloaked", output="p.tar/1.jpg", source=str(tar / "1.jpg"),
              source_sha256="x")  # fmt: skip
    ledger.append(row)
    places = {"p/1.jpg": tar / "1.jpg"}
    assert possibly_changed(ledger.rows(), places) == set()
    os.utime(tar, (4e9, 4e9))
    assert possibly_changed(ledger.rows(), places) == {"p/1.jpg"}


def test_a_photo_with_another_time_than_the_one_that_was_read_is_read_again(tmp_path: Path) -> None:
    photo = tmp_path / "1.jpg"
    photo.write_bytes(b"photo")
    ledger = Ledger(tmp_path / "out")
    ledger.append(Row(key="1.jpg", status="cloaked", output="1.jpg", source=str(photo),
                      source_sha256="x", source_mtime_ns=mtime_ns(photo)))  # fmt: skip
    assert possibly_changed(ledger.rows(), {"1.jpg": photo}) == set()
    os.utime(photo, (1e9, 1e9))  # an older file, copied with its time
    assert possibly_changed(ledger.rows(), {"1.jpg": photo}) == {"1.jpg"}
    photo.unlink()
    assert mtime_ns(photo) is None
    assert possibly_changed(ledger.rows(), {"1.jpg": photo}) == {"1.jpg"}


def test_a_lost_cloak_that_is_made_again_is_recorded_once(tmp_path: Path) -> None:
    ledger, cloak = Ledger(tmp_path), tmp_path / "a.jpg"

    def row(content: bytes, seconds: float) -> Row:
        cloak.write_bytes(content)
        digest = hashlib.sha256(content).hexdigest()
        return Row(key="a.jpg", status="cloaked", output="a.jpg", output_sha256=digest,
                   source_sha256="x", seconds=seconds)  # fmt: skip

    ledger.append(row(b"cloak", 1.0))
    cloak.unlink()
    ledger.append(row(b"cloak", 2.0))
    assert len(ledger.path.read_text().splitlines()) == 1, "the same bytes: one row is enough"
    cloak.unlink()
    ledger.append(row(b"another cloak", 3.0))
    assert ledger.rows()["a.jpg"].seconds == 3.0, "the row must fit the file that is there"
    stale = row(b"one more", 4.0)
    cloak.write_bytes(b"another cloak")
    with pytest.raises(ValueError, match="must not be recorded twice"):
        ledger.append(stale)
