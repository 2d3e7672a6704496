"""Folders, manifests and shards as lists of photos; tars are written by the standard library."""

from __future__ import annotations

import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from anti_i2v_lit.archive.ledger import Ledger, Row
from anti_i2v_lit.data.reading import ReadingConfig, read_photo
from anti_i2v_lit.evaluation.places import clean_photos, scanned
from tests.evaluation.fakes import write_photos


def tarred(tar: Path, *members: Path) -> Path:
    with tarfile.open(tar, "w", format=tarfile.USTAR_FORMAT) as archive:
        for member in members:
            archive.add(member, arcname=member.name)
    return tar


def manifest(folder: Path, sources: dict[str, str]) -> Path:
    folder.mkdir()
    ledger = Ledger(folder)
    for key, source in sources.items():
        ledger.append(Row(key=key, status="cloaked", source=source, output=key))
    return folder / "manifest.jsonl"


def test_originals_of_a_manifest_are_read_from_tars_and_missed_when_gone(tmp_path: Path) -> None:
    one, two, gone, odd = write_photos(tmp_path / "photos", 4)
    pixels = np.asarray(Image.open(two))
    tar = tarred(tmp_path / "shard-000.tar", two, odd)
    for path in (two, gone):
        path.unlink()
    sources = {
        "a.png": str(one),
        "shard-000/b.png": str(tar / two.name),
        "c.png": str(gone),
        "d.png": "",
        "e.png": str(tar / "absent.png"),
    }
    found = clean_photos(manifest(tmp_path / "cloaked", sources), tmp_path / "out")
    assert [source.key for source in found.sources] == ["a.png", "shard-000/b.png"]
    read = read_photo(found.sources[1], ReadingConfig()).srgb()
    assert np.array_equal((read * 255).round().byte().permute(1, 2, 0).numpy(), pixels)
    assert {key for key, _ in found.broken} == {"c.png", "d.png", "e.png"}
    problems = found.problems("", [source.key for source in found.sources])
    assert all(problem.fails and problem.kind == "unreadable" for problem in problems)
    assert f"c.png: the original is not at {gone}" in {problem.reason for problem in problems}


def test_a_manifest_without_one_original_is_refused(tmp_path: Path) -> None:
    listed = manifest(tmp_path / "cloaked", {"a.png": str(tmp_path / "a.png")})
    with pytest.raises(ValueError, match="none of its originals"):
        clean_photos(listed, tmp_path / "out")


@pytest.mark.parametrize("where", ["", "album"])
def test_pictures_beside_a_shard_are_not_passed_over(tmp_path: Path, where: str) -> None:
    folder = tmp_path / "photos"
    paths = write_photos(folder / where, 3)
    tarred(folder / "old_backup.tar", paths[0])
    with pytest.raises(ValueError, match=r"old_backup\.tar.*photo0\.png.*\*\.tar"):
        clean_photos(folder, tmp_path / "out")
    pictures = scanned(folder / where / "*.png", tmp_path / "out").sources
    assert [source.path for source in pictures] == paths
    samples = scanned(folder / "*.tar", tmp_path / "out").sources
    assert [source.key for source in samples] == ["old_backup/photo0.png"]


def test_shards_alone_are_read_whatever_lies_hidden_or_is_written_there(tmp_path: Path) -> None:
    paths = write_photos(tmp_path / "photos", 1)
    shards = tmp_path / "shards"
    for folder in (".cache", "out/clips"):
        write_photos(shards / folder, 1)
    tarred(shards / "s.tar", *paths)
    (shards / "notes.txt").write_text("x")
    found = clean_photos(shards, shards / "out")
    assert [source.key for source in found.sources] == ["s/photo0.png"]
