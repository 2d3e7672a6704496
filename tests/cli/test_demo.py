"""`anti-i2v demo` end to end on a tiny model."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageSequence
from skimage.data import astronaut

from anti_i2v_lit.bench.pictures import GAP_PX, LABEL_PX, MARGIN_PX, amplified, sheet, to_height
from anti_i2v_lit.cli.main import main


def test_demo_shows_photo_cloak_and_both_clips(
    tmp_path: Path, tiny_checkpoint: Path, capsys: pytest.CaptureFixture[str], monkeypatch
) -> None:
    monkeypatch.setenv("ANTI_I2V_DATA", str(tmp_path))
    words = [
        "demo", "--out", str(tmp_path / "demo"), "--steps", "2", "--sampling-steps", "2",
        "--generator", str(tiny_checkpoint), "--frames", "9",
        f"surrogates.0.path={tiny_checkpoint}", "attack.num_draws=1",
        "attack.num_verification_draws=1", "framing.canvas_side_px=64", "trainer.accelerator=cpu",
    ]  # fmt: skip
    assert main(words) == 0
    text = capsys.readouterr().out
    assert "says little about large published models" in text
    assert "face similarity: absent" in text and "largest change" in text
    saved = np.asarray(Image.open(tmp_path / "demo" / "astronaut.png"))
    assert np.array_equal(saved, astronaut())
    page = np.asarray(Image.open(tmp_path / "demo" / "demo.png")).astype(int)
    row = slice(MARGIN_PX + LABEL_PX, MARGIN_PX + LABEL_PX + 300)
    photo = page[row, MARGIN_PX : MARGIN_PX + 300]
    left = MARGIN_PX + 300 + GAP_PX
    cloak = page[row, left : left + 300]
    reference = np.asarray(Image.open(tmp_path / "demo" / "astronaut.png").resize((300, 300)))
    assert np.abs(photo - reference).mean() < 4
    assert 0 < np.abs(cloak - photo).max() <= 17
    clip = Image.open(tmp_path / "demo" / "clips.gif")
    assert clip.n_frames > 1
    shapes = {frame.size for frame in ImageSequence.Iterator(clip)}
    assert len(shapes) == 1


def test_a_sheet_has_every_picture_at_its_place() -> None:
    red, blue = torch.zeros(3, 20, 30), torch.zeros(3, 20, 10)
    red[0], blue[2] = 1, 1
    page = np.asarray(sheet([[("a", red), ("b", blue)], [("c", blue)]]))
    top, left = MARGIN_PX + LABEL_PX, MARGIN_PX
    assert (page[top : top + 20, left : left + 30] == [255, 0, 0]).all()
    second = left + 30 + GAP_PX
    assert (page[top : top + 20, second : second + 10] == [0, 0, 255]).all()
    lower = top + 20 + GAP_PX + LABEL_PX
    assert (page[lower : lower + 20, left : left + 10] == [0, 0, 255]).all()
    assert page.shape[:2] == (lower + 20 + MARGIN_PX, second + 10 + MARGIN_PX)


def test_residuals_are_amplified_around_grey() -> None:
    residual = torch.tensor([0.0, 0.02, -0.02, 0.3]).view(1, 2, 2).expand(3, 2, 2)
    assert amplified(residual)[0].flatten().tolist() == pytest.approx([0.5, 0.7, 0.3, 1.0])
    assert to_height(torch.rand(3, 20, 40), 10).shape == (3, 10, 20)
