"""The unrelated target image psi of the anchor terms."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from anti_i2v_lit.ops.resize import resize


def texture(height: int, width: int) -> Tensor:
    """A high-contrast plaid [1, 3, H, W] in [0, 1] that looks like no photo (after Mist's target).

    Three gratings per channel at incommensurate angles, thresholded softly: strong edges at every
    orientation, no face, no smooth area, and the same at every resolution.
    """
    rows = torch.linspace(0, 1, height)[:, None]
    columns = torch.linspace(0, 1, width)[None, :]
    channels = []
    for angle, periods in ((0.3, 7.0), (1.1, 9.0), (2.3, 11.0)):
        angle_t = torch.tensor(angle)
        first = torch.sin(6.283 * periods * (rows * angle_t.sin() + columns * angle_t.cos()))
        second = torch.sin(6.283 * periods * 0.6 * (rows * angle_t.cos() - columns * angle_t.sin()))
        channels.append(torch.sigmoid(6.0 * (first + second)))
    return torch.stack(channels)[None]


def anchor_image(name: str, height: int, width: int) -> Tensor:
    """The anchor at a view size, [1, 3, H, W] in [0, 1].

    Args:
        name: "texture" or the path of an image file, which is squashed to the view.
        height: rows of the view.
        width: columns of the view.

    Raises:
        ValueError: the file is missing or not an image.
    """
    if name == "texture":
        return texture(height, width)
    path = Path(name)
    if not path.is_file():
        raise ValueError(f"attack.anchor: expected 'texture' or an image file, got {name!r}")
    try:
        with Image.open(path) as image:
            pixels = np.asarray(image.convert("RGB"), dtype=np.float32) / 255.0
    except (UnidentifiedImageError, OSError) as error:
        raise ValueError(f"attack.anchor: {name} is not a readable image: {error}") from error
    whole = torch.from_numpy(pixels).permute(2, 0, 1)[None].contiguous()
    return resize(whole, (height, width)).clamp(0, 1)
