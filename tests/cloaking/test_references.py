"""Reference clips out of video files and shards."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from PIL import Image

from anti_i2v_lit.cloaking.references import ReferenceClips, reference_files
from anti_i2v_lit.settings import load_settings
from tests.cloaking.linear import SIDE, LinearSurrogate
from tests.cloaking.test_member import job_of, member_of


def film(path: Path, level: int, num_frames: int = 6, size: tuple[int, int] = (48, 64)) -> Path:
    """A lossless video: left third dark, the rest at `level`, brighter by 8 with every frame."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=8)
        stream.width, stream.height, stream.pix_fmt = size[1], size[0], "bgr0"
        for number in range(num_frames):
            pixels = np.full((*size, 3), level + 8 * number, dtype=np.uint8)
            pixels[:, : size[1] // 3] = 10
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode(None))
    return path


def test_first_frames_are_cut_and_resized_as_pillow_does(tmp_path: Path) -> None:
    film(tmp_path / "one.mkv", 100)
    found = ReferenceClips(str(tmp_path / "*.mkv"), 3, (24, 24)).clip(0)
    assert found.shape == (1, 3, 3, 24, 24) and found.dtype == torch.float32
    for number in range(3):
        pixels = np.full((48, 64, 3), 100 + 8 * number, dtype=np.uint8)
        pixels[:, :21] = 10
        expected = Image.fromarray(pixels).resize(
            (24, 24), Image.Resampling.BICUBIC, box=(8, 0, 56, 48)
        )
        frame = found[0, number].permute(1, 2, 0).numpy() * 255
        assert np.abs(frame - np.asarray(expected)).max() < 1.5


def test_folders_and_shards_hold_videos_too(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    film(tmp_path / "deep" / "b.mkv", 200)
    (tmp_path / "deep" / "notes.txt").write_text("no video")
    first = film(tmp_path / "a.mkv", 60)
    with tarfile.open(tmp_path / "clips-000.tar", "w") as archive:
        for name in ("000.mkv", "000.txt"):
            header = tarfile.TarInfo(name)
            content = first.read_bytes()
            header.size = len(content)
            archive.addfile(header, io.BytesIO(content))
    from_shard = ReferenceClips(str(tmp_path / "clips-*.tar"), 2, (8, 8))
    from_folder = ReferenceClips(str(tmp_path / "deep"), 2, (8, 8))
    from_file = ReferenceClips(str(first), 2, (8, 8))
    assert [len(found) for found in (from_shard, from_folder, from_file)] == [1, 1, 1]
    assert torch.equal(from_shard.clip(0), from_file.clip(0))
    assert from_folder.clip(0).mean() > from_file.clip(0).mean()


def test_what_cannot_be_used_stops_the_run_at_its_start(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="attack.references: no videos in"):
        ReferenceClips(str(tmp_path / "*.mp4"), 2, (8, 8))
    film(tmp_path / "short.mkv", 100, num_frames=3)
    with pytest.raises(ValueError, match="short.mkv has 3 frames, expected at least 5"):
        ReferenceClips(str(tmp_path), 5, (8, 8))
    (tmp_path / "broken.mp4").write_bytes(b"not a video at all")
    with pytest.raises(ValueError, match="broken.mp4 cannot be decoded"):
        ReferenceClips(str(tmp_path), 2, (8, 8))


def damaged(path: Path, how: str) -> Path:
    """A tar of one video and a text, cut off, overwritten, or no tar at all."""
    video = film(path.parent / "whole.mkv", 100).read_bytes()
    mode = "w:gz" if path.suffix == ".gz" else "w"
    with tarfile.open(path, mode) as archive:
        for name, content in (("000.mkv", video), ("000.txt", b"x" * 600)):
            header = tarfile.TarInfo(name)
            header.size = len(content)
            archive.addfile(header, io.BytesIO(content))
    whole = path.read_bytes()
    second = 512 + -(-len(video) // 512) * 512
    path.write_bytes(
        {
            "cut off": whole[: second + 100 if mode == "w" else len(whole) // 2],
            "overwritten": whole[:second] + b"?" * 512 + whole[second + 512 :],
            "no tar": b"not a tar at all" * 100,
        }[how]
    )
    return path


@pytest.mark.parametrize(
    ("name", "how"),
    [
        ("clips.tar", "cut off"),
        ("clips.tar", "overwritten"),
        ("clips.tar", "no tar"),
        ("clips.tar.gz", "cut off"),
    ],
)
def test_a_damaged_tar_is_named_with_the_remedy(tmp_path: Path, name: str, how: str) -> None:
    path = damaged(tmp_path / name, how)
    with pytest.raises(ValueError) as caught:
        ReferenceClips(str(path), 2, (8, 8))
    said = str(caught.value)
    assert said.startswith(f"attack.references: {path} cannot be read as a tar: ")
    assert said.endswith("copy or make it again, or leave it out")
    reason = said.removeprefix(f"attack.references: {path} cannot be read as a tar: ")
    assert len(reason.split(";")[0]) > 5


def test_every_draw_takes_a_video(tmp_path: Path) -> None:
    for number, level in enumerate((60, 120, 180)):
        film(tmp_path / f"{number}.mkv", level, size=(32, 32))
    member = member_of(LinearSurrogate(), {"denoising": {}}, references=str(tmp_path))
    still = member_of(LinearSurrogate(), {"denoising": {}})
    clips = ReferenceClips(str(tmp_path), 1, (SIDE, SIDE))
    # The linear surrogate's latents are its pixels.
    known = [clips.clip(n)[0] for n in range(3)]
    job = job_of((SIDE, SIDE))
    seen = []
    for number in range(12):
        entry = member.entry(job, number)
        matches = [torch.equal(entry.draw.clip_latents[0], clip) for clip in known]
        seen.append(matches.index(True))
        assert entry.view == still.made(job, number).view
    assert set(seen) == {0, 1, 2}
    again = member_of(LinearSurrogate(), {"denoising": {}}, references=str(tmp_path))
    assert torch.equal(again.made(job, 5).draw.clip_latents[0], known[seen[5]])


def test_a_path_is_taken_as_it_stands_and_each_video_once(tmp_path: Path) -> None:
    folder = tmp_path / "weird[1]"
    (folder / "set.1").mkdir(parents=True)
    film(folder / "set.1" / "a.mkv", 100)
    film(folder / "b.mkv", 100)
    names = [file.name for file in reference_files(str(folder))]
    assert names == ["b.mkv", "a.mkv"]
    assert [file.name for file in reference_files(str(folder / "b.mkv"))] == ["b.mkv"]


def test_another_set_of_videos_is_another_cloak(tmp_path: Path) -> None:
    film(tmp_path / "a.mkv", 100)
    settings = load_settings(overrides=[f"attack.references={tmp_path}"])
    before = settings.digest()
    assert settings.digest() == before
    film(tmp_path / "b.mkv", 60)
    assert settings.digest() != before
