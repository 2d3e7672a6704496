"""PNG: pixels by libpng (imagecodecs, 8 and 16 bit), every other chunk copied as it is."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from typing import final

import imagecodecs
import numpy as np

from anti_i2v_lit.checks import PhotoFailure
from anti_i2v_lit.data.codecs.base import Codec, OutputConfig, refuse_pillow_mode
from anti_i2v_lit.data.colour_profile import (
    ColourProfile,
    profile_from_chromaticities,
    profile_from_icc,
    srgb_profile,
)
from anti_i2v_lit.data.picture import Picture, split_alpha
from anti_i2v_lit.data.previews import (
    EXIF_NOTE,
    XMP_NOTE,
    exif_orientation,
    holds_picture,
    tiff_header,
    without_exif_previews,
    without_xmp_previews,
)

Chunk = tuple[bytes, bytes]  # name and payload

SIGNATURE = b"\x89PNG\r\n\x1a\n"
_XMP_KEYWORD = b"XML:com.adobe.xmp\x00"
_FIREWORKS = (b"prVW", b"mkBF", b"mkTS", b"mkBS", b"mkBT")  # its preview and its layers
_MAX_TEXT = 1 << 24  # bytes that a compressed chunk may expand to
_SRGB_PRIMARIES = ((0.64, 0.33), (0.30, 0.60), (0.15, 0.06))
_P3_PRIMARIES = ((0.68, 0.32), (0.265, 0.69), (0.15, 0.06))
_D65 = (0.3127, 0.3290)


@final
class PngCodec(Codec):
    """PNG, grey or RGB with or without alpha, 8 or 16 bit."""

    format = "PNG"

    def _size(self, data: bytes) -> tuple[int, int]:
        width, height = struct.unpack_from(">II", data, 16)
        return width, height

    def _decode(self, data: bytes) -> Picture:
        found = list(chunks(data))
        names = [name for name, _ in found]
        header = found[0][1]
        depth, kind = header[8], header[9]
        if kind == 3:
            raise refuse_pillow_mode("P")
        if depth < 8:
            raise refuse_pillow_mode("1" if depth == 1 else f"grey with {depth} bits")
        if b"acTL" in names and _frames(found) > 1:
            raise PhotoFailure("an animated PNG: only still photos are cloaked")
        channels = 3 if kind in (2, 6) else 1
        plain = [c for c in found if c[0] in (b"IHDR", b"IDAT", b"IEND")]
        samples, alpha = split_alpha(imagecodecs.png_decode(assembled(plain)))
        kept, notes = _kept_chunks(found)
        icc, exif, xmp = _icc(found), _find(kept, b"eXIf"), _xmp(kept)
        return Picture(
            format=self.format,
            samples=samples,
            alpha=alpha,
            bit_depth=depth,
            orientation=_orientation(exif, xmp, kept),
            profile=_profile(found, icc, channels),
            icc=icc,
            exif=tiff_header(exif),
            xmp=xmp,
            colour_key=_colour_key(found, channels),
            container=data,
            notes=tuple(dict.fromkeys(notes)),
        )

    def _encode(self, picture: Picture, config: OutputConfig) -> bytes:
        kept, _ = _kept_chunks(list(chunks(picture.container)))
        return encode_png(picture, kept, config.png_level)


def encode_png(picture: Picture, kept: list[Chunk], level: int) -> bytes:
    """A PNG of the samples with these ancillary chunks in their places around the pixels."""
    encoded = list(chunks(bytes(imagecodecs.png_encode(picture.interleaved(), level=level))))
    pixels = [c for c in encoded if c[0] == b"IDAT"]
    split = next((i for i, c in enumerate(kept) if c[0] == b"IDAT"), len(kept))
    before, after = kept[:split], [c for c in kept[split:] if c[0] != b"IDAT"]
    return assembled([encoded[0], *before, *pixels, *after, encoded[-1]])


def chunks(data: bytes) -> Iterator[Chunk]:
    """Chunks of a PNG up to IEND.

    Raises:
        PhotoFailure: a truncated chunk, or a wrong checksum of one that pixels depend on.
    """
    position = len(SIGNATURE)
    while True:
        if position + 12 > len(data):
            raise PhotoFailure("damaged or truncated PNG file (it ends before its last chunk)")
        length, name = struct.unpack_from(">I4s", data, position)
        payload = data[position + 8 : position + 8 + length]
        if len(payload) < length or position + 12 + length > len(data):
            raise PhotoFailure("damaged or truncated PNG file (a chunk is cut off)")
        (checksum,) = struct.unpack_from(">I", data, position + 8 + length)
        if name[:1].isupper() and checksum != zlib.crc32(payload, zlib.crc32(name)):
            raise PhotoFailure(f"damaged PNG file (wrong checksum in {name!r})")
        yield name, payload
        if name == b"IEND":
            return
        position += 12 + length


def assembled(parts: list[Chunk]) -> bytes:
    """A PNG file from its chunks."""
    pieces = [SIGNATURE]
    for name, payload in parts:
        checksum = zlib.crc32(payload, zlib.crc32(name))
        pieces += [struct.pack(">I4s", len(payload), name), payload, struct.pack(">I", checksum)]
    return b"".join(pieces)


def _kept_chunks(found: list[Chunk]) -> tuple[list[Chunk], list[str]]:
    """Everything but pixels and previews; one empty IDAT marks where the pixels go."""
    kept: list[Chunk] = []
    notes: list[str] = []
    for name, payload in found:
        if name == b"IDAT":
            if (name, b"") not in kept:
                kept.append((name, b""))
            continue
        # iDOT points into the old pixel data; animation chunks describe a single frame here
        if name in (b"IHDR", b"IEND", b"iDOT", b"acTL", b"fcTL", b"fdAT", b"dSIG"):
            continue
        if name == b"caBX":
            notes.append("content credentials (C2PA) were left out: they sign the uncloaked pixels")
            continue
        cleaned, note = _cleaned(name, payload)
        notes += [note] if note else []
        if cleaned is not None:
            kept.append((name, cleaned))
    return kept, notes


def _cleaned(name: bytes, payload: bytes) -> tuple[bytes | None, str]:
    if name == b"eXIf":
        block, removed = without_exif_previews(payload)
        return block, EXIF_NOTE if removed else ""
    if name in (b"tEXt", b"zTXt") and payload.startswith(b"Raw profile type "):
        raw = _raw_profile(name, payload)
        if without_exif_previews(raw)[1] or without_xmp_previews(raw)[1]:
            return None, EXIF_NOTE
    if name in (b"tEXt", b"iTXt"):
        return _cleaned_text(name, payload)
    if name in _FIREWORKS or (name not in (b"iCCP", b"zTXt") and holds_picture(payload)):
        return None, f"a picture in the chunk {name.decode('latin-1')} was left out"
    return payload, ""


def _cleaned_text(name: bytes, payload: bytes) -> tuple[bytes, str]:
    """Text without base64 pictures; compressed text is opened only if it is XMP."""
    start = len(_XMP_KEYWORD)
    if name == b"iTXt" and payload.startswith(_XMP_KEYWORD) and payload[start : start + 1] == b"\1":
        packed = payload[start + 2 :].split(b"\x00", 2)[-1]
        packet, removed = without_xmp_previews(_inflated(packed))
        if not removed:
            return payload, ""
        return payload[: len(payload) - len(packed)] + zlib.compress(packet, 9), XMP_NOTE
    packet, removed = without_xmp_previews(payload)
    return packet, XMP_NOTE if removed else ""


def _raw_profile(name: bytes, payload: bytes) -> bytes:
    """EXIF or IPTC that ImageMagick writes as hexadecimal text; empty if it is not readable."""
    text = payload.partition(b"\x00")[2]
    try:
        if name == b"zTXt":
            text = _inflated(text[1:])
        raw = bytes.fromhex(b"".join(text.split(b"\n")[3:]).decode("ascii"))
    except (ValueError, zlib.error):
        return b""
    return tiff_header(raw) or b""


def _inflated(data: bytes) -> bytes:
    unpacker = zlib.decompressobj()
    result = unpacker.decompress(data, _MAX_TEXT)
    if unpacker.unconsumed_tail:
        raise PhotoFailure("a compressed PNG chunk expands to an absurd size")
    return result


def _find(found: list[Chunk], name: bytes) -> bytes | None:
    return next((payload for n, payload in found if n == name), None)


def _frames(found: list[Chunk]) -> int:
    control = _find(found, b"acTL") or b""
    return int(struct.unpack_from(">I", control)[0])


def _icc(found: list[Chunk]) -> bytes | None:
    payload = _find(found, b"iCCP")
    if payload is None:
        return None
    return _inflated(payload.partition(b"\x00")[2][1:])


def _xmp(found: list[Chunk]) -> bytes | None:
    for name, payload in found:
        if name == b"iTXt" and payload.startswith(_XMP_KEYWORD):
            compressed, rest = payload[len(_XMP_KEYWORD)], payload[len(_XMP_KEYWORD) + 2 :]
            text = rest.split(b"\x00", 2)[2]
            return _inflated(text) if compressed else text
    return None


def _orientation(exif: bytes | None, xmp: bytes | None, kept: list[Chunk]) -> int:
    """From eXIf, else ImageMagick's raw profile; XMP alone does not turn a PNG in viewers."""
    if exif:
        return exif_orientation(exif)
    for name, payload in kept:
        if payload.startswith(b"Raw profile type exif"):
            return exif_orientation(_raw_profile(name, payload))
    return 1


