"""CLIP distance against open_clip's own image encoder, on a small random checkpoint."""

from __future__ import annotations

import json
from pathlib import Path
from typing import cast

import open_clip
import pytest
import torch
from safetensors.torch import save_file

from anti_i2v_lit.objectives.clip_distance import HOW_TO_GET, ClipDistance
from anti_i2v_lit.surrogates.base import Surrogate
from anti_i2v_lit.types import Observation

SETTINGS = {
    "embed_dim": 12,
    "vision_cfg": {"image_size": 32, "layers": 2, "width": 64, "patch_size": 16},
    "text_cfg": {"context_length": 8, "vocab_size": 64, "width": 16, "heads": 2, "layers": 1},
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "small-clip.json").write_text(json.dumps(SETTINGS))
    open_clip.add_model_config(tmp_path / "small-clip.json")
    torch.manual_seed(5)
    save_file(open_clip.create_model("small-clip").state_dict(), tmp_path / "clip.safetensors")
    return tmp_path


def test_value_equals_open_clip_on_views_of_its_own_size(folder: Path) -> None:
    path = str(folder / "clip.safetensors")
    term = ClipDistance(
        ClipDistance.Config(weights=path, architecture=str(folder / "small-clip.json"))
    )
    views = torch.rand(2, 2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    loss = term.loss(
        cast(Surrogate, None),
        Observation(views=views[0]),
        {"clean": Observation(views=views[1])},
        ("a", "b"),
        0,
    )
    model, _, _ = open_clip.create_model_and_transforms("small-clip", pretrained=path)
    mean = torch.tensor(open_clip.OPENAI_DATASET_MEAN)[:, None, None]
    std = torch.tensor(open_clip.OPENAI_DATASET_STD)[:, None, None]
    with torch.no_grad():
        first, second = (model.eval().encode_image((v - mean) / std) for v in views)
    expected = 1 - torch.nn.functional.cosine_similarity(first, second)
    torch.testing.assert_close(loss, expected)
    assert (loss > 1e-4).all()


def test_the_default_architecture_is_that_of_the_recommended_weights() -> None:
    default = ClipDistance.Config().architecture
    # What open_clip itself lists for OpenAI's file, and the activation that it was trained with.
    assert "openai" in open_clip.list_pretrained_tags_by_model(default)
    assert open_clip.get_model_config(default)["quick_gelu"] is True
    assert "'openai'" in HOW_TO_GET and "architecture" not in HOW_TO_GET


def test_weights_of_another_architecture_are_refused(folder: Path) -> None:
    other = {**SETTINGS, "embed_dim": 20}
    (folder / "other-clip.json").write_text(json.dumps(other))
    with pytest.raises(ValueError, match="does not fit architecture 'other-clip'"):
        ClipDistance(
            ClipDistance.Config(
                weights=str(folder / "clip.safetensors"),
                architecture=str(folder / "other-clip.json"),
            )
        )


def test_an_unknown_architecture_is_refused(folder: Path) -> None:
    with pytest.raises(ValueError, match="open_clip knows no 'ViT-Z'"):
        ClipDistance(
            ClipDistance.Config(weights=str(folder / "clip.safetensors"), architecture="ViT-Z")
        )
