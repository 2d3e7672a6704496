"""What the still formats that Pillow decodes in one piece share."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

from anti_i2v_lit.checks import PhotoFailure
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
from anti_i2v_lit.ops.pixel_limit import without_pixel_limit


def still_size(data: bytes, kind: str, sequence: str) -> tuple[int, int]:
    """Return (width, height) in pixels from the header.

    Args:
        data: the file.
        kind: Pillow's name of the format.
        sequence: what a file of several frames is called, for the refusal.

    Raises:
        PhotoFailure: several frames.
    """
    with without_pixel_limit(), Image.open(io.BytesIO(data), formats=[kind]) as image:
        if getattr(image, "n_frames", 1) > 1:
            raise PhotoFailure(f"{sequence}: only still photos are cloaked")
        return image.size


def decode_still(data: bytes, kind: str) -> Picture:
    """Decode 8-bit samples with everything that is written back, previews removed.

    Args:
        data: the file.
        kind: Pillow's name of the format, which is also the picture's.
    """
    with without_pixel_limit():
        image = Image.open(io.BytesIO(data), formats=[kind])
    info = image.info
    header = tiff_header(info.get("exif"))
    samples, alpha = split_alpha(np.asarray(image))
    exif, exif_changed = without_exif_previews(header or b"")
    xmp, xmp_changed = without_xmp_previews(info.get("xmp") or b"")
    notes = ((EXIF_NOTE, exif_changed), (XMP_NOTE, xmp_changed))
    return Picture(
        format=kind,
        samples=samples,
        alpha=alpha,
        bit_depth=8,
        orientation=exif_orientation(header),
        profile=profile_from_icc(info.get("icc_profile"), samples.shape[-1]),
        icc=info.get("icc_profile"),
        exif=exif or None,
        xmp=xmp or None,
        container=data,
        notes=tuple(note for note, changed in notes if changed),
    )
