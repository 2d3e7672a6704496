"""Shards of the same input are the same bytes; what is there is not made again."""

from __future__ import annotations

import hashlib
import json
import os
import tarfile
from pathlib import Path

import pytest
import webdataset

from anti_i2v_lit.cli.main import main
from anti_i2v_lit.data.shards import building
from tests.data.shards.making import photo_bytes, unpack

ROOT = Path(__file__).parents[3]


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    for number in range(7):
        (folder / f"{number}.png").write_bytes(photo_bytes(number))
        (folder / f"{number}.txt").write_text(f"caption {number}")
    return folder


def shard(photos: Path, out: Path, *words: str) -> int:
    given = ["samples_per_shard=3", "prefix=p", *words]
    return main(["shard", str(photos), "--out", str(out), *given])


def digests(out: Path) -> dict[str, str]:
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in out.glob("*.tar")}


def test_equal_inputs_give_equal_bytes(photos: Path, tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    assert shard(photos, one) == 0
    copy = tmp_path / "copy"
    copy.mkdir()
    for path in sorted(photos.iterdir(), reverse=True):  # made in another order, at other times
        (copy / path.name).write_bytes(path.read_bytes())
        os.utime(copy / path.name, (1e9, 1e9))
    assert shard(copy, two) == 0
    assert digests(one) == digests(two) and sorted(digests(one)) == [
        "p-000000.tar", "p-000001.tar", "p-000002.tar"
    ]  # fmt: skip
    with tarfile.open(one / "p-000000.tar") as archive:
        states = {(m.mtime, m.uid, m.gid, m.uname, m.gname, m.mode) for m in archive}
    assert states == {(0, 0, 0, "", "", 0o644)}
    index = json.loads((one / "index.json").read_text())
    assert index["samples"] == 7 and [s["samples"] for s in index["shards"]] == [3, 3, 1]
    assert {s["name"]: s["sha256"] for s in index["shards"]} == digests(one)
    assert index["size_bytes"] == sum(p.stat().st_size for p in one.glob("*.tar"))


def test_webdataset_reads_them(photos: Path, tmp_path: Path) -> None:
    assert shard(photos, tmp_path / "out") == 0
    urls = str(tmp_path / "out" / "p-{000000..000002}.tar")
    found = list(webdataset.WebDataset(urls, shardshuffle=False))
    assert [s["png"] for s in found] == [photo_bytes(n) for n in range(7)]
    for number, sample in enumerate(found):
        facts = json.loads(sample["json"])
        assert sample["txt"].decode() == facts["caption"] == f"caption {number}"
        assert facts["source"] == f"{number}.png"
        assert facts["source_sha256"] == hashlib.sha256(sample["png"]).hexdigest()


def test_a_stopped_run_goes_on_and_damage_is_repaired(
    photos: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert shard(photos, tmp_path / "calm") == 0
    out, original, made = tmp_path / "out", building.write_tar, []

    def dies(path: Path, members: object) -> object:
        made.append(path.name)
        if len(made) == 2:
            raise KeyboardInterrupt
        return original(path, members)  # type: ignore[arg-type]

    monkeypatch.setattr(building, "write_tar", dies)
    assert shard(photos, out) == 3
    assert list(digests(out)) == ["p-000000.tar"] and not (out / "index.json").exists()
    assert shard(photos, out) == 0
    assert made == ["p-000000.tar", "p-000001.tar", "p-000001.tar", "p-000002.tar"]
    assert "1 were there" in capsys.readouterr().out
    # A flipped bit, and a caption that changed: exactly these shards are made again.
    damaged = bytearray((out / "p-000001.tar").read_bytes())
    damaged[700] ^= 1
    (out / "p-000001.tar").write_bytes(damaged)
    made[:] = [""] * 2
    assert shard(photos, out) == 0
    assert made[2:] == ["p-000001.tar"] and digests(out) == digests(tmp_path / "calm")
    (photos / "6.txt").write_text("another")
    assert shard(photos, out) == 0
    assert made[3:] == ["p-000002.tar"]
    assert b"another" in unpack(out / "p-000002.tar").values()


def test_jobs_share_the_shards_by_range(photos: Path, tmp_path: Path) -> None:
    assert shard(photos, tmp_path / "one") == 0
    out = tmp_path / "out"
    assert shard(photos, out, "--range", "2:3") == 0
    assert not (out / "index.json").exists()
    assert shard(photos, out, "--range", "0:2") == 0
    assert digests(out) == digests(tmp_path / "one")
    assert (out / "index.json").read_bytes() == (tmp_path / "one" / "index.json").read_bytes()
    assert shard(photos, out, "--range", "2:4") == 1
    assert shard(photos, out, "--range", "2") == 1


def test_a_file_without_a_sample_is_listed(photos: Path, tmp_path: Path) -> None:
    (photos / "3.png").write_bytes(b"")
    assert shard(photos, tmp_path / "out") == 2
    index = json.loads((tmp_path / "out" / "index.json").read_text())
    assert index["skipped"] == {"3.png": "the file is empty (zero bytes)"}
    assert index["samples"] == 6


def test_a_folder_of_other_settings_inputs_or_tars_is_refused(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert shard(photos, out) == 0
    assert shard(photos, out, "samples_per_shard=2") == 1
    assert "other settings (samples_per_shard)" in capsys.readouterr().err
    for number in (3, 4, 5, 6):
        (photos / f"{number}.png").unlink()
    assert shard(photos, out) == 1
    assert "2 shards of an earlier, larger input, first p-000001.tar" in capsys.readouterr().err
    other = tmp_path / "other"
    other.mkdir()
    (other / "mine.tar").write_bytes(b"")
    assert shard(photos, other) == 1
    assert "holds other tars" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [(["samples_per_shard=0"], "samples_per_shard must be at least 1"), (["prefix=a/b"], "prefix"),
     (["sample_per_shard=3"], "unknown field 'sample_per_shard'")],
)  # fmt: skip
def test_wrong_settings_are_refused(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    assert main(["shard", str(photos), "--out", str(tmp_path / "out"), *words]) == 1
    assert message in capsys.readouterr().err
