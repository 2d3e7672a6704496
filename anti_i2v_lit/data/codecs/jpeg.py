"""JPEG: pixels by Pillow, every metadata segment copied byte for byte from the original."""

from __future__ import annotations

import contextlib
import io
import re
import struct
from collections.abc import Iterator
from typing import final

import numpy as np
from PIL import Image, ImageFile

from anti_i2v_lit.checks import PhotoFailure
from anti_i2v_lit.data.codecs.base import (
    Codec,
    OutputConfig,
    refuse_pillow_mode,
)
from anti_i2v_lit.data.colour_profile import profile_from_icc
from anti_i2v_lit.data.picture import Picture
from anti_i2v_lit.data.previews import (
    EXIF_NOTE,
    XMP_NOTE,
    exif_orientation,
    holds_picture,
    tiff_header,
    without_exif_previews,
    without_photoshop_thumbnails,
    without_xmp_previews,
)
from anti_i2v_lit.ops.pixel_limit import without_pixel_limit

Segment = tuple[int, bytes]  # marker (0xE1 for APP1) and payload

_EXIF, _XMP = b"Exif\x00\x00", b"http://ns.adobe.com/xap/1.0/\x00"
_EXTENDED_XMP = b"http://ns.adobe.com/xmp/extension/\x00"
_FRAME_MARKERS = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_START_OF_SCAN = 0xDA
_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")  # ends a run of entropy-coded data
_DROPPED = {
    (0xE2, b"MPF\x00"): "further pictures inside the file (multi-picture) were left out",
    (0xE0, b"JFXX\x00"): "the JFIF thumbnail was removed: it showed the uncloaked photo",
    (0xEB, b"JP"): "content credentials (C2PA) were left out: they sign the uncloaked pixels",
    (0xE2, b"FPXR"): "the FlashPix block was left out: it can hold the uncloaked photo",
    (0xEE, b"Adobe"): "",  # describes the encoder's colour transform, not the photo
}


@final
class JpegCodec(Codec):
    """JPEG, 8 bit, grey or RGB; of multi-picture files the main picture."""

    format = "JPEG"

    def _size(self, data: bytes) -> tuple[int, int]:
        for marker, payload in segments(data):
            if marker in _FRAME_MARKERS:
                height, width = struct.unpack_from(">HH", payload, 1)
                return width, height
        raise PhotoFailure("damaged or truncated JPEG file (no frame header)")

    def _decode(self, data: bytes) -> Picture:
        with without_pixel_limit():
            image = Image.open(io.BytesIO(data), formats=["JPEG", "MPO"])
        if image.mode not in ("L", "RGB"):
            raise refuse_pillow_mode(image.mode)
        image.load()
        samples = np.asarray(image)
        if samples.ndim == 2:
            samples = samples[..., None]
        kept, notes = kept_segments(data)
        if data[_end_of_picture(data) :].strip(b"\x00"):
            notes.append("data after the end of the picture (video, burst) was left out")
        icc = image.info.get("icc_profile")
        return Picture(
            format=self.format,
            samples=samples,
            bit_depth=8,
            orientation=exif_orientation(_payload(kept, _EXIF)),
            profile=profile_from_icc(icc, samples.shape[-1]),
            icc=icc,
            exif=_payload(kept, _EXIF),
            xmp=_payload(kept, _XMP),
            container=data,
            notes=tuple(dict.fromkeys(notes)),
        )

    def _encode(self, picture: Picture, config: OutputConfig) -> bytes:
        encoded = encode_jpeg(picture, config)
        kept, _ = kept_segments(picture.container)
        own = [s for s in segments(encoded) if s[0] != 0xE0]
        parts = [b"\xff\xd8"]
        for marker, payload in [*kept, *own]:
            parts.append(struct.pack(">BBH", 0xFF, marker, len(payload) + 2) + payload)
        # `own` ends with the scan header; the entropy-coded data follows it in the file
        parts.append(encoded[_scan_data_start(encoded) :])
        return b"".join(parts)


def encode_jpeg(picture: Picture, config: OutputConfig) -> bytes:
    """Baseline or progressive (as the original) JPEG of the samples, without metadata.

    An original that was saved finer than the configured quality keeps its own tables.
    """
    samples = picture.samples[..., 0] if picture.samples.shape[-1] == 1 else picture.samples
    settings: dict[str, object] = {
        "quality": config.jpeg_quality,
        "subsampling": config.jpeg_subsampling,
        "optimize": True,
        "progressive": any(m == 0xC2 for m, _ in segments(picture.container)),
    }
    finer = _finer_tables(picture, config.jpeg_quality)
    if finer:
        del settings["quality"]
        settings["qtables"] = finer
    buffer = io.BytesIO()
    with _room_for(2 * samples.size + (1 << 16)):
        Image.fromarray(np.ascontiguousarray(samples)).save(buffer, "JPEG", **settings)
    return buffer.getvalue()


@contextlib.contextmanager
def _room_for(num_bytes: int) -> Iterator[None]:
    """Let Pillow hand libjpeg a buffer of this size.

    Optimised and progressive files are written in one piece, and Pillow's own estimate of their
    size is too small for noisy photos at 4:4:4 ("broken data stream when writing image file").
    """
    before = ImageFile.MAXBLOCK
    ImageFile.MAXBLOCK = max(before, num_bytes)
    try:
        yield
    finally:
        ImageFile.MAXBLOCK = before