def _colour_key(found: list[Chunk], channels: int) -> tuple[int, ...] | None:
    payload = _find(found, b"tRNS")
    return struct.unpack_from(f">{channels}H", payload) if payload else None


def _profile(found: list[Chunk], icc: bytes | None, channels: int) -> ColourProfile:
    """Order of precedence of PNG 3: cICP, iCCP, sRGB, then gAMA with cHRM."""
    coded = _find(found, b"cICP")
    if coded is not None:
        return _coded_profile(coded, channels)
    if icc is not None:
        return profile_from_icc(icc, channels)
    gamma = _find(found, b"gAMA")
    if _find(found, b"sRGB") is not None or gamma is None or channels == 1:
        return srgb_profile(channels)
    primaries = _find(found, b"cHRM")
    values = (31270, 32900, 64000, 33000, 30000, 60000, 15000, 6000)
    points = np.array(struct.unpack_from(">8I", primaries) if primaries else values) / 1e5
    white, *rgb = [(float(x), float(y)) for x, y in points.reshape(4, 2)]
    return profile_from_chromaticities(struct.unpack(">I", gamma)[0] / 1e5, white, tuple(rgb))


def _coded_profile(coded: bytes, channels: int) -> ColourProfile:
    primaries, transfer = coded[0], coded[1]
    if transfer in (16, 18):
        raise PhotoFailure("an HDR picture (PQ or HLG): only standard dynamic range is cloaked")
    if channels == 1 or primaries not in (1, 12):
        return srgb_profile(channels)
    known = _SRGB_PRIMARIES if primaries == 1 else _P3_PRIMARIES
    return profile_from_chromaticities(1 / 2.2, _D65, known)
