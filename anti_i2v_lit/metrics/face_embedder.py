"""The seam of face embeddings: five landmarks and a photo become a unit vector."""

from __future__ import annotations

import functools
import hashlib
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, ClassVar, Self, final

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from skimage.transform import SimilarityTransform
from torch import Tensor, nn

from anti_i2v_lit.checks import check_photos
from anti_i2v_lit.metrics.requirements import DATA_VARIABLE as DATA_VARIABLE

CENTRES = Path(__file__).with_name("face_centres.safetensors")


class FaceEmbedder(ABC):
    """A frozen network that tells people apart.

    A variant provides `template`, `crop_px`, `network` and `_descriptors`. This class aligns the
    face, subtracts the mean descriptor of a few hundred people (`face_centres.safetensors`) and
    scales to length 1. Without the subtraction all faces share one large component and two
    strangers have a cosine of 0.8; with it strangers are near 0, as ArcFace has them.

    Attributes:
        template: where the five landmarks go, [5, 2] (x, y) in pixels of the crop.
        crop_px: side of the square crop, in pixels.
        centre_name: name of the network's mean descriptor in the bundled file; "" for a network
            whose descriptors have no common part.
    """

    Config: type[Any]
    template: ClassVar[tuple[tuple[float, float], ...]]
    crop_px: ClassVar[int]
    centre_name: ClassVar[str]

    @property
    @abstractmethod
    def network(self) -> nn.Module:
        """The network that holds the weights."""

    @abstractmethod
    def _descriptors(self, crops: Tensor) -> Tensor:
        """Aligned crops [N, 3, crop_px, crop_px] in [0, 1] -> raw descriptors [N, D]."""

    @functools.cached_property
    def digest(self) -> str:
        """16 hex digits of what decides a vector: weights, centre, template, size of the crop."""
        tensors = dict(self.network.state_dict())
        if self.centre_name:
            tensors["centre"] = _centre(self.centre_name)
        facts = (type(self).__qualname__, self.template, self.crop_px)
        found = hashlib.sha256(repr(facts).encode())
        for name in sorted(tensors):
            values = tensors[name].detach().cpu().contiguous()
            found.update(repr((name, values.dtype, tuple(values.shape))).encode())
            found.update(values.numpy().tobytes())
        return found.hexdigest()[:16]

    @final
    def to(self, device: torch.device | str) -> Self:
        """Move the weights; returns self."""
        self.network.to(device)
        return self

    @final
    def descriptors(self, photos: Tensor, landmarks: Tensor) -> Tensor:
        """The network's own output, float32 [N, D], neither centred nor scaled.

        Args:
            photos: [N, 3, H, W] in [0, 1], float32.
            landmarks: [N, 5, 2] (x, y) in pixels, the origin at the photo's upper left corner.

        Raises:
            ValueError: wrong shapes or ranges, or landmarks in one point.
        """
        check_photos(photos)
        if tuple(landmarks.shape) != (len(photos), 5, 2):
            raise ValueError(
                f"landmarks: expected shape {(len(photos), 5, 2)}, got {tuple(landmarks.shape)}"
            )
        template = torch.tensor(self.template)
        crops = [
            align_face(photo, points, template, self.crop_px)
            for photo, points in zip(photos, landmarks, strict=True)
        ]
        return self._descriptors(torch.stack(crops)).float()

    @final
    def embed_all(self, photos: Tensor, landmarks: Tensor) -> Tensor:
        """Unit vectors [N, D] of one face per photo; arguments as in `descriptors`."""
        raw = self.descriptors(photos, landmarks)
        if self.centre_name:
            raw = raw - _centre(self.centre_name).to(raw)
        return F.normalize(raw, dim=-1)

    @final
    def embed(self, photo: Tensor, landmarks: Tensor) -> Tensor:
        """Unit vector [D] of the face with landmarks [5, 2] in a photo [3, H, W]."""
        return self.embed_all(photo[None], landmarks[None])[0]


@functools.lru_cache
def _centre(name: str) -> Tensor:
    """Mean descriptor of a network, from the bundled file."""
    return load_file(CENTRES)[name]


def align_face(photo: Tensor, landmarks: Tensor, template: Tensor, crop_px: int) -> Tensor:
    """Rotate, scale and shift a face so that its landmarks lie on a template.

    The similarity transform is the least-squares one (Umeyama, PAMI 1991). Large faces are
    shrunk with an antialiasing filter first; what lies outside the photo becomes black.

    Args:
        photo: [3, H, W]; gradients flow to it.
        landmarks: [5, 2] (x, y) in pixels of the photo, the origin at its upper left corner.
        template: [5, 2] in pixels of the crop.
        crop_px: side of the crop.

    Returns:
        [3, crop_px, crop_px].

    Raises:
        ValueError: landmarks that are not finite or lie in one point.
    """
    points = landmarks.detach().cpu().double().numpy()
    if not np.isfinite(points).all() or np.ptp(points, axis=0).max() < 1e-3:
        raise ValueError(f"landmarks: expected five different points in pixels, got {points}")
    to_crop = umeyama(points, template.double().numpy())
    height, width = photo.shape[-2:]
    shrink = min(1.0, float(to_crop.scale))
    size = (max(1, round(height * shrink)), max(1, round(width * shrink)))
    small = photo[None]
    if size != (height, width):
        small = F.interpolate(
            small, size=size, mode="bilinear", align_corners=False, antialias=True
        )
    # The crop's pixels as shares of the photo from -1 to 1: one line per axis, added.
    (xx, xy, x), (yx, yy, y) = to_crop.inverse.params[:2] * (2 / np.array([[width], [height]]))
    axis = np.arange(crop_px) + 0.5
    columns = (xx * axis + x - 1)[None] + (xy * axis)[:, None]
    rows = (yx * axis + y - 1)[None] + (yy * axis)[:, None]
    grid = torch.from_numpy(np.stack([columns, rows], axis=-1))[None].to(photo)
    return F.grid_sample(small, grid, mode="bilinear", align_corners=False)[0]


def umeyama(source: np.ndarray, target: np.ndarray) -> SimilarityTransform:
    """Least-squares similarity from points [N, 2] to points [N, 2]."""
    centred = source - source.mean(axis=0)
    goal = target - target.mean(axis=0)
    # In two dimensions a similarity is one complex factor: least squares is a projection.
    z, w = centred @ [1, 1j], goal @ [1, 1j]
    factor = np.vdot(z, w) / np.vdot(z, z).real
    rotation = np.array([[factor.real, -factor.imag], [factor.imag, factor.real]])
    matrix = np.eye(3)
    matrix[:2, :2] = rotation
    matrix[:2, 2] = target.mean(axis=0) - rotation @ source.mean(axis=0)
    return SimilarityTransform(matrix=matrix)
