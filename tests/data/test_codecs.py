"""Every format there and back: pixels, orientation, metadata, alpha, depth; files by others."""

import io
import struct
import zlib

import imagecodecs
import numpy as np
import pillow_heif
import pytest
import tifffile
import torch
from PIL import Image, ImageOps
from PIL.PngImagePlugin import PngInfo

from anti_i2v_lit.checks import PhotoFailure
from anti_i2v_lit.data.codecs import CODECS, FORMAT_SUFFIXES
from anti_i2v_lit.data.codecs.png import assembled, chunks
from anti_i2v_lit.data.picture import to_upright

EXIF_TAGS = {0x010F: "Maker", 0x0110: "Model", 0x0132: "2024:01:02 03:04:05"}
XMP = (
    b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-'
    b'syntax-ns#"><rdf:Description rdf:about="" xmlns:dc="http://purl.org/dc/elements/1.1/" '
    b'dc:format="image"/></rdf:RDF></x:xmpmeta>'
)
LOSSLESS = ["PNG", "WEBP", "TIFF"]
LOSSY = ["JPEG", "HEIF", "AVIF"]


def exif_block(orientation: int) -> bytes:
    exif = Image.Exif()
    exif.update(EXIF_TAGS)
    exif[0x0112] = orientation
    return exif.tobytes()


def made(folder, name, pixels, *, orientation=1, icc=None):
    """A photo with EXIF, XMP, DPI and a profile, written by Pillow or pillow-heif."""
    path = folder / f"photo{min(FORMAT_SUFFIXES[name])}"
    settings = {"icc_profile": icc} if icc else {}
    if name == "TIFF":
        settings["tiffinfo"] = {700: XMP, 0x0112: orientation, **EXIF_TAGS}
    else:
        settings["exif"] = exif_block(orientation)
    if name == "PNG":
        info = PngInfo()
        info.add_itxt("XML:com.adobe.xmp", XMP.decode())
        info.add_text("Author", "me")
        settings["pnginfo"] = info
    if name in ("JPEG", "WEBP", "AVIF", "HEIF"):
        settings["xmp"] = XMP
    if name in ("JPEG", "PNG", "TIFF"):
        settings["dpi"] = (240, 240)
    if name == "JPEG":
        settings["comment"] = b"a comment"
    pillow_heif.register_heif_opener()
    Image.fromarray(pixels).save(path, name, **settings)
    return path


@pytest.mark.parametrize("name", CODECS.names())
def test_metadata_orientation_and_size_survive(name, tmp_path, pixels, icc, read, rewritten, noise):
    for orientation in (1, 6, 7):
        path = made(tmp_path, name, pixels, orientation=orientation, icc=icc("DisplayP3-v4"))
        photo = read(path)
        changed = photo.changed(noise(photo.size, 8), 8)
        again, _ = rewritten(changed)
        before, after = photo.picture, again.picture
        assert after.orientation == before.orientation == orientation
        assert (
            again.size
            == photo.size
            == (pixels.shape[:2] if orientation < 5 else pixels.shape[1::-1])
        )
        assert after.icc == before.icc == icc("DisplayP3-v4")
        assert before.exif == after.exif and (name == "TIFF" or b"Maker" in before.exif)
        assert before.xmp == after.xmp and before.xmp.startswith(XMP[:30])
        assert again.bit_depth == 8
        # what another reader shows is upright and close to what we meant
        _assert_shown_alike(rewritten(changed)[1], changed)


def _assert_shown_alike(path, photo):
    with Image.open(path) as image:
        shown = np.asarray(ImageOps.exif_transpose(image).convert("RGB")).astype(float)
    meant = to_upright(photo.picture.samples, photo.picture.orientation).astype(float)
    assert shown.shape == meant.shape
    assert np.abs(shown - meant).mean() < 4


@pytest.mark.parametrize("name", LOSSLESS)
def test_lossless_formats_are_exact(name, tmp_path, pixels, read, rewritten, noise):
    photo = read(made(tmp_path, name, pixels))
    same, _ = rewritten(photo.changed(torch.zeros(3, *photo.size), 16))
    assert np.array_equal(same.picture.samples, photo.picture.samples)
    changed = photo.changed(noise(photo.size, 20), 16)
    again, _ = rewritten(changed)
    assert np.array_equal(again.picture.samples, changed.picture.samples)
    assert again.max_change_8bit(photo) == 16


