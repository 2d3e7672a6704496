"""`anti-i2v cloak` against folders in the published layouts, with the terms of the default."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from skimage import data

from anti_i2v_lit.cli.main import main
from anti_i2v_lit.miniatures import tiny_cogvideox
from anti_i2v_lit.miniatures.svd import tiny_svd

SURROGATES = {
    "svd": (tiny_svd, "height: 32, width: 48, activation_checkpointing: true"),
    "cogvideox": (lambda: tiny_cogvideox("1.5"), "num_frames: 5, prompts: [smile]"),
}


@pytest.mark.parametrize("name", SURROGATES)
def test_a_photo_is_cloaked_against_the_folder(name: str, tmp_path: Path) -> None:
    build, fields = SURROGATES[name]
    build().save_pretrained(tmp_path / "model")
    photo = Image.fromarray(data.astronaut()).resize((80, 64))
    (tmp_path / "photos").mkdir()
    photo.save(tmp_path / "photos" / "astronaut.png")
    words = [
        f"surrogates=[{{name: {name}, path: {tmp_path / 'model'}, {fields}}}]",
        "attack.steps=3",
        "attack.num_draws=2",
        "attack.prompt=smile",
        "framing.canvas_side_px=48",
        "gate.min_psnr_db=0",
        "gate.min_ssim=0",
        "gate.max_ciede2000=0",
        "gate.max_lpips=0",
        "trainer.accelerator=cpu",
    ]
    assert main(["cloak", str(tmp_path / "photos"), "--out", str(tmp_path / "out"), *words]) == 0
    row = json.loads((tmp_path / "out" / "manifest.jsonl").read_text().splitlines()[-1])
    assert row["status"] == "cloaked"
    assert np.isfinite([row["loss_first"], row["loss_last"]]).all()
    cloak = np.asarray(Image.open(tmp_path / "out" / "astronaut.png")).astype(int)
    change = np.abs(cloak - np.asarray(photo).astype(int))
    assert 0 < change.max() <= 16
