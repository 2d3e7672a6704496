"""Tars written and read: against the standard library, cut anywhere, through paths."""

from __future__ import annotations

import hashlib
import subprocess
import tarfile
from pathlib import Path

import pytest

from anti_i2v_lit.tars import DamagedTar, holder, list_tar, open_path, path_exists, write_tar

MEMBERS = [("a.jpg", b"x" * 1000), ("sub/b.json", b"{}"), ("empty.txt", b""), ("ü.txt", b"utf-8"),
           ("long" * 60 + ".txt", b"long")]  # fmt: skip


@pytest.mark.parametrize("count", [3, 5])  # without and with extended headers
def test_gnu_tar_and_python_read_what_is_written(tmp_path: Path, count: int) -> None:
    path = tmp_path / "x.tar"
    found = write_tar(path, MEMBERS[:count])
    data = path.read_bytes()
    assert (found.size_bytes, found.members) == (len(data), count)
    assert found.sha256 == hashlib.sha256(data).hexdigest()
    with tarfile.open(path) as archive:
        assert [(m.name, archive.extractfile(m).read()) for m in archive] == MEMBERS[:count]  # type: ignore[union-attr]
    subprocess.run(["tar", "xf", path, "-C", tmp_path], check=True)
    assert all((tmp_path / name).read_bytes() == data for name, data in MEMBERS[:count])
    listed = {n: data[start : start + size] for n, (start, size) in list_tar(path).items()}
    assert listed == dict(MEMBERS[:count])
    for name, content in MEMBERS[:count]:
        with open_path(path / name) as stream:
            assert stream.read() == content
        assert path_exists(path / name) and holder(path / name) == (path, name)


def test_a_failed_write_leaves_the_old_tar_and_no_temporary(tmp_path: Path) -> None:
    path = tmp_path / "x.tar"
    write_tar(path, MEMBERS)
    before = path.read_bytes()

    def fails():
        yield MEMBERS[0]
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        write_tar(path, fails())
    assert path.read_bytes() == before and [p.name for p in tmp_path.iterdir()] == ["x.tar"]


def test_a_listing_is_forgotten_when_the_file_changes(tmp_path: Path) -> None:
    path = tmp_path / "x.tar"
    write_tar(path, MEMBERS[:1])
    assert list(list_tar(path)) == ["a.jpg"]
    write_tar(path, MEMBERS[1:2])
    assert list(list_tar(path)) == ["sub/b.json"]


def test_every_cut_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "x.tar"
    write_tar(path, MEMBERS[:3])
    whole = path.read_bytes()
    end = whole.rindex(b"empty.txt") + 512
    for cut in range(0, end, 256):
        path.write_bytes(whole[:cut])
        with pytest.raises(DamagedTar):
            list_tar(path)
        assert not path_exists(path / "a.jpg")
        with pytest.raises(OSError, match="damaged tar"):
            open_path(path / "a.jpg")


def test_paths_that_lead_nowhere(tmp_path: Path) -> None:
    write_tar(tmp_path / "x.tar", MEMBERS)
    for path in (tmp_path / "none", tmp_path / "none.tar" / "a", tmp_path / "x.tar" / "none"):
        assert not path_exists(path)
        with pytest.raises(FileNotFoundError):
            open_path(path)
    assert holder(tmp_path / "none") is None
