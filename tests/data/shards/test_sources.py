"""CelebV-Text, UCF101 and photo folders in their published layouts, and what is wrong in them."""

from __future__ import annotations

import hashlib
import io
import json
import shutil
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image

from anti_i2v_lit.checks import PhotoFailure
from anti_i2v_lit.data.shards import SAMPLE_SOURCES
from anti_i2v_lit.data.shards.sources import Sample, SampleSource, key_of
from anti_i2v_lit.data.shards.ucf101 import class_words
from tests.data.shards.clips import (
    UCF_CLIPS,
    celebv_annotations,
    celebv_tree,
    empty_frame,
    face_frame,
    ucf_lists,
    write_clip,
)
from tests.data.shards.making import photo_bytes


def samples_of(source: SampleSource, root: Path) -> tuple[list[Sample], dict[str, str]]:
    """All samples, and the reasons of files without any."""
    found: list[Sample] = []
    skipped = {}
    for unit in source.find([root]):
        try:
            found += source.samples(unit)
        except PhotoFailure as failure:
            skipped[unit.name] = str(failure)
    return found, skipped


def build(kind: str, **fields: Any) -> SampleSource:
    return SAMPLE_SOURCES.build({"name": kind, **fields})


def pixels(sample: Sample) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(sample.photo)))


def test_celebv_text_gives_the_first_frames_with_a_face(tmp_path: Path) -> None:
    faces, nobody = [face_frame(s) for s in range(3)], [empty_frame(s) for s in range(3)]
    clips = {"0-5BrmyFsYM_0": [*nobody[:2], *faces], "00-30GQl0TM_7": nobody}
    root = celebv_tree(tmp_path / "data", clips)
    # Whole videos of the download script are no clips.
    write_clip(root / "raw" / "0-5BrmyFsYM.mp4", faces)
    found, skipped = samples_of(build("celebv_text", num_frames=2, encoding="png"), root)
    name = "videos/celebvtext_6/0-5BrmyFsYM_0.mp4"
    assert [s.facts["frame"] for s in found] == [2, 3]
    assert [s.key for s in found] == [f"{key_of(name)}-f00002", f"{key_of(name)}-f00003"]
    assert skipped == {
        "videos/celebvtext_6/00-30GQl0TM_7.mp4": "no face in the first 3 frames looked at"
    }
    first = found[0]
    assert first.caption == (
        "First of face40_details_new on 0-5BrmyFsYM_0. First of action_dur on 0-5BrmyFsYM_0."
    )
    assert len(first.facts["texts"]) == 6
    assert first.facts["texts"]["emotion"][1] == "Second sentence."
    assert first.facts["info"]["ytb_id"] == "0-5BrmyFsYM"
    whole = (root / name).read_bytes()
    assert first.facts["source_sha256"] == hashlib.sha256(whole).hexdigest()
    # The frame itself, decoded by other means: ffmpeg's own conversion through Pillow images.
    with av.open(str(root / name)) as container:
        frames = [frame.to_image() for frame in container.decode(video=0)]
    assert np.abs(pixels(first).astype(int) - np.asarray(frames[2])).max() <= 1
    left, top, right, bottom = first.facts["face_box"]
    assert 0 < left < right < 1 and 0 < top < bottom < 1
    json.dumps(first.facts)


def test_the_search_ends_where_it_is_told_to(tmp_path: Path) -> None:
    clip = [empty_frame(0), empty_frame(1), empty_frame(2), face_frame(0)]
    root = celebv_tree(tmp_path, {"a_0": clip})
    assert samples_of(build("celebv_text", search_frames=3), root)[0] == []
    (found,), _ = samples_of(build("celebv_text", stride=3, search_frames=2), root)
    assert found.facts["frame"] == 3
    (found,), _ = samples_of(build("celebv_text", require_face=False), root)
    assert found.facts["frame"] == 0 and found.facts["face_box"] is None
    assert samples_of(build("celebv_text", min_face_share=0.9), root)[0] == []


def test_a_damaged_clip_and_missing_texts_cost_little(tmp_path: Path) -> None:
    root = celebv_tree(tmp_path, {"a_0": [face_frame()], "b_0": [face_frame()]})
    (root / "videos" / "celebvtext_6" / "b_0.mp4").write_bytes(b"not a video")
    shutil.rmtree(root / "texts" / "action_dur")
    (root / "celebvtext_info.json").unlink()
    found, skipped = samples_of(build("celebv_text"), root)
    assert found[0].caption == "First of face40_details_new on a_0."
    assert "info" not in found[0].facts
    assert "cannot be decoded" in skipped["videos/celebvtext_6/b_0.mp4"]
    (root / "celebvtext_info.json").write_text("[]")
    with pytest.raises(ValueError, match="is not CelebV-Text's list"):
        samples_of(build("celebv_text"), root)


def ucf_tree(root: Path) -> Path:
    for number, name in enumerate(UCF_CLIPS):
        write_clip(
            root / "UCF-101" / name, [empty_frame(10 * number), empty_frame(10 * number + 5)]
        )
    ucf_lists(root)
    return root


