"""Training pictures: portraits and the frames of training clips, as 8-bit tensors in memory."""

from __future__ import annotations

import dataclasses
import json
import pathlib
import zlib
from collections.abc import Sequence

import av
import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional


@dataclasses.dataclass(frozen=True, kw_only=True)
class VideoCrop:
    """The square of a training clip that shows its speaker, as shares of the frame height."""

    centre_x: float  # centre of the square, share of the frame width
    centre_y: float  # centre of the square, share of the frame height
    side: float  # side of the square, share of the shorter side of the frame


DEFAULT_CROP = VideoCrop(centre_x=0.5, centre_y=0.5, side=1.0)

# Where the speaker is in the clips whose speaker does not fill the frame; looked up once by eye.
CROPS: dict[str, VideoCrop] = {
    "s29.mp4": VideoCrop(centre_x=0.5, centre_y=0.45, side=1.0),
    "s32.mp4": VideoCrop(centre_x=0.5, centre_y=0.5, side=1.0),
    "pexels_8048492.mp4": VideoCrop(centre_x=0.5, centre_y=0.4, side=1.0),
}


def seeded(seed: int, step: int, purpose: str) -> torch.Generator:
    """A CPU generator that depends on nothing but its three arguments."""
    mixed = zlib.crc32(f"{seed}/{step}/{purpose}".encode())
    return torch.Generator().manual_seed(mixed)


def load_photos(folder: pathlib.Path, *, size: int, limit: int | None = None) -> Tensor:
    """All JPEG portraits of a folder in name order, ``[N, 3, size, size]``, uint8.

    Args:
        folder: Folder with ``*.jpg`` files.
        size: Side in pixels; other pictures are resized (Lanczos).
        limit: Read only the first so many; None reads all.

    Raises:
        ValueError: The folder holds no JPEG.
    """
    paths = sorted(folder.glob("*.jpg"))[:limit]
    if not paths:
        raise ValueError(
            f"{folder} holds no *.jpg; expected portraits; point --data at the data folder."
        )
    stack = np.empty((len(paths), size, size, 3), np.uint8)
    for index, path in enumerate(paths):
        with Image.open(path) as image:
            stack[index] = np.asarray(_square(image.convert("RGB"), DEFAULT_CROP, size))
    return torch.from_numpy(stack).permute(0, 3, 1, 2).contiguous()


def _square(image: Image.Image, crop: VideoCrop, size: int) -> Image.Image:
    side = min(image.size) * crop.side
    left = min(max(image.width * crop.centre_x - side / 2, 0.0), image.width - side)
    top = min(max(image.height * crop.centre_y - side / 2, 0.0), image.height - side)
    return image.resize(
        (size, size), Image.Resampling.LANCZOS, box=(left, top, left + side, top + side)
    )


def load_video(path: pathlib.Path, *, size: int, max_frames: int | None = None) -> Tensor:
    """The frames of one clip, cut to a square around the speaker, ``[T, 3, size, size]``, uint8."""
    crop = CROPS.get(path.name, DEFAULT_CROP)
    frames: list[np.ndarray] = []
    with av.open(str(path)) as container:
        for frame in container.decode(video=0):
            if max_frames is not None and len(frames) >= max_frames:
                break
            frames.append(np.asarray(_square(frame.to_image(), crop, size)))
    return torch.from_numpy(np.stack(frames)).permute(0, 3, 1, 2).contiguous()


def training_videos(data: pathlib.Path) -> list[pathlib.Path]:
    """The clips that ``split.json`` gives to training; never those it holds out."""
    split = json.loads((data / "split.json").read_text(encoding="utf-8"))
    return [data / name for name in split["train"]["video"]]


def random_crops(
    pictures: Tensor,
    indices: Sequence[int],
    *,
    size: int,
    generator: torch.Generator,
    smallest: float = 0.4,
) -> Tensor:
    """Random square crops, half of them mirrored, resized to ``[len(indices), 3, size, size]``.

    Args:
        pictures: ``[N, 3, S, S]`` uint8.
        indices: Which pictures to take.
        size: Side of the result in pixels.
        generator: Source of all randomness.
        smallest: Side of the smallest crop as a share of S.

    Returns:
        float32 in [-1, 1].
    """
    full = pictures.shape[-1]
    out = []
    for index in indices:
        scale, x, y, mirror = torch.rand(4, generator=generator).tolist()
        side = int(full * (smallest + (1 - smallest) * scale))
        left, top = int(x * (full - side)), int(y * (full - side))
        patch = pictures[index, :, top : top + side, left : left + side].float()[None]
        patch = functional.interpolate(patch, size=(size, size), mode="bilinear", antialias=True)
        out.append(patch.flip(-1) if mirror < 0.5 else patch)
    return torch.cat(out).div_(127.5).sub_(1.0)
