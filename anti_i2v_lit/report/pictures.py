"""Small pictures of photo, cloak and residual as data URIs; a failure is a text, never a crash."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pillow_heif
import tifffile
from numpy.typing import NDArray
from PIL import Image, ImageCms, ImageOps

from anti_i2v_lit.ops.pixel_limit import without_pixel_limit
from anti_i2v_lit.tars import open_path

THUMBNAIL_PIXELS = 240
CROP_PIXELS = 320
RESIDUAL_GAIN = 10
_MID_GREY = 128
_JPEG_QUALITY = 90
_ORIENTATION_TAG = 0x0112

Pixels = NDArray[np.uint8]


@dataclass(frozen=True, kw_only=True)
class Triple:
    """Photo, cloak and residual as data URIs; "" with a reason in `problem` where not possible."""

    photo: str = ""
    cloak: str = ""
    residual: str = ""
    problem: str = ""


@dataclass(frozen=True, kw_only=True)
class PhotoPictures:
    """Pictures of one photo.

    Attributes:
        whole: the whole photo, longest side 240 pixels.
        crop: the 320 x 320 pixels with the largest residual, at full resolution; None when not
            asked for or not possible.
    """

    whole: Triple
    crop: Triple | None = None


def photo_pictures(
    source: Path | None,
    output: Path,
    *,
    with_crop: bool,
    frame: tuple[float, float, float, float] | None = None,
) -> PhotoPictures:
    """Read both files once and make the pictures of a card.

    The residual is taken at full size, times 10, around mid grey, and then made smaller, so fine
    patterns are averaged exactly as the eye averages them at that size.

    Args:
        source: the original; None when it cannot be reached. Both may lie in a tar.
        output: the cloak.
        with_crop: also make the full-resolution crop.
        frame: left, top, right, bottom of the part of the photo that the cloak shows, as shares;
            where the sizes differ, that part is resized to the cloak's size and compared. None
            compares files of equal size only.
    """
    cloak, cloak_problem = _read(output)
    photo, photo_problem = (None, "the original is not there") if source is None else _read(source)
    problem = "; ".join(p for p in (photo_problem, cloak_problem) if p)
    if photo is not None and cloak is not None and frame is not None:
        photo = _framed(photo, cloak.shape[:2], frame)
    if photo is not None and cloak is not None and photo.shape != cloak.shape:
        problem = "photo and cloak differ in size"
    if photo is None or cloak is None or problem:
        whole = Triple(photo=_whole(photo), cloak=_whole(cloak), problem=problem)
        return PhotoPictures(whole=whole)
    difference = cloak.astype(np.int16) - photo
    whole = Triple(
        photo=_whole(photo), cloak=_whole(cloak), residual=_jpeg(_shrunk_residual(difference))
    )
    if not with_crop:
        return PhotoPictures(whole=whole)
    rows, columns = _strongest_window(difference)
    residual = _MID_GREY + RESIDUAL_GAIN * difference[rows, columns].astype(np.int32)
    crop = Triple(
        photo=_jpeg(photo[rows, columns]),
        cloak=_jpeg(cloak[rows, columns]),
        residual=_jpeg(residual.clip(0, 255).astype(np.uint8)),
    )
    return PhotoPictures(whole=whole, crop=crop)


def _framed(
    photo: Pixels, size: tuple[int, ...], frame: tuple[float, float, float, float]
) -> Pixels:
    """The part of a photo that a cloak of another size shows, at the cloak's size (H, W)."""
    if photo.shape[:2] == size:
        return photo
    height, width = photo.shape[:2]
    left, top, right, bottom = frame
    rows = slice(round(top * height), max(round(top * height) + 1, round(bottom * height)))
    columns = slice(round(left * width), max(round(left * width) + 1, round(right * width)))
    part = Image.fromarray(np.ascontiguousarray(photo[rows, columns]))
    return np.asarray(part.resize((size[1], size[0]), Image.Resampling.LANCZOS))


def _read(path: Path) -> tuple[Pixels | None, str]:
    """Upright 8-bit sRGB pixels [H, W, 3], or None and why not."""
    pillow_heif.register_heif_opener()
    try:
        with without_pixel_limit(), open_path(path) as stream, Image.open(stream) as image:
            upright = ImageOps.exif_transpose(image)
        return np.asarray(_to_srgb(upright)), ""
    except FileNotFoundError:
        return None, f"{path.name} is not there"
    except Image.UnidentifiedImageError:
        return _read_tiff(path)
    except (OSError, ValueError, SyntaxError, MemoryError, Image.DecompressionBombError) as error:
        return None, f"{path.name} cannot be shown: {error}"


