"""A published upscaling pipeline given by folder, here a miniature with random weights."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    DDPMScheduler,
    StableDiffusionUpscalePipeline,
    UNet2DConditionModel,
)
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from anti_i2v_lit.purifications import noisy_upscaling
from anti_i2v_lit.purifications.noisy_upscaling import NoisyUpscaling, PipelineUpscaler


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    words = {"<|startoftext|>": 0, "<|endoftext|>": 1, "a": 2, "a</w>": 3}
    (tmp_path / "vocab.json").write_text(json.dumps(words), encoding="utf-8")
    (tmp_path / "merges.txt").write_text("#version: 0.2\n", encoding="utf-8")
    tokenizer = CLIPTokenizer(
        str(tmp_path / "vocab.json"), str(tmp_path / "merges.txt"), model_max_length=8
    )
    torch.manual_seed(0)
    text = CLIPTextConfig(
        vocab_size=4,
        hidden_size=8,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=8,
    )
    unet = UNet2DConditionModel(
        sample_size=8,
        in_channels=7,
        out_channels=4,
        down_block_types=("DownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "UpBlock2D"),
        block_out_channels=(8, 8),
        layers_per_block=1,
        norm_num_groups=4,
        cross_attention_dim=8,
        attention_head_dim=2,
        num_class_embeds=1000,
    )
    vae = AutoencoderKL(
        block_out_channels=(8, 8, 8),
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        norm_num_groups=4,
    )
    pipeline = StableDiffusionUpscalePipeline(
        vae=vae,
        text_encoder=CLIPTextModel(text),
        tokenizer=tokenizer,
        unet=unet,
        low_res_scheduler=DDPMScheduler(),
        scheduler=DDIMScheduler(prediction_type="v_prediction"),
    )
    pipeline.save_pretrained(tmp_path / "upscaler")
    return tmp_path / "upscaler"


def test_a_pipeline_enlarges_four_times(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(noisy_upscaling, "_PIPELINE_STEPS", 2)
    noisy = torch.rand(2, 3, 8, 12, generator=torch.Generator().manual_seed(0))
    upscaler = PipelineUpscaler(folder)
    found = upscaler.upscale(noisy, 0.1, torch.Generator().manual_seed(0))
    assert found.shape == (2, 3, 32, 48)
    assert found.min() >= 0 and found.max() <= 1
    again = upscaler.upscale(noisy, 0.1, torch.Generator().manual_seed(0))
    other = upscaler.upscale(noisy, 0.1, torch.Generator().manual_seed(1))
    assert torch.equal(found, again) and not torch.equal(found, other)
    purification = NoisyUpscaling(NoisyUpscaling.Config(upscaler=str(folder), work_px=16))
    photo = torch.rand(1, 3, 20, 30, generator=torch.Generator().manual_seed(0))
    assert purification.purify(photo, 1.0, torch.Generator()).shape == photo.shape
