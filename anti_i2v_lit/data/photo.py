"""A decoded photo: its sRGB view, and the same photo with a residual added."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from anti_i2v_lit.data.picture import Picture, Samples, to_stored, to_upright

_BAND_PIXELS = 1 << 16  # pixels worked on at once: temporaries stay in the cache
_LUMINANCE = np.array([0.2126, 0.7152, 0.0722], dtype=np.float32)  # ITU-R BT.709


@dataclass(frozen=True, kw_only=True, eq=False)
class DecodedPhoto:
    """A photo in memory, with everything needed to write it back.

    Attributes:
        key: stable name, the path relative to the input folder.
        path: the original file, never written to.
        source_sha256: hex digest of the original file.
        picture: samples and metadata as stored in the file.
        caption: what a shard says about the photo; "" where nothing does.
    """

    key: str
    path: Path
    source_sha256: str
    picture: Picture
    caption: str = ""

    @property
    def format(self) -> str:
        """Name of the file format, such as "JPEG"."""
        return self.picture.format

    @property
    def size(self) -> tuple[int, int]:
        """Height and width as a viewer shows the photo, in pixels."""
        height, width = self.picture.samples.shape[:2]
        return (width, height) if self.picture.orientation >= 5 else (height, width)

    @property
    def bit_depth(self) -> int:
        """Bits per channel in the file: 8, 10, 12 or 16."""
        return self.picture.bit_depth

    @property
    def is_grey(self) -> bool:
        """Whether the photo has one colour channel."""
        return self.picture.samples.shape[-1] == 1

    @property
    def notes(self) -> tuple[str, ...]:
        """What writing this photo leaves out, one sentence each."""
        return self.picture.notes

    def srgb(self) -> Tensor:
        """The photo as a viewer shows it: float32 [3, H, W], sRGB-encoded, in [0, 1], upright.

        Colours outside the sRGB gamut are clipped in this view (not in the photo). Alpha is not
        composited: partly transparent pixels show their stored colour.
        """
        height, width = self.picture.samples.shape[:2]
        stored = np.empty((3, height, width), np.float32)
        for rows in _bands(height, width):
            stored[:, rows] = np.moveaxis(self._view(self.picture.samples[rows]), -1, 0)
        upright = to_upright(np.moveaxis(stored, 0, -1), self.picture.orientation)
        return torch.from_numpy(np.ascontiguousarray(np.moveaxis(upright, -1, 0)))

    def changed(self, residual: Tensor, budget_8bit: float) -> DecodedPhoto:
        """Return this photo with a residual added in its own colour space.

        With T the map from sRGB to the photo's own values, a sample becomes
        `own + round(clamp(T(srgb + r) - T(srgb)))`, so a zero residual changes nothing, whatever
        the profile. Grey photos take the luminance of the residual. Alpha, and the colour under
        full transparency, stay as they are.

        Args:
            residual: [3, H, W], sRGB-encoded units (1/255 is one grey level), upright.
            budget_8bit: largest change of any written sample, in grey levels of 255; a 16-bit
                file may change by 257 times as many of its own steps.

        Raises:
            ValueError: residual of another shape or with NaN or infinity, or a negative budget.
        """
        stored = self._checked_residual(residual, budget_8bit)
        # floor: after rounding no sample may be beyond the budget
        limit = math.floor(budget_8bit * self.picture.maximum / 255 + 1e-6)
        samples = self.picture.samples.copy()
        for rows in _bands(*samples.shape[:2]):
            change = stored[rows]
            if change.any():
                samples[rows] = self._added(rows, change, limit)
        return replace(self, picture=replace(self.picture, samples=samples))

    def max_change_8bit(self, other: DecodedPhoto) -> float:
        """Largest difference of any colour sample to `other`, in grey levels of 255.

        Raises:
            ValueError: the photos differ in size, channels, orientation or bit depth.
        """
        mine, theirs = self.picture, other.picture
        for what in ("bit_depth", "orientation"):
            if getattr(mine, what) != getattr(theirs, what):
                raise ValueError(f"cannot compare photos that differ in {what}")
        if mine.samples.shape != theirs.samples.shape:
            raise ValueError(
                f"cannot compare photos of {mine.samples.shape} and {theirs.samples.shape} samples"
            )
        largest = 0
        for rows in _bands(*mine.samples.shape[:2]):
            difference = mine.samples[rows].astype(np.int32) - theirs.samples[rows]
            largest = max(largest, int(np.abs(difference).max()))
        return largest * 255 / mine.maximum

    def _view(self, samples: Samples) -> NDArray[np.float32]:
        """Stored samples [h, w, C] as sRGB values [h, w, 3]; grey is repeated."""
        own = samples.astype(np.float32) / np.float32(self.picture.maximum)
        return np.broadcast_to(
            np.clip(self.picture.profile.to_srgb(own), 0, 1), (*samples.shape[:2], 3)
        )

    def _added(self, rows: slice, residual: NDArray[Any], limit: int) -> Samples:
        """Samples of some rows after the residual [h, w, 3] was added."""
        picture = self.picture
        before = picture.samples[rows]
        view = self._view(before)
        if self.is_grey:
            view, residual = view[..., :1], (residual @ _LUMINANCE)[..., None]
        own = picture.profile.from_srgb
        step = own(view + residual) - own(view)
        step = residual if picture.profile.is_srgb else step
        step = np.rint(np.clip(step * picture.maximum, -limit, limit)).astype(np.int32)
        after = np.clip(before + step, 0, picture.maximum).astype(before.dtype)
        return np.where(self._frozen(rows, before, after)[..., None], before, after)

    def _frozen(self, rows: slice, before: Samples, after: Samples) -> NDArray[np.bool_]:
        """Pixels that must not change: invisible ones, and those that would become invisible."""
        frozen = np.zeros(before.shape[:2], dtype=bool)
        if self.picture.alpha is not None:
            frozen |= self.picture.alpha[rows] == 0
        if self.picture.colour_key is not None:
            key = np.array(self.picture.colour_key, dtype=before.dtype)
            frozen |= (before == key).all(axis=-1) | (after == key).all(axis=-1)
        return frozen

    def _checked_residual(self, residual: Tensor, budget_8bit: float) -> NDArray[np.float32]:
        """The residual as a stored-orientation view [h, w, 3]."""
        if tuple(residual.shape) != (3, *self.size):
            raise ValueError(
                f"residual: expected [3, {self.size[0]}, {self.size[1]}], "
                f"got {list(residual.shape)}"
            )
        if not (math.isfinite(budget_8bit) and budget_8bit >= 0):
            raise ValueError(f"budget_8bit must be a number of at least 0, got {budget_8bit}")
        if not torch.isfinite(residual).all():
            raise ValueError("residual: NaN or infinite values")
        values = residual.detach().to("cpu", torch.float32).numpy()
        return to_stored(np.moveaxis(values, 0, -1), self.picture.orientation)


def _bands(height: int, width: int) -> Iterator[slice]:
    """Row ranges of about `_BAND_PIXELS` pixels."""
    rows = max(1, _BAND_PIXELS // width)
    return (slice(top, min(top + rows, height)) for top in range(0, height, rows))
