"""First frames against PyAV's own decoding, on clips written here."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from anti_i2v_lit.bench.first_frames import write_first_frames


def write_clip(path: Path, level: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=5)
        stream.width = stream.height = 32
        stream.pix_fmt = "yuv420p"
        for number in range(3):
            pixels = np.full((32, 32, 3), level + 60 * number, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode(None))
    return path


def test_the_first_frame_of_every_clip_is_written_once(tmp_path: Path) -> None:
    write_clip(tmp_path / "clips" / "a.mp4", 20)
    write_clip(tmp_path / "clips" / "sub" / "a.avi", 100)
    out = write_first_frames([tmp_path / "clips"], tmp_path / "out")
    assert sorted(p.name for p in out.iterdir()) == ["clips_a.png", "sub_a.png"]
    for name, level in (("clips_a", 20), ("sub_a", 100)):
        pixels = np.asarray(Image.open(out / f"{name}.png"))
        assert pixels.shape == (32, 32, 3) and abs(pixels.mean() - level) < 4
    stamp = (out / "sub_a.png").stat().st_mtime_ns
    write_first_frames([tmp_path / "clips" / "sub" / "a.avi"], tmp_path / "out")
    assert (out / "sub_a.png").stat().st_mtime_ns == stamp


def test_clips_that_cannot_be_used_are_named(tmp_path: Path) -> None:
    first = write_clip(tmp_path / "clips" / "a.mp4", 20)
    second = write_clip(tmp_path / "clips" / "a.avi", 20)
    with pytest.raises(ValueError, match="would both become clips_a.png"):
        write_first_frames([first, second], tmp_path / "out")
    with pytest.raises(ValueError, match="does not exist"):
        write_first_frames([tmp_path / "none"], tmp_path / "out")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="no video among"):
        write_first_frames([tmp_path / "empty"], tmp_path / "out")
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"no clip")
    with pytest.raises(ValueError, match="broken.mp4: the clip cannot be decoded"):
        write_first_frames([broken], tmp_path / "out")
