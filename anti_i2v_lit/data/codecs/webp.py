"""WebP by Pillow; lossless by default, since lossy WebP always halves the colour resolution."""

from __future__ import annotations

import io
from typing import final

from PIL import Image

from anti_i2v_lit.checks import PhotoFailure
from anti_i2v_lit.data.codecs.base import Codec, OutputConfig
from anti_i2v_lit.data.codecs.still import decode_still, still_size
from anti_i2v_lit.data.picture import Picture


@final
class WebpCodec(Codec):
    """WebP stills, RGB with or without alpha, 8 bit."""

    format = "WEBP"

    def _size(self, data: bytes) -> tuple[int, int]:
        return still_size(data, self.format, "an animated WebP")

    def _decode(self, data: bytes) -> Picture:
        declared = int.from_bytes(data[4:8], "little") + 8
        if len(data) < declared:
            raise PhotoFailure("damaged or truncated WEBP file (shorter than its header says)")
        return decode_still(data, self.format)

    def _encode(self, picture: Picture, config: OutputConfig) -> bytes:
        lossless = config.webp == "lossless" or (
            config.webp == "match" and is_lossless(picture.container)
        )
        buffer = io.BytesIO()
        Image.fromarray(picture.interleaved()).save(
            buffer,
            "WEBP",
            lossless=lossless,
            # for lossless files Pillow's "quality" is effort; `exact` keeps invisible colours
            quality=50 if lossless else config.webp_quality,
            exact=True,
            alpha_quality=100,
            method=4,
            use_sharp_yuv=True,
            icc_profile=picture.icc or b"",
            exif=picture.exif or b"",
            xmp=picture.xmp or b"",
        )
        return buffer.getvalue()


def is_lossless(data: bytes) -> bool:
    """Whether a WebP file holds a lossless (VP8L) picture."""
    position = 12
    while position + 8 <= len(data):
        name = data[position : position + 4]
        if name in (b"VP8L", b"VP8 "):
            return name == b"VP8L"
        size = int.from_bytes(data[position + 4 : position + 8], "little")
        position += 8 + size + size % 2
    return False
