"""JPEG of photos that hardly compress: the encoder's buffer must hold the whole file."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from anti_i2v_lit.data.folder import SourceFile
from anti_i2v_lit.data.reading import ReadingConfig, read_photo
from anti_i2v_lit.data.writing import OutputConfig, encode_photo


@pytest.mark.parametrize("quality", [95, 100])
def test_noise_can_be_written(tmp_path: Path, quality: int) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (300, 260, 3), dtype=np.uint8)
    path = tmp_path / "noise.jpg"
    # Baseline and unoptimised: Pillow alone cannot write this photo optimised.
    Image.fromarray(noise).save(path, quality=90, subsampling=0)
    photo = read_photo(SourceFile(key="noise.jpg", path=path), ReadingConfig())
    data = encode_photo(photo, OutputConfig(jpeg_quality=quality))
    with Image.open(io.BytesIO(data)) as written:
        decoded = np.asarray(written).astype(int)
    assert decoded.shape == noise.shape
    stored = np.asarray(Image.open(path)).astype(int)
    assert np.abs(decoded - stored).mean() < 3
