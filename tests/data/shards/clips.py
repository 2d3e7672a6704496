"""Small clips written with PyAV, in the layouts of the published data sets."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import av
import numpy as np
from PIL import Image
from skimage import data as pictures

SIDE = 128


def face_frame(shift: int = 0) -> np.ndarray:
    """The astronaut's face, moved by some pixels: uint8 [128, 128, 3]."""
    left = 110 + shift
    part = Image.fromarray(pictures.astronaut()).crop((left, 0, left + 224, 224))
    return np.asarray(part.resize((SIDE, SIDE)))


def empty_frame(shift: int = 0) -> np.ndarray:
    """A gradient: nobody in it."""
    ramp = np.linspace(0, 200, SIDE).astype(np.uint8) + np.uint8(shift)
    return np.repeat(np.tile(ramp, (SIDE, 1))[..., None], 3, axis=2)


def write_clip(path: Path, frames: Sequence[np.ndarray]) -> None:
    """Encode frames as MPEG-4, in the container that the suffix names."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=25)
        stream.width = stream.height = SIDE
        stream.pix_fmt = "yuv420p"
        stream.bit_rate = 2_000_000
        for pixels in frames:
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def celebv_tree(root: Path, clips: dict[str, Sequence[np.ndarray]]) -> Path:
    """CelebV-Text's layout after unpacking: videos, texts per attribute, the JSON of clips."""
    for name, frames in clips.items():
        write_clip(root / "videos" / "celebvtext_6" / f"{name}.mp4", frames)
    celebv_annotations(root, list(clips))
    return root


def celebv_annotations(root: Path, clips: Sequence[str]) -> None:
    """Texts and list as the data set publishes them."""
    attributes = ("face40_details_new", "action_dur", "emotion", "light_dir",
                  "light_intensity", "light_color_temp")  # fmt: skip
    info = {}
    for clip in clips:
        for attribute in attributes:
            path = root / "texts" / attribute / f"{clip}.txt"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f"First of {attribute} on {clip}.\nSecond sentence.\n")
        info[clip] = {
            "ytb_id": clip.rpartition("_")[0],
            "duration": {"start_sec": 0.0, "end_sec": 9.64},
            "bbox": {"top": 0, "bottom": 937, "left": 849, "right": 1872},
            "version": "v0.1",
        }
    (root / "celebvtext_info.json").write_text(json.dumps({"clips": info}))


UCF_CLIPS = ("ApplyEyeMakeup/v_ApplyEyeMakeup_g01_c01.avi",
             "ApplyEyeMakeup/v_ApplyEyeMakeup_g08_c01.avi",
             "TaiChi/v_TaiChi_g09_c02.avi")  # fmt: skip


def ucf_lists(root: Path) -> None:
    """UCF101's own lists: classes, the first split."""
    lists = root / "ucfTrainTestlist"
    lists.mkdir(parents=True, exist_ok=True)
    (lists / "classInd.txt").write_text("1 ApplyEyeMakeup\n2 ApplyLipstick\n91 TaiChi\n")
    (lists / "trainlist01.txt").write_text(f"{UCF_CLIPS[1]} 1\r\n{UCF_CLIPS[2]} 91\r\n")
    (lists / "testlist01.txt").write_text(f"{UCF_CLIPS[0]}\n")
