"""Removing the small uncloaked copies that cameras and editors hide in metadata.

A cloaked photo whose EXIF thumbnail shows the uncloaked face protects nobody. Previews are blanked
in place with zeros (or spaces), so that every other byte and offset stays what it was.
"""

from __future__ import annotations

import re
import struct

from PIL import Image

EXIF_NOTE = "the EXIF preview was removed: it showed the uncloaked photo"
XMP_NOTE = "the XMP preview was removed: it showed the uncloaked photo"

_JPEG_START = re.compile(rb"\xff\xd8\xff[\xc0-\xcf\xdb-\xfe]")
_PNG_START = b"\x89PNG\r\n\x1a\n"
# JPEG and PNG in base64 always start so; XML may break their lines with character references.
_BASE64_PICTURE = re.compile(rb"(?:/9j/|iVBORw0KGgo)[A-Za-z0-9+/=\s&#;]{256,}")


def without_exif_previews(exif: bytes) -> tuple[bytes, bool]:
    """Blank thumbnails and maker-note previews in an EXIF block.

    Args:
        exif: block starting at its TIFF header ("II*" or "MM").

    Returns:
        The block, of the same length, and whether anything was removed.
    """
    block = bytearray(exif)
    try:
        _unlink_thumbnail(block)
    except struct.error:  # a damaged block is kept byte for byte; its streams are still blanked
        block = bytearray(exif)
    blank_jpeg_streams(block)
    return bytes(block), bytes(block) != exif


def without_xmp_previews(xmp: bytes) -> tuple[bytes, bool]:
    """Blank base64 JPEGs and PNGs in an XMP packet (or any text) with spaces; same length."""
    cleaned = _BASE64_PICTURE.sub(lambda match: b" " * len(match[0]), xmp)
    return cleaned, cleaned != xmp


def holds_picture(block: bytes) -> bool:
    """Whether a JPEG or a PNG starts somewhere in a block."""
    return _PNG_START in block or _JPEG_START.search(block) is not None


def blank_jpeg_streams(block: bytearray) -> bool:
    """Overwrite every embedded JPEG of a block with zeros; returns whether there was one."""
    found = False
    match = _JPEG_START.search(block)
    while match:
        following = _JPEG_START.search(block, match.end())
        limit = following.start() if following else len(block)
        end = block.rfind(b"\xff\xd9", match.end(), limit)
        stop = end + 2 if end >= 0 else limit
        block[match.start() : stop] = bytes(stop - match.start())
        found = True
        match = _JPEG_START.search(block, stop)
    return found


def without_photoshop_thumbnails(block: bytes) -> bytes:
    """Drop image resources 1033 and 1036 (thumbnails) from an APP13 Photoshop block.

    Args:
        block: starting with "Photoshop 3.0" and a zero byte.
    """
    position = 14
    kept = [block[:position]]
    while block[position : position + 4] == b"8BIM" and position + 12 <= len(block):
        (resource,) = struct.unpack_from(">H", block, position + 4)
        name = 1 + block[position + 6]
        start = position + 6 + name + name % 2
        if start + 4 > len(block):
            break
        (size,) = struct.unpack_from(">I", block, start)
        end = start + 4 + size + size % 2
        if resource not in (1033, 1036):
            kept.append(block[position:end])
        position = end
    kept.append(block[position:])
    return b"".join(kept)


def exif_orientation(exif: bytes | None) -> int:
    """Orientation 1..8 of an EXIF block; 1 where it is missing or damaged.

    Viewers turn photos by EXIF (or the container) only, so an orientation in XMP does not count.
    """
    if not exif:
        return 1
    parsed = Image.Exif()
    try:
        parsed.load(exif)
        value = parsed.get(0x0112, 1)
    except Exception:  # noqa: BLE001 - EXIF in the wild is damaged in every possible way
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def tiff_header(exif: bytes | None) -> bytes | None:
    """An EXIF block without the "Exif" prefix that some containers keep."""
    if not exif:
        return None
    return exif[6:] if exif[:6] == b"Exif\x00\x00" else exif


def _unlink_thumbnail(block: bytearray) -> None:
    """Cut the link from the first directory to the thumbnail's, and blank the thumbnail."""
    order = {b"II": "<", b"MM": ">"}.get(bytes(block[:2]))
    if order is None:
        return
    (first,) = struct.unpack_from(order + "I", block, 4)
    (count,) = struct.unpack_from(order + "H", block, first)
    link = first + 2 + 12 * count
    if link + 4 > len(block):
        return
    (second,) = struct.unpack_from(order + "I", block, link)
    if second == 0 or second + 2 > len(block):
        return
    (count,) = struct.unpack_from(order + "H", block, second)
    found: dict[int, int] = {}
    for i in range(count):
        tag, _, _, value = struct.unpack_from(order + "HHII", block, second + 2 + 12 * i)
        found[tag] = value
    # 0x0201/0x0202: a JPEG thumbnail; 0x0111/0x0117: strips of an uncompressed one
    for where, length in ((0x0201, 0x0202), (0x0111, 0x0117)):
        start, size = found.get(where, 0), found.get(length, 0)
        if start and start + size <= len(block):
            block[start : start + size] = bytes(size)
    struct.pack_into(order + "I", block, link, 0)
