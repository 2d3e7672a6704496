"""HEIC/HEIF by pillow-heif: 8, 10 and 12 bit, full colour resolution."""

from __future__ import annotations

import io
from typing import Any, final

import numpy as np
import pillow_heif

from anti_i2v_lit.checks import PhotoFailure
from anti_i2v_lit.data.codecs.base import Codec, OutputConfig
from anti_i2v_lit.data.colour_profile import ColourProfile, profile_from_icc
from anti_i2v_lit.data.picture import Picture, split_alpha, to_stored
from anti_i2v_lit.data.previews import (
    EXIF_NOTE,
    XMP_NOTE,
    exif_orientation,
    tiff_header,
    without_exif_previews,
    without_xmp_previews,
)

# A third of the default preset's time for a quarter more bytes, at the same error.
_PRESET = "ultrafast"
_NCLX = ("color_primaries", "transfer_characteristics")


@final
class HeifCodec(Codec):
    """HEIC/HEIF, the primary picture; libheif decodes it turned upright.

    EXIF stays byte for byte. So the samples are turned back by its orientation tag, and the
    writer stores the same turn in the container: a viewer that follows the container and one
    that follows EXIF both show the photo upright.
    """

    format = "HEIF"

    def _size(self, data: bytes) -> tuple[int, int]:
        if data[8:12] in (b"msf1", b"hevc", b"hevx"):
            raise PhotoFailure("a HEIF sequence: only still photos are cloaked")
        width, height = _primary(data).size
        return width, height

    def _decode(self, data: bytes) -> Picture:
        image = _primary(data)
        mode, _, suffix = image.mode.partition(";")
        mode = "L" if mode == "I" else mode  # pillow-heif's name for deep grey
        if mode not in ("L", "RGB", "RGBA"):
            raise PhotoFailure(f"HEIF pixels of kind {image.mode} are not handled")
        depth = int(suffix or 8)
        info, notes = image.info, []
        exif, removed = without_exif_previews(tiff_header(info.get("exif")) or b"")
        notes += [EXIF_NOTE] if removed else []
        xmp, removed = without_xmp_previews((info.get("xmp") or b"").rstrip(b"\x00"))
        notes += [XMP_NOTE] if removed else []
        notes += _left_out(info)
        orientation = exif_orientation(exif)
        samples, alpha = split_alpha(to_stored(np.asarray(image), orientation))
        icc = info.get("icc_profile") or None
        return Picture(
            format=self.format,
            samples=samples,
            alpha=alpha,
            bit_depth=depth,
            orientation=orientation,
            profile=_profile(info, icc, samples.shape[-1]),
            icc=icc,
            exif=exif or None,
            xmp=xmp or None,
            container=data,
            notes=tuple(notes),
        )

    def _encode(self, picture: Picture, config: OutputConfig) -> bytes:
        pixels = picture.interleaved()
        height, width, channels = pixels.shape
        mode = {1: "L", 3: "RGB", 4: "RGBA"}[channels]
        mode += f";{picture.bit_depth}" if picture.bit_depth > 8 else ""
        image = pillow_heif.from_bytes(mode=mode, size=(width, height), data=pixels.tobytes())
        settings: dict[str, Any] = {}
        if picture.icc:
            settings["icc_profile"] = picture.icc
        quality = config.heif_quality
        if picture.alpha is not None:
            # one quality serves colour and alpha, and alpha must come back exactly: lossless
            quality, settings["matrix_coefficients"] = -1, 0
        buffer = io.BytesIO()
        image.save(
            buffer,
            quality=quality,
            subsampling=config.chroma if picture.alpha is None else "4:4:4",
            enc_params={"preset": _PRESET},
            exif=b"Exif\x00\x00" + picture.exif if picture.exif else None,
            xmp=picture.xmp,
            save_nclx_profile=picture.icc is None,
            **settings,
        )
        return buffer.getvalue()


def _primary(data: bytes) -> Any:
    opened = pillow_heif.open_heif(data, convert_hdr_to_8bit=False, hdr_to_16bit=False)
    return opened[opened.primary_index]


def _left_out(info: dict[str, Any]) -> list[str]:
    notes = []
    if info.get("thumbnails"):
        notes.append("the HEIF thumbnail was removed: it showed the uncloaked photo")
    if info.get("aux") or info.get("depth_images"):
        notes.append("auxiliary pictures (depth, HDR gain map) were left out")
    return notes


def _profile(info: dict[str, Any], icc: bytes | None, channels: int) -> ColourProfile:
    coded = info.get("nclx_profile")
    if icc is None and coded:
        primaries, transfer = (int(coded[name]) for name in _NCLX)
        if primaries not in (1, 2, 5, 6) or transfer in (16, 18):
            raise PhotoFailure(
                "a HEIF file in a wide or HDR colour space without an ICC profile: its colours "
                "would change; export it as JPEG, PNG or TIFF with its profile"
            )
    return profile_from_icc(icc, channels)