@pytest.mark.parametrize("name", LOSSY)
def test_lossy_formats_keep_the_colour_cloak(name, tmp_path, pixels, read, rewritten):
    """A colour-opponent pattern that 4:2:0 would erase comes back."""
    photo = read(made(tmp_path, name, pixels))
    signs = torch.randint(0, 2, photo.size, generator=torch.Generator().manual_seed(0)) * 2 - 1
    residual = torch.stack([signs, -0.5 * signs, 0 * signs]) * 8 / 255
    clean, _ = rewritten(photo)
    cloaked, _ = rewritten(photo.changed(residual, 16))
    change = cloaked.picture.samples.astype(float) - clean.picture.samples
    asked = residual.permute(1, 2, 0).numpy() * 255
    assert (change * asked).sum() / (asked**2).sum() > 0.9
    with pytest.warns(UserWarning, match="reduced colour resolution"):
        erased, _ = rewritten(photo.changed(residual, 16), jpeg_subsampling="4:2:0", chroma="4:2:0")
    change = erased.picture.samples.astype(float) - clean.picture.samples
    assert (change * asked).sum() / (asked**2).sum() < 0.5


@pytest.mark.parametrize("name", ["PNG", "WEBP", "TIFF", "HEIF", "AVIF"])
def test_alpha_comes_back_exactly(name, tmp_path, pixels, alpha, read, rewritten, noise):
    photo = read(made(tmp_path, name, np.dstack([pixels, alpha])))
    again, _ = rewritten(photo.changed(noise(photo.size, 8), 16))
    assert np.array_equal(again.picture.alpha, photo.picture.alpha)
    assert len(np.unique(again.picture.alpha)) > 20


@pytest.mark.parametrize("name", ["JPEG", "PNG", "TIFF", "HEIF", "AVIF"])
def test_grey_stays_one_channel(name, tmp_path, pixels, read, rewritten, noise):
    photo = read(made(tmp_path, name, pixels[..., 0]))
    assert photo.is_grey
    again, path = rewritten(photo.changed(noise(photo.size, 8), 16))
    with Image.open(path) as image:
        assert image.mode == "L"
    assert again.is_grey


@pytest.mark.parametrize("name", CODECS.names())
def test_the_same_photo_gives_the_same_bytes(name, tmp_path, pixels, read, rewritten):
    photo = read(made(tmp_path, name, pixels))
    first = rewritten(photo)[1].read_bytes()
    assert rewritten(photo)[1].read_bytes() == first


def test_jpeg_segments_are_copied_byte_for_byte(tmp_path, pixels, icc, read, rewritten):
    path = made(tmp_path, "JPEG", pixels, icc=icc("AdobeCompat-v4"))
    iptc = b"Photoshop 3.0\x008BIM\x04\x04\x00\x00" + struct.pack(">I", 6) + b"\x1c\x02\x78\0\1a"
    data = path.read_bytes()
    extra = b"\xff\xed" + struct.pack(">H", len(iptc) + 2) + iptc
    path.write_bytes(data[:2] + extra + data[2:])
    _, written = rewritten(read(path))

    def application(data):
        with Image.open(io.BytesIO(data)) as image:
            return image.applist, image.info["dpi"], image.info["comment"], image.layer

    before, after = application(path.read_bytes()), application(written.read_bytes())
    assert [s for s in before[0] if s[0] != "APP14"] == [s for s in after[0] if s[0] != "APP14"]
    assert before[1:3] == after[1:3]
    assert {sampling[1:3] for sampling in after[3]} == {(1, 1)}  # 4:4:4


def test_a_finer_jpeg_keeps_its_own_tables(tmp_path, pixels, read, rewritten):
    for quality, expected in ((99, 99), (70, 95)):
        Image.fromarray(pixels).save(tmp_path / "p.jpg", quality=quality)
        _, written = rewritten(read(tmp_path / "p.jpg"))
        Image.fromarray(pixels).save(tmp_path / "q.jpg", quality=expected)
        with Image.open(written) as ours, Image.open(tmp_path / "q.jpg") as theirs:
            assert ours.quantization == theirs.quantization


def test_of_a_multi_picture_jpeg_the_main_picture_is_kept(tmp_path, pixels, read, rewritten):
    second = Image.fromarray(pixels[::-1].copy())
    Image.fromarray(pixels).save(
        tmp_path / "p.jpg", "MPO", save_all=True, append_images=[second], quality=95
    )
    photo = read(tmp_path / "p.jpg")
    assert any("multi-picture" in note for note in photo.notes)
    again, written = rewritten(photo)
    assert np.abs(again.picture.samples.astype(int) - pixels).mean() < 3
    with Image.open(written) as image:
        assert getattr(image, "n_frames", 1) == 1
    assert written.read_bytes().count(b"\xff\xd8\xff") == 1


