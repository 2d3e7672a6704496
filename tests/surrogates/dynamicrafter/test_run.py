"""`anti-i2v cloak` and a clip against one folder in the published layout, in safetensors."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from skimage import data

from anti_i2v_lit.cli.main import main
from anti_i2v_lit.generators import GENERATORS
from anti_i2v_lit.surrogates.dynamicrafter.loading import read_checkpoint
from anti_i2v_lit.surrogates.dynamicrafter.miniature import tiny_settings, write_miniature


def test_a_photo_is_cloaked_and_animated(tiny_folder: Path, tmp_path: Path) -> None:
    model = tmp_path / "model"
    state = read_checkpoint(tiny_folder / "model.ckpt")
    write_miniature(model, tiny_settings(), state, "model.safetensors")
    photo = Image.fromarray(data.astronaut()).resize((80, 64))
    (tmp_path / "photos").mkdir()
    photo.save(tmp_path / "photos" / "astronaut.png")
    words = [
        f"surrogates=[{{name: dynamicrafter, path: {model}, prompts: [smile]}}]",
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
    assert 0 < np.abs(cloak - np.asarray(photo).astype(int)).max() <= 16
    generator = GENERATORS.build(
        {"name": "dynamicrafter", "path": str(model), "device": "cpu", "num_inference_steps": 2}
    )
    frames = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    assert generator.generate(frames, ["smile"], [1]).shape == (1, 3, 3, 32, 32)
