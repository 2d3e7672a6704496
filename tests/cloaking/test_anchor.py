"""The target image of the anchor terms."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from anti_i2v_lit.cloaking.anchor import anchor_image, texture


def test_the_texture_fills_the_range_and_looks_alike_at_every_size() -> None:
    small, large = texture(64, 96), texture(256, 384)
    assert small.shape == (1, 3, 64, 96)
    for image in (small, large):
        assert image.min() >= 0 and image.max() <= 1 and image.std() > 0.3
    shrunk = torch.nn.functional.interpolate(large, size=(64, 96), mode="area")
    correlation = np.corrcoef(shrunk.flatten().numpy(), small.flatten().numpy())[0, 1]
    assert correlation > 0.95


def test_a_file_is_squashed_to_the_view_as_pillow_does(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "target.png")
    found = anchor_image(str(tmp_path / "target.png"), 16, 20)[0].permute(1, 2, 0).numpy()
    expected = Image.fromarray(pixels).resize((20, 16), Image.Resampling.BICUBIC)
    assert np.abs(found * 255 - np.asarray(expected)).max() < 2.5


def test_what_is_no_image_is_refused(tmp_path: Path) -> None:
    (tmp_path / "note.txt").write_text("hello")
    for name, reason in (("nowhere.png", "image file"), (str(tmp_path / "note.txt"), "readable")):
        with pytest.raises(ValueError, match=f"attack.anchor: .*{reason}"):
            anchor_image(name, 8, 8)