def test_png_chunks_are_copied_byte_for_byte(tmp_path, pixels, icc, read, rewritten):
    path = made(tmp_path, "PNG", pixels, icc=icc("Rec2020-v4"))
    found = list(chunks(path.read_bytes()))
    added = [(b"vpAg", b"private"), (b"sBIT", b"\x08\x08\x08"), (b"iDOT", b"\0" * 28)]
    path.write_bytes(assembled([found[0], *added, *found[1:]]))
    _, written = rewritten(read(path))
    ignored = (b"IDAT", b"iDOT")
    before = [c for c in chunks(path.read_bytes()) if c[0] not in ignored]
    assert before == [c for c in chunks(written.read_bytes()) if c[0] not in ignored]
    with Image.open(written) as image:
        assert image.info["Author"] == "me" and round(image.info["dpi"][0]) == 240


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_16_bit_png(channels, tmp_path, pixels16, read, rewritten, noise):
    stored = np.dstack([pixels16, pixels16[..., :1]])[..., -channels:]
    kind = {1: 0, 2: 4, 3: 2, 4: 6}[channels]
    rows = stored.astype(">u2").reshape(stored.shape[0], -1).view(np.uint8)
    raw = np.pad(rows, ((0, 0), (1, 0))).tobytes()
    header = struct.pack(">IIBBBBB", stored.shape[1], stored.shape[0], 16, kind, 0, 0, 0)
    parts = [(b"IHDR", header), (b"IDAT", zlib.compress(raw)), (b"IEND", b"")]
    (tmp_path / "deep.png").write_bytes(assembled(parts))
    photo = read(tmp_path / "deep.png")
    assert photo.bit_depth == 16
    assert np.array_equal(photo.picture.interleaved(), stored)
    changed = photo.changed(noise(photo.size, 3), 2)
    again, written = rewritten(changed)
    assert np.array_equal(again.picture.interleaved(), changed.picture.interleaved())
    assert again.picture.samples.dtype == np.uint16
    assert again.max_change_8bit(photo) == (2 if channels > 2 else pytest.approx(2, abs=2))
    assert struct.unpack_from(">B", written.read_bytes(), 24) == (16,)


@pytest.mark.parametrize("depth", [10, 12])
def test_deep_heif(depth, tmp_path, pixels16, read, rewritten, noise):
    stored = pixels16 >> (16 - depth)
    image = pillow_heif.from_bytes(
        mode=f"RGB;{depth}", size=stored.shape[1::-1], data=stored.tobytes()
    )
    image.save(tmp_path / "deep.heic", quality=95, chroma=444)
    photo = read(tmp_path / "deep.heic")
    assert photo.bit_depth == depth and photo.picture.samples.max() > 255
    changed = photo.changed(noise(photo.size, 8), 8)
    assert 7.9 < changed.max_change_8bit(photo) <= 8
    again, _ = rewritten(changed)
    assert again.bit_depth == depth
    assert (
        np.abs(again.picture.samples.astype(int) - changed.picture.samples).mean() < 2**depth / 80
    )


@pytest.mark.parametrize("depth", [8, 10, 12])
def test_grey_heif_of_any_depth(depth, tmp_path, pixels16, read, rewritten, noise):
    stored = np.ascontiguousarray(pixels16[..., 1] >> (16 - depth))
    kind, dtype = (f"L;{depth}", np.uint16) if depth > 8 else ("L", np.uint8)
    image = pillow_heif.from_bytes(
        mode=kind, size=stored.shape[::-1], data=stored.astype(dtype).tobytes()
    )
    image.save(tmp_path / "grey.heic", quality=-1)
    photo = read(tmp_path / "grey.heic")
    assert photo.bit_depth == depth and np.array_equal(photo.picture.samples[..., 0], stored)
    changed = photo.changed(noise(photo.size, 8), 8)
    again, _ = rewritten(changed)
    assert (again.bit_depth, again.picture.samples.shape) == (depth, changed.picture.samples.shape)
    error = np.abs(again.picture.samples.astype(int) - changed.picture.samples).mean()
    assert error < 2**depth / 80


