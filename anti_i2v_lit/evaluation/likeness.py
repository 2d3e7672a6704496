"""Which pictures show the same scene? Correlations of thumbnails, and where one lies in another."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from skimage.feature import match_template
from torch import Tensor

from anti_i2v_lit.ops.resize import Box, crop_resize, resize

THUMB_PX = 24
ALIKE = 0.8  # correlation of thumbnails above which two pictures may show one scene
CLEAR = 0.05  # by how much the best partner must lead
REGISTERED = 0.9  # correlation of a crop that counts as found
_WHOLE: Box = (0.0, 0.0, 1.0, 1.0)
_COARSE_PX, _FINE_PX = 96, 256  # longer side of the photo in the two searches
_COARSE_SCALES = tuple(float(s) for s in np.linspace(1.0, 0.4, 25))
_LUMA = torch.tensor([0.299, 0.587, 0.114])

Vector = NDArray[np.float64]


def thumbnail(picture: Tensor, box: Box = _WHOLE) -> Vector:
    """Brightness of a part of a picture [3, H, W] at 24 x 24 pixels: mean 0, length 1."""
    small = crop_resize(picture[None], box, (THUMB_PX, THUMB_PX), "bilinear")[0]
    values = (small * _LUMA.to(small)[:, None, None]).sum(0).double().flatten().numpy()
    values = values - values.mean()
    return values / max(float(np.linalg.norm(values)), 1e-12)


def centre_box(size: tuple[int, int], aspect: float) -> Box:
    """The largest central crop with `aspect` = width / height of a picture of (H, W) pixels."""
    height, width = size
    share = aspect * height / width
    if share <= 1:
        return ((1 - share) / 2, 0.0, (1 + share) / 2, 1.0)
    return (0.0, (1 - 1 / share) / 2, 1.0, (1 + 1 / share) / 2)


def likeness(photo: Tensor, other: Tensor) -> float:
    """Correlation of two pictures, the photo taken whole or cut centrally to the other's shape."""
    aspect = other.shape[-1] / other.shape[-2]
    boxes = {_WHOLE, centre_box((photo.shape[-2], photo.shape[-1]), aspect)}
    seen = thumbnail(other)
    return max(float(thumbnail(photo, box) @ seen) for box in boxes)


def assign(
    photos: Mapping[str, Sequence[Vector]], files: Mapping[str, Vector]
) -> tuple[dict[str, str], dict[str, list[str]]]:
    """Pairs by thumbnails, one to one.

    A pair is made where each is the other's best partner, they correlate by at least 0.8, and
    the second best of both is at least 0.05 behind.

    Args:
        photos: key -> thumbnails of the photo (whole, and cut to other shapes).
        files: name -> thumbnail.

    Returns:
        key -> name; and key -> the names that could be meant, for photos without a clear partner.
    """
    if not photos or not files:
        return {}, {}
    names = list(files)
    known = np.stack([files[name] for name in names])
    scores = np.stack([np.max(np.stack(list(v)) @ known.T, axis=0) for v in photos.values()])
    pairs, unclear = {}, {}
    for row, key in enumerate(photos):
        best = int(scores[row].argmax())
        if scores[row, best] < ALIKE:
            continue
        rivals = [names[i] for i in np.flatnonzero(scores[row] > scores[row, best] - CLEAR)]
        owners = np.flatnonzero(scores[:, best] > scores[row, best] - CLEAR)
        if len(rivals) == 1 and len(owners) == 1:
            pairs[key] = names[best]
        else:
            unclear[key] = rivals
    return pairs, unclear


def find_frame(photo: Tensor, other: Tensor) -> tuple[Box, float]:
    """Where in a photo [3, H, W] does another picture [3, h, w] lie?

    Tried first: the whole photo (also squashed), and its central crop. Else a search over scales
    and places by normalised correlation, first coarse, then fine (about 0.2 % of the side).

    Returns:
        The box as shares of the photo, and the correlation there.
    """
    size = (photo.shape[-2], photo.shape[-1])
    aspect = other.shape[-1] / other.shape[-2]
    seen = thumbnail(other)
    simple = [_WHOLE, centre_box(size, aspect)]
    scores = [float(thumbnail(photo, box) @ seen) for box in simple]
    best = int(np.argmax(scores))
    if scores[best] >= 0.98:
        return simple[best], scores[best]
    box, score = _search(photo, other, _COARSE_PX, _COARSE_SCALES)
    largest = centre_box(size, aspect)
    scale = (box[2] - box[0]) / (largest[2] - largest[0])
    near = tuple(float(s) for s in np.linspace(scale - 0.03, scale + 0.03, 13) if 0.3 < s <= 1.0)
    fine = _search(photo, other, _FINE_PX, near)
    found = max([(box, score), fine], key=lambda pair: pair[1])
    return found if found[1] > scores[best] else (simple[best], scores[best])


def _search(
    photo: Tensor, other: Tensor, side_px: int, scales: Sequence[float]
) -> tuple[Box, float]:
    height, width = photo.shape[-2:]
    shrink = side_px / max(height, width)
    size = (max(8, round(height * shrink)), max(8, round(width * shrink)))
    scene = _grey(photo, size)
    left, top, right, bottom = centre_box(size, other.shape[-1] / other.shape[-2])
    best: tuple[Box, float] = (_WHOLE, -1.0)
    for scale in scales:
        part = (
            min(size[0], max(8, round((bottom - top) * size[0] * scale))),
            min(size[1], max(8, round((right - left) * size[1] * scale))),
        )
        answer = match_template(scene, _grey(other, part))
        y, x = np.unravel_index(int(answer.argmax()), answer.shape)
        if answer[y, x] > best[1]:
            box = (x / size[1], y / size[0], (x + part[1]) / size[1], (y + part[0]) / size[0])
            best = (tuple(min(1.0, float(v)) for v in box), float(answer[y, x]))  # type: ignore
    return best


def _grey(picture: Tensor, size: tuple[int, int]) -> NDArray[np.float64]:
    small = resize(picture[None], size, "bilinear")[0]
    return (small * _LUMA.to(small)[:, None, None]).sum(0).double().numpy()
