"""TIFF: the original file with its pixel data exchanged, so that every tag stays what it was."""

from __future__ import annotations

import io
import zlib
from collections.abc import Iterator
from typing import Any, final

import imagecodecs
import numpy as np
import tifffile

from anti_i2v_lit.checks import PhotoFailure
from anti_i2v_lit.data.codecs.base import Codec, OutputConfig, refuse_pillow_mode
from anti_i2v_lit.data.colour_profile import profile_from_icc
from anti_i2v_lit.data.picture import Picture, Samples, split_alpha
from anti_i2v_lit.data.previews import blank_jpeg_streams, without_xmp_previews

_NONE, _LZW, _DEFLATES, _PACKBITS = 1, 5, (8, 32946), 32773
_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB = 0, 1, 2
_LAYERS_TAG = 37724
_PREVIEW_NOTE = "a preview inside the TIFF was removed: it showed the uncloaked photo"


@final
class TiffCodec(Codec):
    """TIFF and BigTIFF, one page, grey or RGB with or without alpha, 8 or 16 bit."""

    format = "TIFF"

    def _size(self, data: bytes) -> tuple[int, int]:
        with tifffile.TiffFile(io.BytesIO(data)) as tiff:
            page = _only_page(tiff)
            return page.imagewidth, page.imagelength

    def _decode(self, data: bytes) -> Picture:
        with tifffile.TiffFile(io.BytesIO(data)) as tiff:
            page = _only_page(tiff)
            _check_kind(page, data)
            samples, alpha = split_alpha(_pixels(page))
            if samples.shape[-1] not in (1, 3):
                raise PhotoFailure(f"a TIFF of {page.samplesperpixel} channels is not handled")
            if alpha is not None and 1 in page.extrasamples and alpha.min() < page_maximum(page):
                raise PhotoFailure(
                    "colours multiplied by transparency (associated alpha) cannot be changed "
                    "within a budget; save the photo with unassociated alpha or flatten it"
                )
            if page.photometric == _WHITE_IS_ZERO:
                samples = page_maximum(page) - samples
            icc, xmp = _bytes_tag(page, 34675), _bytes_tag(page, 700)
            orientation = page.tags.valueof("Orientation", 1)
            _, previews = _cleaned(data, page)
        return Picture(
            format=self.format,
            samples=samples,
            alpha=alpha,
            bit_depth=samples.dtype.itemsize * 8,
            orientation=orientation if orientation in range(1, 9) else 1,
            profile=profile_from_icc(icc, samples.shape[-1]),
            icc=icc,
            xmp=without_xmp_previews(xmp)[0] if xmp else None,
            container=data,
            notes=(_PREVIEW_NOTE,) if previews else (),
        )

    def _encode(self, picture: Picture, config: OutputConfig) -> bytes:
        with tifffile.TiffFile(io.BytesIO(picture.container)) as tiff:
            page = _only_page(tiff)
            if page.photometric == _WHITE_IS_ZERO:
                inverted = page_maximum(page) - picture.samples
                pixels = inverted if picture.alpha is None else np.dstack([inverted, picture.alpha])
            else:
                pixels = picture.interleaved()
            packed = [
                _compressed(segment, page, config.png_level) for segment in _segments(pixels, page)
            ]
            file, _ = _cleaned(picture.container, page)
            offsets = _placed(file, packed, page)
        return _with_offsets(bytes(file), offsets, [len(p) for p in packed])


def page_maximum(page: tifffile.TiffPage) -> Any:
    """Largest sample value, in the type of the samples."""
    return np.iinfo(np.uint8 if page.bitspersample == 8 else np.uint16).max


def _only_page(tiff: tifffile.TiffFile) -> tifffile.TiffPage:
    if len(tiff.pages) != 1:
        raise PhotoFailure(
            f"a TIFF of {len(tiff.pages)} pages: its other pages or previews would stay "
            "uncloaked; save the photo as a single page"
        )
    page = tiff.pages[0]
    assert isinstance(page, tifffile.TiffPage)
    return page


def _check_kind(page: tifffile.TiffPage, data: bytes) -> None:
    modes = {5: "CMYK", 3: "P", 8: "LAB", 9: "LAB"}
    if page.photometric in modes:
        raise refuse_pillow_mode(modes[page.photometric])
    if page.photometric not in (_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB):
        raise PhotoFailure(f"a TIFF of kind {page.photometric!r} is not handled; save it as RGB")
    if page.bitspersample not in (8, 16) or page.sampleformat != 1:
        raise PhotoFailure(f"TIFF samples of type {page.dtype} are not handled; 8 or 16 bit are")
    if page.compression not in (_NONE, _LZW, *_DEFLATES, _PACKBITS):
        raise PhotoFailure(
            f"TIFF compression {page.compression!r} is not handled; save the photo uncompressed "
            "or with LZW or ZIP"
        )
    if page.predictor not in (1, 2) or page.fillorder != 1 or page.imagedepth != 1:
        raise PhotoFailure("an uncommon TIFF layout (predictor, fill order or depth)")
    if _LAYERS_TAG in page.tags or 330 in page.tags:
        raise PhotoFailure(
            "the TIFF holds layers or smaller versions that would stay uncloaked; flatten it"
        )
    if any(o + n > len(data) for o, n in zip(page.dataoffsets, page.databytecounts, strict=True)):
        raise PhotoFailure("damaged or truncated TIFF file (pixel data is cut off)")


