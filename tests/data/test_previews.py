"""No uncloaked copy may be left in the metadata."""

import base64
import io
import struct
import zlib

import numpy as np
import piexif
import pytest
import tifffile
from PIL import Image, ImageCms

from anti_i2v_lit.data.codecs.png import assembled, chunks
from anti_i2v_lit.data.previews import (
    exif_orientation,
    without_exif_previews,
    without_xmp_previews,
)


def thumbnail(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).resize((32, 32)).save(buffer, "JPEG")
    return buffer.getvalue()


def test_exif_thumbnail_and_maker_note_preview_are_gone_and_the_rest_stays(
    tmp_path, pixels, read, rewritten
):
    small = thumbnail(pixels)
    tags = {
        "0th": {piexif.ImageIFD.Make: b"Maker", piexif.ImageIFD.Orientation: 6},
        "Exif": {
            piexif.ExifIFD.MakerNote: b"before" + small + b"after",
            piexif.ExifIFD.LensModel: b"lens",
        },
        "GPS": {piexif.GPSIFD.GPSMapDatum: b"WGS-84"},
        "1st": {piexif.ImageIFD.Compression: 6},
        "thumbnail": small,
    }
    Image.fromarray(pixels).save(tmp_path / "p.jpg", exif=piexif.dump(tags))
    assert (tmp_path / "p.jpg").read_bytes().count(b"\xff\xd8\xff") == 3
    photo = read(tmp_path / "p.jpg")
    assert any("EXIF preview" in note for note in photo.notes)
    _, written = rewritten(photo)
    assert written.read_bytes().count(b"\xff\xd8\xff") == 1
    found = piexif.load(str(written))
    assert found["thumbnail"] is None
    note = found["Exif"][piexif.ExifIFD.MakerNote]
    assert note == b"before" + bytes(len(small)) + b"after"
    assert found["Exif"][piexif.ExifIFD.LensModel] == b"lens"
    assert found["GPS"][piexif.GPSIFD.GPSMapDatum] == b"WGS-84"
    assert found["0th"][piexif.ImageIFD.Orientation] == 6


@pytest.mark.parametrize("block", [b"", b"II*\0", b"MM\0*\xff\xff\xff\xff", b"II*\0\x08\0\0\0\xff"])
def test_damaged_exif_is_kept(block):
    assert without_exif_previews(block) == (block, False)
    assert exif_orientation(block) == 1


def test_an_uncompressed_thumbnail_is_blanked():
    strip = bytes(range(1, 49))
    second = struct.pack("<H", 2) + struct.pack("<HHII", 0x0111, 4, 1, 44)
    second += struct.pack("<HHII", 0x0117, 4, 1, len(strip)) + struct.pack("<I", 0)
    block = b"II*\0" + struct.pack("<I", 8) + struct.pack("<HI", 0, 14) + second + strip
    assert block.index(strip) == 44
    cleaned, removed = without_exif_previews(block)
    assert removed and strip not in cleaned and len(cleaned) == len(block)


def test_xmp_thumbnail(pixels):
    picture = base64.b64encode(thumbnail(pixels))
    lines = b"&#xA;".join(picture[i : i + 76] for i in range(0, len(picture), 76))
    packet = b"<a><xmpGImg:image>" + lines + b"</xmpGImg:image><b>kept</b></a>"
    cleaned, removed = without_xmp_previews(packet)
    assert removed and b"/9j/" not in cleaned and len(cleaned) == len(packet)
    assert cleaned.endswith(b"</xmpGImg:image><b>kept</b></a>")
    assert without_xmp_previews(b"<a/>") == (b"<a/>", False)


def test_photoshop_thumbnail_is_dropped_and_iptc_kept(tmp_path, pixels, read, rewritten):
    def resource(number: int, data: bytes) -> bytes:
        padded = data + b"\0" * (len(data) % 2)
        return b"8BIM" + struct.pack(">H", number) + b"\0\0" + struct.pack(">I", len(data)) + padded

    iptc, preview = resource(0x0404, b"\x1c\x02\x05\0\3abc"), resource(1036, thumbnail(pixels))
    payload = b"Photoshop 3.0\x00" + preview + iptc
    Image.fromarray(pixels).save(tmp_path / "p.jpg")
    data = (tmp_path / "p.jpg").read_bytes()
    segment = b"\xff\xed" + struct.pack(">H", len(payload) + 2) + payload
    (tmp_path / "p.jpg").write_bytes(data[:2] + segment + data[2:])
    _, written = rewritten(read(tmp_path / "p.jpg"))
    data = written.read_bytes()
    assert b"Photoshop 3.0\x00" + iptc in data and data.count(b"\xff\xd8\xff") == 1


