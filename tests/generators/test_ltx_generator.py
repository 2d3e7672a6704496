"""The LTX-Video generator is the diffusers pipeline, with one seed per photo."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from diffusers import LTXImageToVideoPipeline

from anti_i2v_lit.generators import GENERATORS
from anti_i2v_lit.generators.ltx import LTXGenerator, LTXGeneratorConfig
from anti_i2v_lit.miniatures.ltx import tiny_ltx

PROMPTS = ["a person is talking", "smile"]


def photos(height: int = 32, width: int = 64) -> torch.Tensor:
    return torch.rand(2, 3, height, width, generator=torch.Generator().manual_seed(11))


@pytest.mark.parametrize("conditioning", [False, True])
@pytest.mark.parametrize(("guidance", "frames"), [(1.0, 9), (3.0, 17)])
def test_clip_is_that_of_the_pipelines_own_call(
    tmp_path: Path, conditioning: bool, guidance: float, frames: int
) -> None:
    tiny_ltx(timestep_conditioning=conditioning).save_pretrained(tmp_path)
    call = {"num_inference_steps": 3, "guidance_scale": guidance, "negative_prompt": "blur"}
    call |= {"height": 32, "width": 64, "num_frames": frames, "frame_rate": 24.0}
    generator = GENERATORS.build({"name": "ltx", "path": str(tmp_path), "device": "cpu", **call})
    found = generator.generate(photos(), PROMPTS, [3, 4])
    assert found.shape == (2, frames, 3, 32, 64)
    pipeline = LTXImageToVideoPipeline.from_pretrained(tmp_path)
    pipeline.set_progress_bar_config(disable=True)
    if conditioning:
        call |= {"decode_timestep": 0.05, "decode_noise_scale": 0.025}
    for i, seed in enumerate((3, 4)):
        torch.manual_seed(seed)
        expected = pipeline(
            image=photos()[i : i + 1],
            prompt=PROMPTS[i],
            generator=torch.Generator().manual_seed(seed),
            output_type="pt",
            **call,
        ).frames[0]
        torch.testing.assert_close(found[i], expected, atol=1e-4, rtol=0)


def test_clips_of_newer_decoders_repeat() -> None:
    config = LTXGeneratorConfig(
        num_inference_steps=2, num_frames=9, height=32, width=64, device="cpu"
    )
    pipeline = tiny_ltx(timestep_conditioning=True)
    for block in (pipeline.vae.decoder.mid_block, *pipeline.vae.decoder.up_blocks):
        for resnet in block.resnets:
            torch.nn.init.ones_(resnet.per_channel_scale1)
    generator = LTXGenerator(config, pipeline)
    first = generator.generate(photos()[:1], PROMPTS[:1], [3])
    state = torch.random.get_rng_state()
    torch.rand(3)
    assert torch.equal(first, generator.generate(photos()[:1], PROMPTS[:1], [3]))
    torch.random.set_rng_state(state)
    assert torch.equal(generator.reconstruct(photos()), generator.reconstruct(photos()))
    assert torch.equal(state, torch.random.get_rng_state())


def test_reconstruction_is_the_autoencoders_own() -> None:
    generator = LTXGenerator.tiny()
    images = photos(64, 64)
    with torch.no_grad():
        posterior = generator.pipeline.vae.encode(images[:, :, None] * 2 - 1).latent_dist
        expected = generator.pipeline.vae.decode(posterior.mode()).sample[:, :, 0]
    torch.testing.assert_close(generator.encode(images), posterior.mode()[:, :, 0])
    found = generator.reconstruct(images)
    torch.testing.assert_close(found, (expected / 2 + 0.5).clamp(0, 1))


def test_bfloat16_generator_gives_float32_frames_and_prints_nothing(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    tiny_ltx().save_pretrained(tmp_path)
    capfd.readouterr()
    fields = {"num_inference_steps": 2, "num_frames": 9, "height": 32, "width": 64}
    config = LTXGeneratorConfig(path=str(tmp_path), dtype="bfloat16", device="cpu", **fields)
    generator = LTXGenerator(config)
    assert capfd.readouterr() == ("", "")
    assert generator.pipeline.transformer.dtype == torch.bfloat16
    assert generator.generate(photos()[:1], PROMPTS[:1], [1]).dtype == torch.float32


def test_missing_folder_says_how_to_obtain_the_model() -> None:
    with pytest.raises(ValueError, match="hf download Lightricks/LTX-Video"):
        GENERATORS.build({"name": "ltx"})


@pytest.mark.parametrize(
    ("field", "value"),
    [("dtype", "float16"), ("num_inference_steps", 1), ("guidance_scale", 0.5), ("height", -1)],
)
def test_bad_settings_are_refused(field: str, value: object) -> None:
    with pytest.raises(ValueError, match=field):
        GENERATORS.build({"name": "ltx", field: value})


@pytest.mark.parametrize(
    ("fields", "message"), [({"height": 48}, "multiples of 32"), ({"num_frames": 8}, "multiple of")]
)
def test_sizes_and_lengths_the_model_cannot_take_are_refused(fields: dict, message: str) -> None:
    config = LTXGeneratorConfig(**({"height": 64, "width": 64, "device": "cpu"} | fields))
    with pytest.raises(ValueError, match=message):
        LTXGenerator(config, tiny_ltx())