def _pixels(page: tifffile.TiffPage) -> Samples:
    array = page.asarray()
    if page.planarconfig == 2 and array.ndim == 3:
        array = np.moveaxis(array, 0, -1)
    if array.ndim == 2:
        array = array[..., None]
    native = array.dtype.newbyteorder("=")
    return np.ascontiguousarray(array, dtype=native)


def _bytes_tag(page: tifffile.TiffPage, code: int) -> bytes | None:
    value = page.tags.valueof(code)
    return bytes(value) if isinstance(value, bytes | tuple) and value else None


def _segments(pixels: Samples, page: tifffile.TiffPage) -> Iterator[Samples]:
    """The strips or tiles of a picture [h, w, C] in the order of the file."""
    planes = np.split(pixels, pixels.shape[-1], -1) if page.planarconfig == 2 else [pixels]
    height, width = pixels.shape[:2]
    rows = page.tilelength if page.is_tiled else min(page.rowsperstrip, height)
    columns = page.tilewidth if page.is_tiled else width
    for plane in planes:
        for top in range(0, height, rows):
            for left in range(0, width, columns):
                part = plane[top : top + rows, left : left + columns]
                if page.is_tiled:  # tiles at the border are stored whole
                    missing = ((0, rows - part.shape[0]), (0, columns - part.shape[1]), (0, 0))
                    part = np.pad(part, missing, mode="edge")
                yield part


def _compressed(segment: Samples, page: tifffile.TiffPage, level: int) -> bytes:
    if page.predictor == 2:
        previous = np.zeros_like(segment)
        previous[:, 1:] = segment[:, :-1]
        segment = segment - previous  # wraps around, as TIFF 6.0 section 14 has it
    order = page.parent.byteorder
    raw = np.ascontiguousarray(segment, dtype=segment.dtype.newbyteorder(order))
    if page.compression == _NONE:
        return raw.tobytes()
    if page.compression == _LZW:
        return bytes(imagecodecs.lzw_encode(raw.tobytes()))
    if page.compression == _PACKBITS:
        return b"".join(bytes(imagecodecs.packbits_encode(row.tobytes())) for row in raw)
    return zlib.compress(raw.tobytes(), level)


def _cleaned(data: bytes, page: tifffile.TiffPage) -> tuple[bytearray, bool]:
    """The file without its pixels and previews, so that nothing uncloaked is left.

    Returns:
        The file, zeroed in those places, and whether it held previews.
    """
    file = bytearray(data)
    for offset, count in zip(page.dataoffsets, page.databytecounts, strict=True):
        file[offset : offset + count] = bytes(count)
    streams = blank_jpeg_streams(file)
    cleaned, in_xmp = without_xmp_previews(bytes(file))
    return bytearray(cleaned), streams or in_xmp


def _placed(file: bytearray, packed: list[bytes], page: tifffile.TiffPage) -> list[int]:
    """Write the new pixel data over the old, and at the end what no longer fits; offsets."""
    holes = _holes(page)
    offsets = []
    for piece in packed:
        while holes and holes[0][1] - holes[0][0] < len(piece):
            holes.pop(0)
        if holes:
            start, end = holes[0]
            file[start : start + len(piece)] = piece
            holes[0] = (start + len(piece) + len(piece) % 2, end)
        else:
            file.extend(b"\x00" * (len(file) % 2))
            start = len(file)
            file.extend(piece)
        offsets.append(start)
    return offsets


def _holes(page: tifffile.TiffPage) -> list[tuple[int, int]]:
    """Old pixel data as merged [start, end) ranges in file order."""
    merged: list[tuple[int, int]] = []
    for offset, count in sorted(zip(page.dataoffsets, page.databytecounts, strict=True)):
        if merged and offset <= merged[-1][1] + 1:
            merged[-1] = (merged[-1][0], max(merged[-1][1], offset + count))
        else:
            merged.append((offset, offset + count))
    return merged


def _with_offsets(file: bytes, offsets: list[int], counts: list[int]) -> bytes:
    """Point the page's tags at the new pixel data."""
    buffer = io.BytesIO(file)
    with tifffile.TiffFile(buffer, mode="r+") as tiff:
        tags = _only_page(tiff).tags
        for names, values in (
            (("TileOffsets", "StripOffsets"), offsets),
            (("TileByteCounts", "StripByteCounts"), counts),
        ):
            tag = next((tags[name] for name in names if name in tags), None)
            if tag is None:
                raise PhotoFailure("an uncommon TIFF layout (no table of pixel data)")
            values_tuple = tuple(values)
            if tag.value != values_tuple:
                small = tag.dtype == 3 and max(values) < 65536
                wide = 16 if tiff.is_bigtiff else 4
                tag.overwrite(values_tuple, dtype=3 if small else wide)
        return buffer.getvalue()
