"""One file per picture format; the tables here say which names and first bytes belong to each."""

from __future__ import annotations

from anti_i2v_lit.data.codecs.base import Codec
from anti_i2v_lit.registry import Registry

CODECS: Registry[Codec] = Registry(
    seam="codec",
    base="anti_i2v_lit.data.codecs.base:Codec",
    table={
        "JPEG": "anti_i2v_lit.data.codecs.jpeg:JpegCodec",
        "PNG": "anti_i2v_lit.data.codecs.png:PngCodec",
        "WEBP": "anti_i2v_lit.data.codecs.webp:WebpCodec",
        "TIFF": "anti_i2v_lit.data.codecs.tiff:TiffCodec",
        "HEIF": "anti_i2v_lit.data.codecs.heif:HeifCodec",
        "AVIF": "anti_i2v_lit.data.codecs.avif:AvifCodec",
    },
)

# ".heif" names the container, whichever compression is inside.
FORMAT_SUFFIXES: dict[str, frozenset[str]] = {
    "JPEG": frozenset({".jpg", ".jpeg", ".jpe", ".jfif", ".mpo"}),
    "PNG": frozenset({".png"}),
    "WEBP": frozenset({".webp"}),
    "TIFF": frozenset({".tif", ".tiff"}),
    "HEIF": frozenset({".heic", ".heif", ".hif"}),
    "AVIF": frozenset({".avif", ".heif"}),
}
PHOTO_SUFFIXES = frozenset().union(*FORMAT_SUFFIXES.values())

# Picture formats that are not cloaked but must not be passed over in silence: their owner would
# believe them protected. Reading them gives a refusal with a reason.
_REFUSED = """
gif bmp dib psd psb tga ppm pgm pbm pnm jp2 j2k jpx jxl jxr hdp wdp exr hdr svg ico pcx xcf eps
heifs heics avifs dng cr2 cr3 crw nef nrw arw srf sr2 raf orf rw2 pef srw x3f 3fr iiq rwl
"""
REFUSED_SUFFIXES = frozenset(f".{name}" for name in _REFUSED.split())

_SIGNATURES = (
    (b"\xff\xd8\xff", "JPEG"),
    (b"\x89PNG\r\n\x1a\n", "PNG"),
    (b"II*\x00", "TIFF"),
    (b"MM\x00*", "TIFF"),
    (b"II+\x00", "TIFF"),
    (b"MM\x00+", "TIFF"),
    (b"GIF8", "GIF"),
    (b"BM", "BMP"),
    (b"8BPS", "Photoshop document"),
    (b"\x00\x00\x00\x0cjP  ", "JPEG 2000"),
    (b"\xff\x0a", "JPEG XL"),
    (b"\x00\x00\x00\x0cJXL ", "JPEG XL"),
    (b"%PDF", "PDF"),
    (b"II\xbc", "JPEG XR"),
)
_AVIF_BRANDS = {b"avif", b"avis"}
_HEIF_BRANDS = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"}


def sniff(data: bytes) -> str | None:
    """Name of the format that the first bytes show, handled or not; None if unknown."""
    for signature, name in _SIGNATURES:
        if data.startswith(signature):
            return name
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "WEBP"
    if data[4:8] == b"ftyp":
        return _sniff_brands(data)
    if data[:1] == b"P" and data[1:2] in b"123456" and data[2:3].isspace():
        return "PNM"
    return None


def _sniff_brands(data: bytes) -> str | None:
    size = min(int.from_bytes(data[:4], "big"), 256)
    brands = {data[8:12]} | {data[i : i + 4] for i in range(16, size, 4)}
    if data[8:12] in _AVIF_BRANDS or (data[8:12] in {b"mif1", b"msf1"} and brands & _AVIF_BRANDS):
        return "AVIF"
    return "HEIF" if brands & _HEIF_BRANDS else "MP4 or another video"
