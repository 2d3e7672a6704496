"""The seam of picture formats: what a codec promises, and the settings of writing."""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import ClassVar, final

import numpy as np

from anti_i2v_lit.checks import PhotoFailure, check_between, check_in
from anti_i2v_lit.data.picture import Picture

SUBSAMPLINGS = ("4:4:4", "4:2:2", "4:2:0")


@dataclass(kw_only=True)
class OutputConfig:
    """How cloaks are written.

    The defaults keep a cloak through its own file. Share that one save keeps of a fine colour
    perturbation of 8 grey levels, and of one in the 64 lowest frequencies per axis (512x512
    photograph): JPEG 95 4:4:4 1.02 and 0.96; HEIF 90 4:4:4 0.99 and 0.99; AVIF 98 4:4:4 0.98 in
    the low ones; 4:2:0 at JPEG 90 0.04 and 0.82, HEIF 95 0.25 and 0.92, AVIF 95 0.13 and 0.87,
    lossy WebP 100 0.13 and 0.88. HEIC readers without 4:4:4 decoding need `chroma="4:2:0"`.
    """

    format: str = "same"
    """"same" as the original, or "png" (8 or 16 bit, lossless)."""
    jpeg_quality: int = 95
    """Quality of JPEG files, 1 to 100 (Pillow's scale)."""
    jpeg_subsampling: str = "4:4:4"
    """Colour resolution of JPEG files: "4:4:4" (full), "4:2:2" or "4:2:0"."""
    webp: str = "lossless"
    """"lossless", "match" (lossy if the original is lossy) or "lossy"; lossy is always 4:2:0."""
    webp_quality: int = 100
    """Quality of lossy WebP files, 1 to 100."""
    heif_quality: int = 90
    """Quality of HEIC/HEIF files, 1 to 100."""
    avif_quality: int = 98
    """Quality of AVIF files, 1 to 100."""
    chroma: str = "4:4:4"
    """Colour resolution of HEIF and AVIF files: "4:4:4", "4:2:2" or "4:2:0"."""
    png_level: int = 6
    """Effort of PNG and lossless TIFF compression, 1 (fast) to 9 (small)."""

    def __post_init__(self) -> None:
        """Refuse unknown names and out-of-range numbers; warn of settings that erase cloaks."""
        check_in(self.format, ("same", "png"), "output.format")
        check_in(self.jpeg_subsampling, SUBSAMPLINGS, "output.jpeg_subsampling")
        check_in(self.chroma, SUBSAMPLINGS, "output.chroma")
        check_in(self.webp, ("lossless", "match", "lossy"), "output.webp")
        for name in ("jpeg_quality", "webp_quality", "heif_quality", "avif_quality"):
            check_between(getattr(self, name), 1, 100, f"output.{name}")
        check_between(self.png_level, 1, 9, "output.png_level")
        reduced = {self.jpeg_subsampling, self.chroma} != {"4:4:4"} or self.webp == "lossy"
        if self.jpeg_quality < 95 or reduced:
            warnings.warn(
                "output: a quality under 95 or reduced colour resolution removes much of a cloak "
                "from its own file; keep 4:4:4 and quality 95 unless size matters more",
                stacklevel=2,
            )


class Codec(ABC):
    """A picture format: bytes to a `Picture` and back.

    The base guarantees that whatever a damaged file does to a decoder comes out as a
    `PhotoFailure`, and that decoded samples are what `Picture` says they are.
    """

    format: ClassVar[str]

    @final
    def size(self, data: bytes) -> tuple[int, int]:
        """Width and height as stored, read from the header, before any pixel is decoded.

        Raises:
            PhotoFailure: a damaged header, several frames, or a kind that is not handled.
        """
        with self._readable():
            width, height = self._size(data)
        if width < 1 or height < 1:
            raise PhotoFailure(f"the {self.format} header gives an empty picture")
        return width, height

    @final
    def decode(self, data: bytes) -> Picture:
        """Decode a whole file.

        Raises:
            PhotoFailure: damaged, truncated, or a kind that is not handled.
        """
        with self._readable():
            picture = self._decode(data)
        samples, alpha = picture.samples, picture.alpha
        assert samples.ndim == 3 and samples.shape[-1] in (1, 3), samples.shape
        assert samples.dtype in (np.dtype(np.uint8), np.dtype(np.uint16)), samples.dtype
        assert alpha is None or (alpha.shape, alpha.dtype) == (samples.shape[:2], samples.dtype)
        assert samples.shape[-1] == picture.profile.channels
        return picture

    @final
    def encode(self, picture: Picture, config: OutputConfig) -> bytes:
        """Encode with the metadata of `picture.container`; the same input gives the same bytes."""
        assert picture.format == self.format, (picture.format, self.format)
        return self._encode(picture, config)

    @abstractmethod
    def _size(self, data: bytes) -> tuple[int, int]:
        """Width and height from the header."""

    @abstractmethod
    def _decode(self, data: bytes) -> Picture:
        """Decode; may raise anything on damaged data."""

    @abstractmethod
    def _encode(self, picture: Picture, config: OutputConfig) -> bytes:
        """Encode pixels and metadata."""

    @contextmanager
    def _readable(self) -> Iterator[None]:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # decoders warn of harmless metadata damage
                yield
        except PhotoFailure:
            raise
        except MemoryError as error:
            raise PhotoFailure("not enough memory to decode it") from error
        except Exception as error:  # noqa: BLE001 - decoders raise anything on damaged data
            detail = str(error).strip() or type(error).__name__
            raise PhotoFailure(
                f"damaged or truncated {self.format} file ({detail.splitlines()[0][:200]})"
            ) from error


def refuse_pillow_mode(mode: str) -> PhotoFailure:
    """The reason why pixels of a Pillow mode are not cloaked."""
    reasons = {
        "CMYK": "CMYK (print) colours cannot be cloaked within a budget of visible grey levels; "
        "convert the photo to RGB",
        "P": "a palette picture (at most 256 colours) has no room for a cloak; convert it to RGB",
        "PA": "a palette picture (at most 256 colours) has no room for a cloak; convert it to RGB",
        "1": "a black-and-white picture (1 bit) has no room for a cloak",
        "LAB": "Lab colours are not handled; convert the photo to RGB",
        "F": "floating-point pixels are not handled; convert the photo to 16 bit",
    }
    return PhotoFailure(reasons.get(mode, f"pixels of kind {mode} are not handled"))
