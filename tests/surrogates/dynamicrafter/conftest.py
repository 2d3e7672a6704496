"""The numbers of the published implementation, and how near is near."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from anti_i2v_lit.surrogates.dynamicrafter.miniature import (
    random_state,
    tiny_settings,
    write_miniature,
)
from anti_i2v_lit.surrogates.dynamicrafter.model import DynamiCrafter

Tensors = dict[str, torch.Tensor]


def parity(part: str) -> tuple[dict[str, Any], Tensors, Tensors]:
    """Settings, weights, and inputs with outputs of a part; skips where they are absent."""
    folder = data_folder() / "parity" / f"dynamicrafter_{part}"
    if not folder.is_dir():
        pytest.skip(f"published numbers are absent: {folder}")
    config = json.loads((folder / "config.json").read_text())["config"]
    return config, load_file(folder / "weights.safetensors"), load_file(folder / "io.safetensors")


def data_folder() -> Path:
    default = Path(__file__).parents[4] / "shared" / "data"
    return Path(os.environ.get("ANTI_I2V_DATA", default))


def close(found: torch.Tensor, expected: torch.Tensor, tolerance: float = 1e-4) -> None:
    """Largest difference relative to the largest value, and the relative norm of all of them."""
    assert found.shape == expected.shape
    difference = found - expected
    assert difference.abs().max() <= tolerance * expected.abs().max()
    assert difference.norm() <= tolerance * expected.norm()


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A miniature as published: model.ckpt, config.yaml and a tokenizer."""
    folder = tmp_path_factory.mktemp("dynamicrafter") / "model"
    model = DynamiCrafter.on_meta(tiny_settings())
    write_miniature(folder, model.settings, random_state(model))
    return folder