def test_ucf101_follows_the_official_lists(tmp_path: Path) -> None:
    root = ucf_tree(tmp_path)
    found, skipped = samples_of(build("ucf101"), root)
    assert skipped == {}
    assert [s.caption for s in found] == ["apply eye makeup", "tai chi"]
    assert [(s.facts["class_index"], s.facts["group"], s.facts["split"]) for s in found] == [
        (1, 8, 1),
        (91, 9, 1),
    ]
    (test,), _ = samples_of(build("ucf101", subset="test"), root)
    assert test.facts["class"] == "ApplyEyeMakeup" and test.facts["group"] == 1
    every, _ = samples_of(build("ucf101", subset="all", num_frames=2), root)
    assert len(every) == 6 and len({s.key for s in every}) == 6
    with pytest.raises(ValueError, match=r"holds no trainlist02\.txt"):
        build("ucf101", split=2).find([root])
    (root / "UCF-101" / UCF_CLIPS[1]).unlink()
    with pytest.raises(ValueError, match="names 1 clips that are not there, first ApplyEyeMakeup"):
        build("ucf101").find([root])


@pytest.mark.parametrize(
    ("label", "words"),
    [("ApplyEyeMakeup", "apply eye makeup"), ("YoYo", "yo yo"), ("TaiChi", "tai chi"),
     ("HandstandPushups", "handstand pushups"), ("PlayingDhol", "playing dhol")],
)  # fmt: skip
def test_class_names_are_read_as_words(label: str, words: str) -> None:
    assert class_words(label) == words


def test_pictures_that_cannot_be_cloaked_are_skipped_with_a_reason(tmp_path: Path) -> None:
    for name in ("a.png", "b.GIF", "c.cr2", "notes.txt"):
        (tmp_path / name).write_bytes(photo_bytes(0))
    found, skipped = samples_of(build("photos"), tmp_path)
    assert len(found) == 1 and skipped.keys() == {"b.GIF", "c.cr2"}
    assert skipped["b.GIF"].startswith("GIF files are not handled; export the photo as JPEG")


def test_photos_keep_their_bytes_and_get_stable_keys(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    names = ["a.png", "sub/a.PNG", "ünï.cödé.v2.png", "a.jpg"]
    for number, name in enumerate(names):
        (tmp_path / name).write_bytes(
            photo_bytes(number, "JPEG" if name.endswith("jpg") else "PNG")
        )
    (tmp_path / "a.txt").write_text(" a person \n")
    (tmp_path / "empty.jpg").write_bytes(b"")
    found, skipped = samples_of(build("photos"), tmp_path)
    assert skipped == {"empty.jpg": "the file is empty (zero bytes)"}
    by_photo = {s.photo: s for s in found}
    assert set(by_photo) == {(tmp_path / name).read_bytes() for name in names}
    assert sorted(s.suffix for s in found) == ["jpg", "png", "png", "png"]
    assert by_photo[(tmp_path / "a.png").read_bytes()].caption == "a person"
    keys = {s.key for s in found}
    assert len(keys) == 4 and all(k.isascii() and "." not in k and "/" not in k for k in keys)
    (tmp_path / "0.png").write_bytes(photo_bytes(9))
    again, _ = samples_of(build("photos"), tmp_path)
    assert keys < {s.key for s in again}, "a photo that is added changes no other key"


@pytest.mark.parametrize("kind", SAMPLE_SOURCES.names())
def test_nothing_to_shard_is_said_with_the_layout(tmp_path: Path, kind: str) -> None:
    fields = {"subset": "all"} if kind == "ucf101" else {}
    with pytest.raises(ValueError, match="nothing to shard .* expected"):
        build(kind, **fields).find([tmp_path])
    with pytest.raises(ValueError, match="no such file or folder"):
        build(kind, **fields).find([tmp_path / "none"])


@pytest.mark.parametrize(
    ("fields", "message"),
    [({"num_frames": 0}, "num_frames"), ({"num_frames": 5, "search_frames": 4}, "search_frames"),
     ({"encoding": "gif"}, "encoding"), ({"nun_frames": 1}, "Did you mean 'num_frames'")],
)  # fmt: skip
def test_wrong_settings_are_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build("celebv_text", **fields)


def test_real_clips_in_the_layout_of_celebv_text(real_data: Path, tmp_path: Path) -> None:
    folder = tmp_path / "videos" / "celebvtext_6"
    folder.mkdir(parents=True)
    clips = ["d18", "s29"]
    for clip in clips:
        (folder / f"{clip}.mp4").symlink_to(real_data / "video" / "liveportrait" / f"{clip}.mp4")
    celebv_annotations(tmp_path, clips)
    found, skipped = samples_of(build("celebv_text"), tmp_path)
    assert skipped == {} and len(found) == 2
    assert all(s.facts["face_box"] is not None for s in found)


def test_real_clips_in_the_layout_of_ucf101(real_data: Path, tmp_path: Path) -> None:
    names = ["bbaf2n", "brbk7n", "lrwp9a"]
    for name, target in zip(names, UCF_CLIPS, strict=True):
        with av.open(str(real_data / "video" / "grid" / f"{name}.mpg")) as container:
            decoded = zip(range(3), container.decode(video=0), strict=False)
            frames = [f.reformat(128, 128, format="rgb24").to_ndarray() for _, f in decoded]
        write_clip(tmp_path / "UCF-101" / target, frames)
    ucf_lists(tmp_path)
    found, skipped = samples_of(build("ucf101", num_frames=2, require_face=True), tmp_path)
    assert skipped == {} and len(found) == 4
