"""The sample shard and the settings in `shards/` are what their README says."""

from __future__ import annotations

import hashlib
import json
import runpy
from pathlib import Path

import pytest

from anti_i2v_lit.cli.main import main
from anti_i2v_lit.data.folder import scan
from anti_i2v_lit.data.reading import ReadingConfig, read_photo
from tests.data.shards.clips import UCF_CLIPS, celebv_tree, face_frame, ucf_lists, write_clip
from tests.data.shards.making import photo_bytes

FOLDER = Path(__file__).parents[3] / "shards"
SAMPLE = FOLDER / "sample" / "sample-000000.tar"


def test_the_sample_is_small_and_its_index_holds(tmp_path: Path) -> None:
    data = SAMPLE.read_bytes()
    index = json.loads((FOLDER / "sample" / "index.json").read_text(encoding="utf-8"))
    assert len(data) < 200_000
    (entry,) = index["shards"]
    assert (entry["sha256"], entry["size_bytes"]) == (hashlib.sha256(data).hexdigest(), len(data))
    found = scan([str(SAMPLE)], tmp_path)
    photos = [read_photo(source, ReadingConfig()) for source in found.sources]
    assert index["samples"] == len(photos) == 2 and found.broken == ()
    assert [photo.caption for photo in photos] == [
        "an astronaut in an orange suit",
        "the face of an astronaut",
    ]
    assert all(photo.size == (192, 192) for photo in photos)


def test_the_sample_can_be_made_again(tmp_path: Path) -> None:
    make = runpy.run_path(str(FOLDER / "make_sample.py"))["make"]
    assert make(tmp_path / "out") == 0
    again = scan([str(tmp_path / "out" / SAMPLE.name)], tmp_path / "cloaked")
    kept = scan([str(SAMPLE)], tmp_path / "cloaked")
    # The PNG encoder's version decides the bytes, not the pixels.
    assert [s.key for s in again.sources] == [s.key for s in kept.sources]
    for one, two in zip(again.sources, kept.sources, strict=True):
        first, second = (read_photo(s, ReadingConfig()).srgb() for s in (one, two))
        assert bool((first == second).all())


@pytest.mark.parametrize("kind", ["photos", "celebv_text", "ucf101"])
def test_the_settings_run_with_the_command_they_name(tmp_path: Path, kind: str) -> None:
    data, config = tmp_path / "data", FOLDER / f"{kind}.yaml"
    data.mkdir()
    if kind == "photos":
        (data / "a.png").write_bytes(photo_bytes(0))
    elif kind == "celebv_text":
        celebv_tree(data, {"a_0": [face_frame()]})
    else:
        for name in UCF_CLIPS:
            write_clip(data / "UCF-101" / name, [face_frame()])
        ucf_lists(data)
    head = config.read_text(encoding="utf-8").splitlines()[1]
    assert head.endswith(f"--out DIR --config shards/{config.name}")
    assert main(["shard", str(data), "--out", str(tmp_path / "out"), "--config", str(config)]) == 0
    index = json.loads((tmp_path / "out" / "index.json").read_text(encoding="utf-8"))
    assert index["samples"] == (2 if kind == "ucf101" else 1)
