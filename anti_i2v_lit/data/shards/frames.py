"""The frames of a clip that a cloak needs: the first ones, checked for a face."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import av
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from anti_i2v_lit.checks import PhotoFailure, check_at_least, check_between, check_in
from anti_i2v_lit.data.faces import FaceConfig, FaceDetector

_SUFFIXES = {"jpeg": "jpg", "png": "png"}


@dataclass(kw_only=True)
class FrameConfig:
    """Which frames of a clip become photos.

    One is what an image-to-video attack starts from; take more to cloak a clip.
    """

    num_frames: int = 1
    """Frames kept per clip: the first ones that pass."""
    stride: int = 1
    """Frames from one that is looked at to the next one; 1 looks at all."""
    search_frames: int = 32
    """Frames looked at, at most, until `num_frames` have passed."""
    require_face: bool = True
    """Whether a frame without a face is passed over."""
    min_face_share: float = 0.02
    """Smallest share of the frame's area that its largest face covers, 0 to 1."""
    encoding: str = "jpeg"
    """File format of the frames: "jpeg" or "png"."""
    jpeg_quality: int = 95
    """JPEG quality, 1 to 100; colours are not subsampled."""

    def __post_init__(self) -> None:
        """Refuse values that give no frames.

        Raises:
            ValueError: naming the field, the value and its bounds.
        """
        for name in ("num_frames", "stride"):
            check_at_least(getattr(self, name), 1, name)
        check_at_least(self.search_frames, self.num_frames, "search_frames")
        check_between(self.min_face_share, 0.0, 1.0, "min_face_share")
        check_between(self.jpeg_quality, 1, 100, "jpeg_quality")
        check_in(self.encoding, _SUFFIXES, "encoding")


@dataclass(frozen=True, kw_only=True)
class Frame:
    """A frame that passed.

    Attributes:
        index: number of the frame in its clip, from 0.
        seconds: its time in the clip.
        photo: encoded, with sRGB pixels.
        suffix: "jpg" or "png".
        size: (height, width), pixels.
        face_box: left, top, right, bottom of the largest face in shares of width and height;
            None where no face was asked for or found.
    """

    index: int
    seconds: float
    photo: bytes
    suffix: str
    size: tuple[int, int]
    face_box: tuple[float, float, float, float] | None


class FrameReader:
    """Decodes clips and picks frames.

    Args:
        config: which frames.
    """

    def __init__(self, config: FrameConfig) -> None:
        self.config = config

    @cached_property
    def _detector(self) -> FaceDetector:
        return FaceDetector(FaceConfig())

    def read(self, path: Path) -> list[Frame]:
        """Frames of a clip that pass, at least one.

        Raises:
            PhotoFailure: the clip cannot be decoded or has no frame that passes.
        """
        found: list[Frame] = []
        looked_at = 0
        for index, seconds, pixels in _decoded(path):
            if index % self.config.stride:
                continue
            looked_at += 1
            frame = self._frame(index, seconds, pixels)
            found += [frame] if frame is not None else []
            if len(found) == self.config.num_frames or looked_at == self.config.search_frames:
                break
        if looked_at == 0:
            raise PhotoFailure("the clip has no frames")
        if not found:
            raise PhotoFailure(f"no face in the first {looked_at} frames looked at")
        return found

    def _frame(self, index: int, seconds: float, pixels: NDArray[np.uint8]) -> Frame | None:
        box = self._face(pixels) if self.config.require_face else None
        if box is None and self.config.require_face:
            return None
        return Frame(
            index=index,
            seconds=seconds,
            photo=self._encoded(pixels),
            suffix=_SUFFIXES[self.config.encoding],
            size=(pixels.shape[0], pixels.shape[1]),
            face_box=box,
        )

    def _face(self, pixels: NDArray[np.uint8]) -> tuple[float, float, float, float] | None:
        photo = torch.from_numpy(pixels).permute(2, 0, 1).float().div(255)
        faces = self._detector.detect(photo)
        if not faces or faces[0].area < self.config.min_face_share:
            return None
        left, top, right, bottom = (round(value, 5) for value in faces[0].box)
        return left, top, right, bottom

    def _encoded(self, pixels: NDArray[np.uint8]) -> bytes:
        stream = io.BytesIO()
        image = Image.fromarray(pixels)
        if self.config.encoding == "png":
            image.save(stream, "PNG")
        else:
            image.save(stream, "JPEG", quality=self.config.jpeg_quality, subsampling=0)
        return stream.getvalue()


def _decoded(path: Path) -> Iterator[tuple[int, float, NDArray[np.uint8]]]:
    """Number, time and sRGB pixels [H, W, 3] of each frame, in the order of display."""
    try:
        with av.open(str(path)) as container:
            if not container.streams.video:
                raise PhotoFailure("the file has no video")
            stream = container.streams.video[0]
            # One thread: the same frames on every machine, damaged clips included.
            stream.thread_count = 1
            for index, frame in enumerate(container.decode(stream)):
                seconds = float(frame.time) if frame.time is not None else 0.0
                pixels = np.asarray(frame.to_ndarray(format="rgb24"), dtype=np.uint8)
                yield index, round(seconds, 6), pixels
    except (av.FFmpegError, ValueError) as error:
        if isinstance(error, PhotoFailure):
            raise
        raise PhotoFailure(f"the clip cannot be decoded: {error}") from error