TIFF_KINDS = {
    "plain": {},
    "lzw": {"compression": "lzw"},
    "lzw predictor": {"compression": "lzw", "predictor": True},
    "zip tiles": {"compression": "zlib", "predictor": True, "tile": (32, 32)},
    "planar": {"planarconfig": "separate"},
    "planar zip": {"planarconfig": "separate", "compression": "zlib", "rowsperstrip": 7},
    "packbits": {"compression": "packbits", "rowsperstrip": 16},
    "big": {"bigtiff": True, "compression": "zlib"},
}


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("kind", TIFF_KINDS)
@pytest.mark.parametrize("deep", [False, True])
def test_tiff_layouts(kind, order, deep, tmp_path, pixels, pixels16, read, rewritten, noise):
    settings = dict(TIFF_KINDS[kind])
    big = settings.pop("bigtiff", False)
    stored = pixels16 if deep else pixels
    laid = np.moveaxis(stored, -1, 0) if "planarconfig" in settings else stored
    path = tmp_path / "photo.tif"
    with tifffile.TiffWriter(path, bigtiff=big, byteorder=order) as writer:
        writer.write(
            laid,
            photometric="rgb",
            resolution=(300, 300),
            metadata=None,
            extratags=[(33432, 2, 0, "mine", True)],
            **settings,
        )
    photo = read(path)
    assert np.array_equal(photo.picture.samples, stored)
    changed = photo.changed(noise(photo.size, 5), 4)
    _, written = rewritten(changed)
    with tifffile.TiffFile(written) as after, tifffile.TiffFile(path) as before:
        result = after.pages[0].asarray()
        result = np.moveaxis(result, 0, -1) if "planarconfig" in settings else result
        assert np.array_equal(result, changed.picture.samples)
        moved = {"StripOffsets", "StripByteCounts", "TileOffsets", "TileByteCounts"}
        for tag in before.pages[0].tags:
            if tag.name not in moved:
                assert after.pages[0].tags[tag.code].value == tag.value
        assert after.byteorder == order and after.is_bigtiff == big
    if not deep and not (big and order == ">"):  # Pillow reads neither
        with Image.open(written) as image:
            assert np.array_equal(np.asarray(image), changed.picture.samples)


def test_no_uncloaked_pixels_remain_in_a_tiff(tmp_path, pixels, read, rewritten, noise):
    tifffile.imwrite(tmp_path / "p.tif", pixels, photometric="rgb", compression="zlib")
    with tifffile.TiffFile(tmp_path / "p.tif") as tiff:
        page = tiff.pages[0]
        old = (tmp_path / "p.tif").read_bytes()[page.dataoffsets[0] :][: page.databytecounts[0]]
    photo = read(tmp_path / "p.tif")
    _, written = rewritten(photo.changed(noise(photo.size, 9), 16))
    assert old[len(old) // 2 :][:64] not in written.read_bytes()


def test_white_is_zero_tiff(tmp_path, pixels, read, rewritten):
    grey = pixels[..., 0]
    tifffile.imwrite(tmp_path / "p.tif", grey, photometric="miniswhite")
    photo = read(tmp_path / "p.tif")
    assert np.array_equal(photo.picture.samples[..., 0], 255 - grey)
    residual = torch.full((3, *photo.size), 5 / 255)
    _, written = rewritten(photo.changed(residual, 16))
    assert np.array_equal(tifffile.imread(written), grey - 5)


def test_lossy_webp_on_request(tmp_path, pixels, read, rewritten):
    photo = read(made(tmp_path, "WEBP", pixels))  # Pillow writes lossy files
    sizes = [len(rewritten(photo, webp=w)[1].read_bytes()) for w in ("lossless", "match")]
    assert sizes[1] < sizes[0]


def test_deep_avif_is_refused_rather_than_flattened(tmp_path, pixels16, read):
    data = imagecodecs.avif_encode(pixels16 >> 6, bitspersample=10)
    (tmp_path / "deep.avif").write_bytes(data)
    with pytest.raises(PhotoFailure, match="more than 8 bits"):
        read(tmp_path / "deep.avif")


def test_avif_container_orientation_rules_over_exif(tmp_path, pixels, read, rewritten):
    """EXIF that says "turn" in a file whose container does not: no viewer turns it."""
    Image.fromarray(pixels).save(tmp_path / "p.avif", exif=exif_block(6), quality=95)
    turned, path = rewritten(read(tmp_path / "p.avif"))
    assert turned.size == pixels.shape[1::-1]
    data = path.read_bytes()
    angle = data.index(b"irot") + 4
    (tmp_path / "q.avif").write_bytes(data[:angle] + b"\0" + data[angle + 1 :])
    photo = read(tmp_path / "q.avif")
    assert photo.size == pixels.shape[:2]
    again, written = rewritten(photo)
    assert again.size == photo.size
    _assert_shown_alike(written, photo)
