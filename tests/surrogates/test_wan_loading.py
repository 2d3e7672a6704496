"""Wan folders: prompts, refusals, settings."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import WanTransformer3DModel
from transformers import UMT5EncoderModel

from anti_i2v_lit.miniatures.wan import tiny_wan_2_1, tiny_wan_2_2
from anti_i2v_lit.surrogates import SURROGATES
from tests.surrogates.wan_models import (
    PROMPTS,
    draws_of,
    photos,
    surrogate_of,
)


def test_prompt_cache_serves_the_next_run_without_the_text_encoder(tmp_path: Path) -> None:
    tiny_wan_2_2().save_pretrained(tmp_path / "model")
    fields = {"name": "wan_2_2", "path": str(tmp_path / "model"), "height": 64, "width": 64}
    fields["prompt_cache"] = str(tmp_path / "prompts")
    views = photos(2, 64, 64)
    first: Any = SURROGATES.build(fields)
    draw = draws_of(first, views)
    expected = first.denoise(first.condition(views), draw, frozenset(), True).prediction
    second: Any = SURROGATES.build(fields)
    second._prompts._load = None
    found = second.denoise(second.condition(views), draw, frozenset(), True).prediction
    assert torch.equal(found, expected)


def test_known_prompts_are_embedded_before_the_transformer_is_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny_wan_2_2().save_pretrained(tmp_path)
    order: list[str] = []
    for owner in (UMT5EncoderModel, WanTransformer3DModel):
        load = owner.from_pretrained

        def logged(*args: Any, _load: Any = load, _name: str = owner.__name__, **kw: Any) -> Any:
            order.append(_name)
            return _load(*args, **kw)

        monkeypatch.setattr(owner, "from_pretrained", logged)
    fields = {"name": "wan_2_2", "path": str(tmp_path), "height": 64, "width": 64}
    surrogate: Any = SURROGATES.build({**fields, "prompts": PROMPTS})
    views = photos(2, 64, 64)
    surrogate.denoise(surrogate.condition(views), draws_of(surrogate, views), frozenset(), True)
    assert order == ["UMT5EncoderModel", "WanTransformer3DModel"]


def test_missing_folder_says_how_to_obtain_the_model() -> None:
    for path in ("", "embedded", "Wan-AI/Wan2.2-TI2V-5B"):
        with pytest.raises(ValueError, match="hf download Wan-AI/Wan2.2-TI2V-5B-Diffusers"):
            SURROGATES.build({"name": "wan_2_2", "path": path})
    with pytest.raises(ValueError, match="hf download Wan-AI/Wan2.1-I2V-14B-480P-Diffusers"):
        SURROGATES.build({"name": "wan_2_1"})


def test_models_of_the_other_class_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="use the surrogate wan_2_1"):
        surrogate_of("wan_2_2", tiny_wan_2_1())
    with pytest.raises(ValueError, match="use the surrogate wan_2_2"):
        surrogate_of("wan_2_1", tiny_wan_2_2())
    tiny_wan_2_2().save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="lacks image_encoder/config.json"):
        SURROGATES.build({"name": "wan_2_1", "path": str(tmp_path)})


def test_foreign_scheduler_is_refused(tmp_path: Path) -> None:
    tiny_wan_2_2().save_pretrained(tmp_path)
    path = tmp_path / "scheduler" / "scheduler_config.json"
    path.write_text(json.dumps({"_class_name": "DDIMScheduler", "num_train_timesteps": 1000}))
    with pytest.raises(ValueError, match="rectified flow"):
        SURROGATES.build({"name": "wan_2_2", "path": str(tmp_path), "height": 64, "width": 64})


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"height": 48}, "multiples of 32"),
        ({"num_frames": 1}, "at least 5"),
        ({"num_frames": 7}, "multiple of 4"),
    ],
)
def test_sizes_and_lengths_the_model_cannot_take_are_refused(fields: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        surrogate_of("wan_2_2", **fields)


@pytest.mark.parametrize(
    ("field", "value"),
    [("dtype", "float16"), ("encoder_dtype", "x"), ("num_frames", -1), ("dtpye", "x")],
)
def test_bad_settings_are_refused(field: str, value: object) -> None:
    with pytest.raises(ValueError, match=field.replace("encoder_", "")):
        SURROGATES.build({"name": "wan_2_2", field: value})