def test_pictures_appended_to_a_jpeg_are_left_out(tmp_path, pixels, read, rewritten):
    Image.fromarray(pixels).save(tmp_path / "p.jpg", progressive=True)
    with (tmp_path / "p.jpg").open("ab") as file:
        file.write(b"\0\0\0\x18ftypmp42 a motion photo")
    photo = read(tmp_path / "p.jpg")
    assert any("after the end" in note for note in photo.notes)
    assert b"ftyp" not in rewritten(photo)[1].read_bytes()
    Image.fromarray(pixels).save(tmp_path / "q.jpg", progressive=True)
    assert read(tmp_path / "q.jpg").notes == ()


def test_previews_inside_a_tiff_are_blanked(tmp_path, pixels, read, rewritten):
    small = thumbnail(pixels)
    xmp = b"<a>" + base64.b64encode(small) + b"</a>"
    extra = [(34377, 7, len(small), small, True), (700, 1, len(xmp), xmp, True)]
    tifffile.imwrite(tmp_path / "p.tif", pixels, photometric="rgb", extratags=extra)
    photo = read(tmp_path / "p.tif")
    assert any("preview" in note for note in photo.notes)
    again, written = rewritten(photo)
    data = written.read_bytes()
    assert b"\xff\xd8\xff" not in data and b"/9j/" not in data
    assert np.array_equal(again.picture.samples, pixels)


def test_makers_segments_with_a_picture_are_left_out_with_their_continuation(
    tmp_path, pixels, read, rewritten
):
    """A preview cut in two segments of a private kind; other private segments stay."""
    small = thumbnail(pixels)
    half = len(small) // 2
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    Image.fromarray(pixels).save(tmp_path / "p.jpg", icc_profile=profile)
    data = (tmp_path / "p.jpg").read_bytes()
    parts = [(0xE4, b"Prev\x00" + small[:half]), (0xE4, b"Prev\x01" + small[half:])]
    parts.append((0xE4, b"Note\x00a maker's note"))
    added = b"".join(b"\xff" + struct.pack(">BH", m, len(p) + 2) + p for m, p in parts)
    (tmp_path / "p.jpg").write_bytes(data[:2] + added + data[2:])
    photo = read(tmp_path / "p.jpg")
    assert any("maker's preview" in note for note in photo.notes)
    written = rewritten(photo)[1].read_bytes()
    assert b"Prev" not in written and small[half : half + 40] not in written
    assert b"Note\x00a maker's note" in written and b"ICC_PROFILE\x00" in written


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_a_preview_in_the_xmp_of_a_png(kind, compressed, tmp_path, pixels, read, rewritten):
    buffer = io.BytesIO()
    Image.fromarray(pixels).resize((32, 32)).save(buffer, kind)
    packet = b"<a><i>" + base64.b64encode(buffer.getvalue()) + b"</i><b>kept</b></a>"
    body = zlib.compress(packet) if compressed else packet
    chunk = (b"iTXt", b"XML:com.adobe.xmp\x00" + bytes([compressed]) + b"\0\0\0" + body)
    Image.fromarray(pixels).save(tmp_path / "p.png")
    head, *rest = chunks((tmp_path / "p.png").read_bytes())
    (tmp_path / "p.png").write_bytes(assembled([head, chunk, *rest]))
    photo = read(tmp_path / "p.png")
    assert any("XMP preview" in note for note in photo.notes)
    again, written = rewritten(photo)
    with Image.open(written) as image:
        found = image.info["xmp"]
        found = found.encode() if isinstance(found, str) else found
    assert b"<b>kept</b>" in found and b"/9j/" not in found and b"iVBOR" not in found
    assert np.array_equal(again.picture.samples, pixels)


def test_pictures_in_private_png_chunks_are_left_out(tmp_path, pixels, read, rewritten):
    Image.fromarray(pixels).save(tmp_path / "p.png")
    head, *rest = chunks((tmp_path / "p.png").read_bytes())
    added = [
        (b"prVW", (tmp_path / "p.png").read_bytes()),
        (b"mkBT", zlib.compress(pixels.tobytes())),
        (b"thMb", thumbnail(pixels)),
        (b"noTe", b"a private note"),
    ]
    (tmp_path / "p.png").write_bytes(assembled([head, *added, *rest]))
    written = rewritten(read(tmp_path / "p.png"))[1].read_bytes()
    names = [name for name, _ in chunks(written)]
    assert b"noTe" in names and not {b"prVW", b"mkBT", b"thMb"} & set(names)
