"""The Wan generators are the diffusers pipeline, with one seed per photo."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from diffusers import WanImageToVideoPipeline
from torchvision.transforms.functional import to_pil_image

from anti_i2v_lit.generators import GENERATORS
from anti_i2v_lit.generators.wan import Wan21Generator, Wan22Generator, WanGeneratorConfig
from anti_i2v_lit.miniatures.wan import tiny_wan_2_1, tiny_wan_2_2

PROMPTS = ["a person is talking", "smile"]
BUILDERS = {"wan_2_2": tiny_wan_2_2, "wan_2_1": tiny_wan_2_1}
CLASSES = {"wan_2_2": Wan22Generator, "wan_2_1": Wan21Generator}
SIDES = {"wan_2_2": (32, 64), "wan_2_1": (32, 48)}
NAMES = sorted(BUILDERS)


def photos(height: int, width: int) -> torch.Tensor:
    """8-bit photos, as files hold them."""
    generator = torch.Generator().manual_seed(11)
    return torch.randint(0, 256, (2, 3, height, width), generator=generator) / 255.0


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("guidance", "frames"), [(1.0, 5), (5.0, 9)])
def test_clip_is_that_of_the_pipelines_own_call(
    tmp_path: Path, name: str, guidance: float, frames: int
) -> None:
    BUILDERS[name]().save_pretrained(tmp_path)
    height, width = SIDES[name]
    call = {"num_inference_steps": 3, "guidance_scale": guidance, "negative_prompt": "blur"}
    call |= {"height": height, "width": width, "num_frames": frames}
    generator = GENERATORS.build({"name": name, "path": str(tmp_path), "device": "cpu", **call})
    found = generator.generate(photos(height, width), PROMPTS, [3, 4])
    assert found.shape == (2, frames, 3, height, width)
    pipeline = WanImageToVideoPipeline.from_pretrained(tmp_path)
    pipeline.set_progress_bar_config(disable=True)
    for i, seed in enumerate((3, 4)):
        expected = pipeline(
            image=to_pil_image(photos(height, width)[i]),
            prompt=PROMPTS[i],
            generator=torch.Generator().manual_seed(seed),
            output_type="pt",
            **call,
        ).frames[0]
        torch.testing.assert_close(found[i], expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("name", NAMES)
def test_reconstruction_is_the_autoencoders_own(name: str) -> None:
    generator = CLASSES[name].tiny()
    images = photos(*SIDES[name])
    latents = generator.encode(images)
    with torch.no_grad():
        posterior = generator.pipeline.vae.encode(images[:, :, None] * 2 - 1).latent_dist
        expected = generator.pipeline.vae.decode(posterior.mode()).sample[:, :, 0]
    torch.testing.assert_close(latents, posterior.mode()[:, :, 0])
    found = generator.reconstruct(images)
    torch.testing.assert_close(found, (expected / 2 + 0.5).clamp(0, 1))


@pytest.mark.parametrize("name", NAMES)
def test_bfloat16_leaves_the_encoders_in_float32(
    tmp_path: Path, name: str, capfd: pytest.CaptureFixture[str]
) -> None:
    BUILDERS[name]().save_pretrained(tmp_path)
    capfd.readouterr()
    height, width = SIDES[name]
    fields = {"dtype": "bfloat16", "num_inference_steps": 2, "num_frames": 5, "device": "cpu"}
    config = WanGeneratorConfig(path=str(tmp_path), height=height, width=width, **fields)
    generator = CLASSES[name](config)
    assert capfd.readouterr() == ("", "")
    assert generator.pipeline.transformer.proj_out.weight.dtype == torch.bfloat16
    assert generator.pipeline.vae.dtype == torch.float32
    clip = generator.generate(photos(height, width)[:1], PROMPTS[:1], [1])
    assert clip.dtype == torch.float32 and clip.isfinite().all()


def test_missing_folder_says_how_to_obtain_the_model() -> None:
    with pytest.raises(ValueError, match="hf download Wan-AI/Wan2.2-TI2V-5B-Diffusers"):
        GENERATORS.build({"name": "wan_2_2"})


def test_models_of_the_other_class_are_refused() -> None:
    config = WanGeneratorConfig(height=64, width=64, num_frames=5, device="cpu")
    with pytest.raises(ValueError, match="use the generator wan_2_1"):
        Wan22Generator(config, tiny_wan_2_1())
    with pytest.raises(ValueError, match="use the generator wan_2_2"):
        Wan21Generator(config, tiny_wan_2_2())


@pytest.mark.parametrize(
    ("field", "value"),
    [("dtype", "float16"), ("num_inference_steps", 0), ("guidance_scale", 0.5), ("height", -1)],
)
def test_bad_settings_are_refused(field: str, value: object) -> None:
    with pytest.raises(ValueError, match=field):
        GENERATORS.build({"name": "wan_2_2", field: value})


@pytest.mark.parametrize(
    ("fields", "message"), [({"height": 48}, "multiples of 32"), ({"num_frames": 8}, "multiple of")]
)
def test_sizes_and_lengths_the_model_cannot_take_are_refused(fields: dict, message: str) -> None:
    config = WanGeneratorConfig(**({"height": 64, "width": 64, "device": "cpu"} | fields))
    with pytest.raises(ValueError, match=message):
        Wan22Generator(config, tiny_wan_2_2())