def segments(data: bytes) -> list[Segment]:
    """Header segments of a JPEG up to and with the scan header, in file order."""
    return [(marker, payload) for _, marker, payload in _positioned_segments(data)]


def _positioned_segments(data: bytes) -> Iterator[tuple[int, int, bytes]]:
    """Position, marker and payload; bytes that are no marker are skipped, as libjpeg does."""
    position = 2
    while position + 4 <= len(data):
        marker = data[position + 1]
        if data[position] != 0xFF or marker in (0x00, 0xFF):
            position += 1
            continue
        if 0xD0 <= marker <= 0xD9 or marker == 0x01:  # stand-alone markers
            position += 2
            continue
        (length,) = struct.unpack_from(">H", data, position + 2)
        yield position, marker, data[position + 4 : position + 2 + length]
        if marker == _START_OF_SCAN:
            return
        position += 2 + length


def kept_segments(data: bytes) -> tuple[list[Segment], list[str]]:
    """Application and comment segments of the original, previews removed, and what was removed."""
    kept: list[Segment] = []
    notes: list[str] = []
    for marker, payload in segments(data):
        if not (0xE0 <= marker <= 0xEF or marker == 0xFE):
            continue
        reason = _reason_to_drop(marker, payload)
        if reason is not None:
            notes.append(reason)
            continue
        cleaned, note = _cleaned(marker, payload)
        kept.append((marker, cleaned))
        notes.append(note)
    for remove in (_without_extended_previews, _without_foreign_previews):
        kept, note = remove(kept)
        notes.append(note)
    return kept, [n for n in notes if n]


def _reason_to_drop(marker: int, payload: bytes) -> str | None:
    for (wanted, prefix), reason in _DROPPED.items():
        if marker == wanted and payload.startswith(prefix):
            return reason
    return None


def _cleaned(marker: int, payload: bytes) -> tuple[bytes, str]:
    if marker == 0xE1 and payload.startswith(_EXIF):
        block, removed = without_exif_previews(payload[6:])
        return _EXIF + block, EXIF_NOTE if removed else ""
    if marker == 0xE1 and payload.startswith(_XMP):
        packet, removed = without_xmp_previews(payload)
        return packet, XMP_NOTE if removed else ""
    if marker == 0xED and payload.startswith(b"Photoshop 3.0\x00"):
        block = without_photoshop_thumbnails(payload)
        return block, "the Photoshop preview was removed" if block != payload else ""
    if marker == 0xE0 and payload.startswith(b"JFIF\x00") and len(payload) > 14:
        return payload[:12] + b"\x00\x00", "the JFIF thumbnail was removed"
    return payload, ""


def _without_extended_previews(kept: list[Segment]) -> tuple[list[Segment], str]:
    """Extended XMP holds whole second pictures (depth, original); it goes if it has any."""
    joined = b"".join(p[75:] for _, p in kept if p.startswith(_EXTENDED_XMP))
    if not without_xmp_previews(joined)[1]:
        return kept, ""
    return [s for s in kept if not s[1].startswith(_EXTENDED_XMP)], XMP_NOTE


def _without_foreign_previews(kept: list[Segment]) -> tuple[list[Segment], str]:
    """Makers' own segments that hold a picture go, with all that continue them."""
    foreign = {
        (marker, payload[:4])
        for marker, payload in kept
        if marker != 0xFE and payload[:12] != b"ICC_PROFILE\x00" and holds_picture(payload)
    }
    if not foreign:
        return kept, ""
    left = [s for s in kept if (s[0], s[1][:4]) not in foreign]
    return left, "a maker's preview was removed: it showed the uncloaked photo"


def _payload(kept: list[Segment], prefix: bytes) -> bytes | None:
    found = next((p for _, p in kept if p.startswith(prefix)), None)
    if found is None:
        return None
    return tiff_header(found) if prefix == _EXIF else found[len(prefix) :]


def _end_of_picture(data: bytes) -> int:
    """Position after the end marker of the main picture (the file's length if there is none)."""
    position = _scan_data_start(data)
    while match := _MARKER.search(data, position):
        if data[match.start() + 1] == 0xD9:
            return match.end()
        length = int.from_bytes(data[match.end() : match.end() + 2], "big")
        position = match.end() + max(length, 2)
    return len(data)


def _scan_data_start(data: bytes) -> int:
    """Position of the first entropy-coded byte."""
    *_, (start, marker, payload) = _positioned_segments(data)
    assert marker == _START_OF_SCAN
    return start + 4 + len(payload)


def _finer_tables(picture: Picture, quality: int) -> dict[int, list[int]] | None:
    """The original's quantisation tables if they are nowhere coarser than the configured ones."""
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8)).save(buffer, "JPEG", quality=quality)
    ours = Image.open(buffer).quantization  # type: ignore[attr-defined]
    with without_pixel_limit():
        theirs = Image.open(io.BytesIO(picture.container)).quantization  # type: ignore[attr-defined]
    colour = max(k for k in ours)
    for i, table in theirs.items():
        limit = ours[min(i, colour)]
        if len(theirs) > 2 or any(t > o for t, o in zip(table, limit, strict=True)):
            return None
    return {i: list(table) for i, table in sorted(theirs.items())}
