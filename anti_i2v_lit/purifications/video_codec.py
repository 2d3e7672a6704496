"""A round trip through a video codec, as a frame grabbed from a posted clip."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import final

import av
import numpy as np
import torch
import torch.nn.functional as F
from av.video.stream import VideoStream
from torch import Tensor

from anti_i2v_lit.checks import check_between
from anti_i2v_lit.ops.quantise import straight_through, to_uint8
from anti_i2v_lit.purifications.base import Purification


@final
class VideoCodec(Purification):
    """Encode as one H.264 key frame with 4:2:0 chroma (x264, one thread) and decode again.

    Severity in native units: constant rate factor = round(severity * largest_crf); 23 is x264's
    default, 51 the worst.

    Source: x264's scale; a frame of a posted clip is a photo as well.
    """

    @dataclass(kw_only=True)
    class Config:
        """Settings of the codec.

        Attributes:
            largest_crf: constant rate factor at severity 1, x264's scale of 1 to 51.
        """

        largest_crf: int = 40

        def __post_init__(self) -> None:
            check_between(self.largest_crf, 1, 51, "largest_crf")

    def __init__(self, config: Config) -> None:
        self.config = config

    @property
    def is_differentiable(self) -> bool:
        """True: the gradient is that of the identity."""
        return True

    def _purify(self, photos: Tensor, severity: float, generator: torch.Generator) -> Tensor:
        crf = round(severity * self.config.largest_crf)
        height, width = photos.shape[-2:]
        # 4:2:0 wants even sides, and x264 at least one macroblock.
        right, down = max(width % 2, 16 - width), max(height % 2, 16 - height)
        padded = F.pad(photos.detach(), (0, max(right, 0), 0, max(down, 0)), mode="replicate")
        pixels = to_uint8(padded).permute(0, 2, 3, 1).cpu().numpy()
        coded = np.stack([_round_trip(image, crf) for image in pixels])[:, :height, :width]
        found = torch.from_numpy(coded).permute(0, 3, 1, 2).to(photos) / 255.0
        return straight_through(found, photos)


def _round_trip(pixels: np.ndarray, crf: int) -> np.ndarray:
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as output:
        stream = output.add_stream("libx264", rate=25)
        assert isinstance(stream, VideoStream)
        stream.height, stream.width = pixels.shape[:2]
        stream.pix_fmt = "yuv420p"
        stream.options = {"crf": str(crf), "preset": "medium", "threads": "1"}
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")
        output.mux([*stream.encode(frame), *stream.encode()])
    file.seek(0)
    with av.open(file, "r") as coded:
        return next(coded.decode(video=0)).to_ndarray(format="rgb24")
