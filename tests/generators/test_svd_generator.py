"""The Stable Video Diffusion generator is the diffusers pipeline, called once per photo."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import StableVideoDiffusionPipeline
from PIL import Image

from anti_i2v_lit.generators import GENERATORS
from anti_i2v_lit.generators.svd import SVDGenerator, SVDGeneratorConfig
from anti_i2v_lit.miniatures.svd import tiny_svd


def pixels(count: int = 2) -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (count, 32, 48, 3), dtype=np.uint8)


def photos(count: int = 2) -> torch.Tensor:
    return torch.from_numpy(pixels(count)).permute(0, 3, 1, 2).float() / 255.0


@pytest.mark.parametrize(
    ("guidance", "chunk", "frames"), [((1.0, 1.0), 0, 3), ((1.0, 3.0), 2, 3), ((2.0, 2.5), 0, 2)]
)
def test_clip_is_that_of_the_pipelines_own_call(
    tmp_path: Path, guidance: tuple[float, float], chunk: int, frames: int
) -> None:
    tiny_svd().save_pretrained(tmp_path)
    told = {
        "num_frames": frames,
        "num_inference_steps": 3,
        "min_guidance_scale": guidance[0],
        "max_guidance_scale": guidance[1],
        "fps": 9,
        "motion_bucket_id": 40,
        "noise_aug_strength": 0.1,
    }
    generator = GENERATORS.build(
        {
            "name": "svd",
            "path": str(tmp_path),
            "device": "cpu",
            "height": 32,
            "width": 48,
            "decode_chunk_size": chunk,
            **told,
        }
    )
    found = generator.generate(photos(), ["smile", ""], [3, 4])
    assert found.shape == (2, frames, 3, 32, 48)
    pipeline = StableVideoDiffusionPipeline.from_pretrained(tmp_path)
    pipeline.set_progress_bar_config(disable=True)
    for i, seed in enumerate((3, 4)):
        expected = pipeline(
            image=Image.fromarray(pixels()[i]),
            height=32,
            width=48,
            decode_chunk_size=chunk or None,
            generator=torch.Generator().manual_seed(seed),
            output_type="pt",
            **told,
        ).frames[0]
        assert torch.equal(found[i], expected)


def test_defaults_are_the_pipelines() -> None:
    import inspect

    own = inspect.signature(StableVideoDiffusionPipeline.__call__).parameters
    config = SVDGeneratorConfig()
    for name in (
        "height",
        "width",
        "num_inference_steps",
        "min_guidance_scale",
        "max_guidance_scale",
        "fps",
        "motion_bucket_id",
        "noise_aug_strength",
    ):
        assert getattr(config, name) == own[name].default, name


def test_reconstruction_is_the_autoencoders_own() -> None:
    generator = SVDGenerator.tiny()
    photo = photos()[..., :32].contiguous()
    with torch.no_grad():
        expected = torch.cat([generator.pipeline.vae(p[None] * 2 - 1).sample for p in photo])
    expected = (expected / 2 + 0.5).clamp(0, 1)
    torch.testing.assert_close(generator.reconstruct(photo), expected, atol=1e-5, rtol=1e-4)
    latents = generator.encode(photo)
    assert latents.shape == (2, 4, 4, 4) and latents.dtype == torch.float32


def test_bfloat16_generator_gives_float32_frames(tmp_path: Path) -> None:
    tiny_svd().to(torch.float16).save_pretrained(tmp_path, variant="fp16")
    config = SVDGeneratorConfig(
        path=str(tmp_path),
        dtype="bfloat16",
        num_inference_steps=2,
        device="cpu",
        height=32,
        width=48,
    )
    generator = SVDGenerator(config)
    assert generator.pipeline.unet.dtype == torch.bfloat16
    assert generator.generate(photos(1), ["smile"], [1]).dtype == torch.float32
    assert generator.reconstruct(photos(1)).dtype == torch.float32


def test_wrong_settings_and_folders_are_refused() -> None:
    with pytest.raises(ValueError, match="hf download stabilityai/stable-video-diffusion"):
        GENERATORS.build({"name": "svd", "path": "nowhere"})
    for field, value in (("dtype", "float16"), ("max_guidance_scale", 0.5), ("fps", 0)):
        with pytest.raises(ValueError, match=field):
            GENERATORS.build({"name": "svd", field: value})
    with pytest.raises(ValueError, match="multiples of 16"):
        SVDGenerator(SVDGeneratorConfig(height=40, width=32, device="cpu"), tiny_svd())
