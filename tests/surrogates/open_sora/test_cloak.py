"""`anti-i2v cloak` against a folder in the published layout, with the terms of the default."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from PIL import Image
from skimage import data

from anti_i2v_lit.cli.main import main
from anti_i2v_lit.surrogates.open_sora.miniature import save_tiny


def test_a_photo_is_cloaked_against_the_folder(tmp_path: Path) -> None:
    save_tiny(tmp_path / "model")
    photo = Image.fromarray(data.astronaut()).resize((80, 64))
    (tmp_path / "photos").mkdir()
    photo.save(tmp_path / "photos" / "astronaut.png")
    # 50 columns: as in the published 240 x 426, the last ones have no latent of their own.
    fields = "height: 32, width: 50, activation_checkpointing: true, prompts: [smile]"
    words = [
        f"surrogates=[{{name: open_sora, path: {tmp_path / 'model'}, {fields}}}]",
        "attack.steps=3",
        "attack.num_draws=2",
        "attack.prompt=smile",
        "framing.canvas_side_px=50",
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
