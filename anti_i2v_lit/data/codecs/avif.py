"""AVIF by Pillow, 8 bit, full colour resolution."""

from __future__ import annotations

import io
from typing import Any, final

from PIL import Image

from anti_i2v_lit.checks import PhotoFailure
from anti_i2v_lit.data.codecs.base import Codec, OutputConfig
from anti_i2v_lit.data.codecs.still import decode_still, still_size
from anti_i2v_lit.data.picture import Picture

_ORIENTATION = 0x0112
_SPEED = 9  # a tenth of the default's time for 5 % more bytes, at the same error
_THREADS = 4  # fixed, so that the bytes do not depend on the machine


class _Verbatim(Image.Exif):
    """EXIF that Pillow writes as it is.

    Pillow moves the orientation from EXIF into the container by re-writing the whole block,
    which breaks maker notes; this hands back the original bytes instead.
    """

    def __init__(self, block: bytes, orientation: int) -> None:
        super().__init__()
        self._block = block
        self[_ORIENTATION] = orientation
        self[0x010E] = ""  # an entry that stays, or Pillow would write no EXIF at all

    def tobytes(self, offset: int = 8) -> bytes:
        return b"Exif\x00\x00" + self._block


@final
class AvifCodec(Codec):
    """AVIF stills, RGB with or without alpha, 8 bit."""

    format = "AVIF"

    def _size(self, data: bytes) -> tuple[int, int]:
        return still_size(data, self.format, "an AVIF sequence")

    def _decode(self, data: bytes) -> Picture:
        _check_kind(data)
        return decode_still(data, self.format)

    def _encode(self, picture: Picture, config: OutputConfig) -> bytes:
        settings: dict[str, Any] = {}
        if picture.exif:
            settings["exif"] = _Verbatim(picture.exif, picture.orientation)
        pixels = picture.interleaved()
        grey = pixels.shape[-1] == 1
        buffer = io.BytesIO()
        Image.fromarray(pixels[..., 0] if grey else pixels).save(
            buffer,
            "AVIF",
            # one quality serves colour and alpha, and alpha must come back exactly
            quality=100 if picture.alpha is not None else config.avif_quality,
            subsampling="4:0:0" if grey else config.chroma,
            speed=_SPEED,
            max_threads=_THREADS,
            icc_profile=picture.icc or b"",
            xmp=picture.xmp or b"",
            **settings,
        )
        return buffer.getvalue()


def _check_kind(data: bytes) -> None:
    """Refuse what Pillow would silently reduce: more than 8 bits, HDR, uncommon primaries."""
    start = data.find(b"av1C")
    if start >= 0 and data[start + 6] & 0x40:
        raise PhotoFailure(
            "an AVIF file of more than 8 bits: its depth would be lost; export it as 16-bit PNG"
        )
    start = data.find(b"colrnclx")
    if start >= 0:
        primaries = int.from_bytes(data[start + 8 : start + 10], "big")
        transfer = int.from_bytes(data[start + 10 : start + 12], "big")
        if primaries not in (1, 2) or transfer in (16, 18):
            raise PhotoFailure(
                "an AVIF file in a wide or HDR colour space without an ICC profile: its colours "
                "would change; export it as PNG with its profile"
            )
