"""What a file format delivers and takes back: stored samples plus what belongs to them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from anti_i2v_lit.data.colour_profile import ColourProfile

Samples = NDArray[Any]  # uint8 or uint16


@dataclass(frozen=True, kw_only=True, eq=False)
class Picture:
    """The pixels of a file as they are stored, and its metadata.

    Attributes:
        format: "JPEG", "PNG", "WEBP", "TIFF", "HEIF" or "AVIF".
        samples: colour [h, w, C], C = 1 or 3, uint8 or uint16, in the stored orientation.
        alpha: opacity [h, w] of the same type, or None.
        bit_depth: 8, 10, 12 or 16; samples lie in [0, 2^bit_depth - 1].
        orientation: EXIF orientation 1..8 that a viewer applies to the stored pixels.
        profile: relation of the samples to sRGB.
        container: the whole source file; writers take its metadata from here.
        icc: ICC profile bytes as embedded, or None.
        exif: EXIF block starting at its TIFF header, previews blanked, or None.
        xmp: XMP packet, previews blanked, or None.
        colour_key: samples value that means "transparent" (PNG tRNS), or None.
        notes: what the writer leaves out and why, one sentence each.
    """

    format: str
    samples: Samples
    bit_depth: int
    profile: ColourProfile
    container: bytes
    alpha: Samples | None = None
    orientation: int = 1
    icc: bytes | None = None
    exif: bytes | None = None
    xmp: bytes | None = None
    colour_key: tuple[int, ...] | None = None
    notes: tuple[str, ...] = field(default=())

    @property
    def maximum(self) -> int:
        """Largest sample value."""
        return 2**self.bit_depth - 1

    def interleaved(self) -> Samples:
        """Colour and alpha together, [h, w, C] or [h, w, C + 1], contiguous."""
        if self.alpha is None:
            return np.ascontiguousarray(self.samples)
        return np.concatenate([self.samples, self.alpha[..., None]], axis=-1)


def split_alpha(pixels: Samples) -> tuple[Samples, Samples | None]:
    """Separate [h, w, 1..4] (or [h, w]) into colour [h, w, 1 or 3] and alpha [h, w]."""
    if pixels.ndim == 2:
        pixels = pixels[..., None]
    if pixels.shape[-1] in (2, 4):
        return pixels[..., :-1], pixels[..., -1]
    return pixels, None


def to_upright(array: NDArray[Any], orientation: int) -> NDArray[Any]:
    """Apply an EXIF orientation to [h, w, ...]; a view, no copy."""
    if orientation >= 5:
        array = array.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        array = array[::-1]
    if orientation in (2, 3, 6, 7):
        array = array[:, ::-1]
    return array


def to_stored(array: NDArray[Any], orientation: int) -> NDArray[Any]:
    """Undo `to_upright`; a view, no copy."""
    if orientation in (2, 3, 6, 7):
        array = array[:, ::-1]
    if orientation in (3, 4, 7, 8):
        array = array[::-1]
    if orientation >= 5:
        array = array.swapaxes(0, 1)
    return array
