"""Photos of every format, made with Pillow, tifffile and pillow-heif (not with our writers)."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from skimage.data import astronaut

from anti_i2v_lit.data.folder import SourceFile
from anti_i2v_lit.data.photo import DecodedPhoto
from anti_i2v_lit.data.reading import ReadingConfig, read_photo
from anti_i2v_lit.data.writing import OutputConfig, write_photo

Pixels = np.ndarray


@pytest.fixture
def pixels() -> Pixels:
    """A face, 96 x 80, RGB, 8 bit; neither black nor white, so that changes are not clipped."""
    return np.clip(astronaut()[20:116, 180:260], 20, 235)


@pytest.fixture
def pixels16(pixels: Pixels) -> Pixels:
    """The same in 16 bit, with low bytes that an 8-bit path would lose."""
    low = np.arange(pixels.size, dtype=np.uint16).reshape(pixels.shape) % 251
    return pixels.astype(np.uint16) * 256 + low


@pytest.fixture
def alpha(pixels: Pixels) -> Pixels:
    """Opacity 0..255; the first rows fully transparent."""
    ramp = np.linspace(0, 255, pixels.shape[0]).astype(np.uint8)
    return (
        np.repeat(np.maximum(ramp, 20) * (np.arange(len(ramp)) > 8), pixels.shape[1])
        .reshape(pixels.shape[:2])
        .astype(np.uint8)
    )


@pytest.fixture
def read(tmp_path: Path) -> Callable[..., DecodedPhoto]:
    """Read a file as a photo, its key being its name."""

    def _read(path: Path, **limits: float) -> DecodedPhoto:
        return read_photo(SourceFile(key=path.name, path=path), ReadingConfig(**limits))

    return _read


@pytest.fixture
def rewritten(
    tmp_path: Path, read: Callable[..., DecodedPhoto]
) -> Callable[..., tuple[DecodedPhoto, Path]]:
    """Write a photo and read it again: the second reading, and the file."""

    def _rewritten(photo: DecodedPhoto, **config: object) -> tuple[DecodedPhoto, Path]:
        path = tmp_path / "out" / photo.key
        write_photo(photo, path, OutputConfig(**config))  # type: ignore[arg-type]
        return read(path), path

    return _rewritten


@pytest.fixture
def icc() -> Callable[[str], bytes]:
    """A wide-gamut profile from the shared test data."""

    def _icc(name: str) -> bytes:
        root = Path(os.environ.get("ANTI_I2V_DATA", Path(__file__).parents[3] / "shared" / "data"))
        path = root / "odd" / "icc" / f"{name}.icc"
        if not path.is_file():
            pytest.skip("no ICC profiles: set ANTI_I2V_DATA to a folder of test data")
        return path.read_bytes()

    return _icc


def noise(size: tuple[int, int], levels: float, seed: int = 0) -> torch.Tensor:
    """A residual [3, H, W] of signs times `levels` grey levels."""
    generator = torch.Generator().manual_seed(seed)
    signs = torch.randint(0, 2, (3, *size), generator=generator) * 2 - 1
    return signs.float() * levels / 255


@pytest.fixture(name="noise")
def noise_fixture() -> Callable[..., torch.Tensor]:
    """Residuals of random signs."""
    return noise
