"""WebP by Pillow; lossless by default, since lossy WebP always halves the colour resolution."""

from __future__ import annotations

import io
from typing import final

import numpy as np
from PIL import Image

from anti_i2v_lit.checks import PhotoFailure
from anti_i2v_lit.data.codecs.base import Codec, OutputConfig, without_pixel_limit
from anti_i2v_lit.data.colour_profile import profile_from_icc
from anti_i2v_lit.data.picture import Picture, split_alpha
from anti_i2v_lit.data.previews import (
    EXIF_NOTE,
    XMP_NOTE,
    exif_orientation,
    tiff_header,
    without_exif_previews,
    without_xmp_previews,
)


@final
class WebpCodec(Codec):
    """WebP stills, RGB with or without alpha, 8 bit."""

    format = "WEBP"

    def _size(self, data: bytes) -> tuple[int, int]:
        with without_pixel_limit(), Image.open(io.BytesIO(data), formats=["WEBP"]) as image:
            if getattr(image, "n_frames", 1) > 1:
                raise PhotoFailure("an animated WebP: only still photos are cloaked")
            return image.size

    def _decode(self, data: bytes) -> Picture:
        declared = int.from_bytes(data[4:8], "little") + 8
        if len(data) < declared:
            raise PhotoFailure("damaged or truncated WEBP file (shorter than its header says)")
        with without_pixel_limit():
            image = Image.open(io.BytesIO(data), formats=["WEBP"])
        orientation = exif_orientation(tiff_header(image.info.get("exif")))
        samples, alpha = split_alpha(np.asarray(image))
        info, notes = image.info, []
        exif, removed = without_exif_previews(tiff_header(info.get("exif")) or b"")
        notes += [EXIF_NOTE] if removed else []
        xmp, removed = without_xmp_previews(info.get("xmp") or b"")
        notes += [XMP_NOTE] if removed else []
        return Picture(
            format=self.format,
            samples=samples,
            alpha=alpha,
            bit_depth=8,
            orientation=orientation,
            profile=profile_from_icc(info.get("icc_profile"), 3),
            icc=info.get("icc_profile"),
            exif=exif or None,
            xmp=xmp or None,
            container=data,
            notes=tuple(notes),
        )

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
