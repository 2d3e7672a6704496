"""From a file name to a decoded photo, or to the reason why not."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import PurePosixPath

from anti_i2v_lit.checks import PhotoFailure
from anti_i2v_lit.data.codecs import CODECS, FORMAT_SUFFIXES, sniff
from anti_i2v_lit.data.folder import SourceFile
from anti_i2v_lit.data.memory import available_memory_bytes
from anti_i2v_lit.data.photo import DecodedPhoto

# Samples before and after, view, residual and their temporaries, measured on 12 megapixels.
_BYTES_PER_PIXEL = 60
_MIN_SIDE_PX = 11


@dataclass(kw_only=True)
class ReadingConfig:
    """Which photos are too large to be decoded."""

    max_megapixels: float = 200.0
    """Largest photo, in millions of pixels; larger ones are refused before decoding."""
    memory_fraction: float = 0.8
    """Share of the free memory that one photo may need; larger ones are refused."""

    def __post_init__(self) -> None:
        """Refuse limits that let nothing through."""
        if not self.max_megapixels > 0:
            raise ValueError(f"reading.max_megapixels must be above 0, got {self.max_megapixels}")
        if not 0 < self.memory_fraction <= 1:
            raise ValueError(
                f"reading.memory_fraction must be in (0, 1], got {self.memory_fraction}"
            )


def read_photo(source: SourceFile, config: ReadingConfig) -> DecodedPhoto:
    """Read and decode a photo; the file is read once and never written.

    Raises:
        PhotoFailure: with a reason for its owner: unreadable, empty, damaged, truncated, too
            small or too large, animated, named as another format than it is, or of a kind not
            handled.
    """
    data, caption = _content_of(source, config)
    codec = CODECS.load(_format_of(source, data))()
    width, height = codec.size(data)
    _check_size(width, height, config)
    return DecodedPhoto(
        key=source.key,
        path=source.path,
        source_sha256=hashlib.sha256(data).hexdigest(),
        picture=codec.decode(data),
        caption=caption,
    )


def source_digest(source: SourceFile, config: ReadingConfig) -> str:
    """SHA-256 of a photo's file, which need not be decoded for it.

    Raises:
        PhotoFailure: unreadable or empty.
    """
    return hashlib.sha256(_content_of(source, config)[0]).hexdigest()


def _content_of(source: SourceFile, config: ReadingConfig) -> tuple[bytes, str]:
    """The file's bytes and the photo's caption."""
    if source.sample is None:
        data, caption = _bytes_of(source, config), ""
    else:
        _check_fits(source.sample.photo.size, config)
        data, caption = source.sample.load()
    if not data:
        raise PhotoFailure("the file is empty (zero bytes)")
    return data, caption


def _check_fits(size: int, config: ReadingConfig) -> None:
    free = available_memory_bytes()
    if free is not None and 2 * size > free * config.memory_fraction:
        raise PhotoFailure(f"a file of {size / 1e9:.1f} GB does not fit into memory")


def _bytes_of(source: SourceFile, config: ReadingConfig) -> bytes:
    try:
        if not source.path.is_file():
            raise PhotoFailure("not a file")
        _check_fits(source.path.stat().st_size, config)
        return source.path.read_bytes()
    except OSError as error:
        raise PhotoFailure(f"the file cannot be read: {error.strerror or error}") from error


def _format_of(source: SourceFile, data: bytes) -> str:
    """The format by content, which must agree with the name."""
    suffix = PurePosixPath(source.key).suffix.lower()
    found = sniff(data)
    named = [name for name, suffixes in FORMAT_SUFFIXES.items() if suffix in suffixes]
    if not named:  # camera raw files look like TIFF inside, so the name decides
        raise PhotoFailure(
            f"{suffix.lstrip('.').upper()} files are not handled; "
            "export the photo as JPEG, PNG, WebP, TIFF or HEIC"
        )
    if found is None:
        raise PhotoFailure(f"not a picture, or damaged from its first byte on ({suffix} by name)")
    if found not in named:
        raise PhotoFailure(f"the name says {suffix} but the content is {found}; {_advice(found)}")
    return found


def _advice(found: str) -> str:
    if found not in FORMAT_SUFFIXES:
        return "export the photo as JPEG, PNG, WebP, TIFF or HEIC"
    return f"rename the file to {min(FORMAT_SUFFIXES[found], key=lambda s: (len(s), s))}"


def _check_size(width: int, height: int, config: ReadingConfig) -> None:
    if min(width, height) < _MIN_SIDE_PX:
        raise PhotoFailure(
            f"{width} x {height} pixels: under {_MIN_SIDE_PX} pixels a side the visibility of a "
            "cloak cannot be measured (SSIM compares windows of that size)"
        )
    pixels = width * height
    if pixels > config.max_megapixels * 1e6:
        raise PhotoFailure(
            f"{width} x {height} pixels are {pixels / 1e6:.0f} megapixels, over the limit of "
            f"{config.max_megapixels:g}; raise reading.max_megapixels if the file is genuine"
        )
    free = available_memory_bytes()
    need = pixels * _BYTES_PER_PIXEL
    if free is not None and need > free * config.memory_fraction:
        raise PhotoFailure(
            f"{width} x {height} pixels need about {need / 1e9:.1f} GB of memory, "
            f"{free / 1e9:.1f} GB are free"
        )