def _read_tiff(path: Path) -> tuple[Pixels | None, str]:
    """What Pillow lacks: TIFF of 16 bits per channel, shown with its upper 8."""
    try:
        with open_path(path) as stream, tifffile.TiffFile(stream) as stored:
            page = stored.pages.first
            samples = page.asarray()
            tag = page.tags.get("Orientation")
            planar = page.planarconfig == tifffile.PLANARCONFIG.SEPARATE
    except (tifffile.TiffFileError, OSError, ValueError, IndexError, MemoryError):
        return None, f"{path.name} cannot be shown: damaged, or of a kind not handled"
    if planar and samples.ndim == 3:
        samples = np.moveaxis(samples, 0, -1)
    if samples.dtype not in (np.uint8, np.uint16) or samples.ndim not in (2, 3):
        return None, f"{path.name} cannot be shown: {samples.dtype} samples"
    if samples.dtype == np.uint16:
        samples = (samples >> 8).astype(np.uint8)
    if samples.ndim == 2 or samples.shape[-1] < 3:
        samples = np.stack([samples.reshape(*samples.shape[:2], -1)[..., 0]] * 3, axis=-1)
    image = Image.fromarray(np.ascontiguousarray(samples[..., :3]))
    image.getexif()[_ORIENTATION_TAG] = 1 if tag is None else int(tag.value)
    return np.asarray(ImageOps.exif_transpose(image)), ""


def _to_srgb(image: Image.Image) -> Image.Image:
    if image.mode in ("I;16", "I;16B", "I;16L", "I", "F"):
        samples = np.asarray(image, dtype=np.float64)
        top = 255.0 if samples.max() <= 255 else 65535.0
        image = Image.fromarray((samples * (255 / top)).clip(0, 255).astype(np.uint8))
    profile = image.info.get("icc_profile")
    if image.mode in ("RGBA", "LA", "PA", "P"):
        image = image.convert("RGBA").convert("RGB")
    if not profile:
        return image.convert("RGB")
    try:
        converted = ImageCms.profileToProfile(
            image, io.BytesIO(profile), ImageCms.createProfile("sRGB"), outputMode="RGB"
        )
    except (ImageCms.PyCMSError, OSError, ValueError):
        converted = None
    return image.convert("RGB") if converted is None else converted


def _small_size(height: int, width: int) -> tuple[int, int]:
    scale = min(1.0, THUMBNAIL_PIXELS / max(height, width))
    return max(1, round(width * scale)), max(1, round(height * scale))


def _whole(pixels: Pixels | None) -> str:
    if pixels is None:
        return ""
    small = Image.fromarray(pixels).resize(
        _small_size(*pixels.shape[:2]), Image.Resampling.LANCZOS, reducing_gap=3.0
    )
    return _jpeg(np.asarray(small))


def _shrunk_residual(difference: NDArray[np.int16]) -> Pixels:
    size = _small_size(*difference.shape[:2])
    channels = [
        np.asarray(
            Image.fromarray(difference[..., c].astype(np.float32)).resize(
                size, Image.Resampling.BOX
            )
        )
        for c in range(3)
    ]
    shown = _MID_GREY + RESIDUAL_GAIN * np.stack(channels, axis=-1)
    return shown.round().clip(0, 255).astype(np.uint8)


def _strongest_window(difference: NDArray[np.int16]) -> tuple[slice, slice]:
    """Rows and columns of the window whose residual is largest on average, on a coarse grid."""
    height, width = difference.shape[:2]
    strength = np.abs(difference).astype(np.float32).mean(axis=-1)
    grid_size = (max(1, width // 32), max(1, height // 32))
    grid = np.asarray(Image.fromarray(strength).resize(grid_size, Image.Resampling.BOX))
    # Averaging over the window, not taking the single strongest cell: that one may be an edge.
    cells = (min(grid.shape[0], CROP_PIXELS // 32), min(grid.shape[1], CROP_PIXELS // 32))
    windows = np.lib.stride_tricks.sliding_window_view(grid, cells).mean(axis=(-1, -2))
    row, column = np.unravel_index(int(windows.argmax()), windows.shape)
    top = _start(int(row) * height // grid.shape[0], height)
    left = _start(int(column) * width // grid.shape[1], width)
    return slice(top, top + CROP_PIXELS), slice(left, left + CROP_PIXELS)


def _start(position: int, length: int) -> int:
    return max(0, min(position, length - CROP_PIXELS))


def _jpeg(pixels: Pixels) -> str:
    """A JPEG that keeps all its colour (4:4:4), since half of a cloak is colour.

    Not optimised: libjpeg then needs the whole file in one buffer, and Pillow's estimate of its
    size is too small for residuals, which look like noise.
    """
    stream = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(
        stream, "JPEG", quality=_JPEG_QUALITY, subsampling=0
    )
    return "data:image/jpeg;base64," + base64.b64encode(stream.getvalue()).decode()
