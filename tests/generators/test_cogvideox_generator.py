"""The CogVideoX generator is the diffusers pipeline, with one seed per photo."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from diffusers import CogVideoXImageToVideoPipeline

from anti_i2v_lit.checkpoints import COGVIDEOX, EMBEDDED, checkpoint_folder
from anti_i2v_lit.generators import GENERATORS
from anti_i2v_lit.generators.cogvideox import CogVideoXGenerator, CogVideoXGeneratorConfig
from anti_i2v_lit.miniatures import TEXT_TOKENS, tiny_cogvideox

PROMPTS = ["a person is talking", "smile"]


def photos(count: int = 2) -> torch.Tensor:
    return torch.rand(count, 3, 32, 32, generator=torch.Generator().manual_seed(11))


@pytest.mark.parametrize(("generation", "frames"), [("1.0", 9), ("1.5", 9), ("1.5", 17)])
@pytest.mark.parametrize("guidance", [1.0, 6.0])
def test_clip_is_that_of_the_pipelines_own_call(
    tmp_path: Path, generation: str, frames: int, guidance: float
) -> None:
    tiny_cogvideox(generation, num_frames=frames).save_pretrained(tmp_path)
    generator = GENERATORS.build(
        {
            "name": "cogvideox",
            "path": str(tmp_path),
            "num_inference_steps": 3,
            "guidance_scale": guidance,
        }
    )
    found = generator.generate(photos(), PROMPTS, [3, 4])
    assert found.shape == (2, frames, 3, 32, 32)
    pipeline = CogVideoXImageToVideoPipeline.from_pretrained(tmp_path)
    pipeline.set_progress_bar_config(disable=True)
    together = pipeline(
        image=photos(),
        prompt=PROMPTS,
        num_frames=frames,
        num_inference_steps=3,
        guidance_scale=guidance,
        max_sequence_length=TEXT_TOKENS,
        generator=[torch.Generator().manual_seed(seed) for seed in (3, 4)],
        output_type="pt",
    ).frames
    assert torch.equal(found, together)
    for i, seed in enumerate((3, 4)):
        expected = pipeline(
            image=photos()[i : i + 1],
            prompt=PROMPTS[i],
            num_frames=frames,
            num_inference_steps=3,
            guidance_scale=guidance,
            max_sequence_length=TEXT_TOKENS,
            generator=torch.Generator().manual_seed(seed),
            output_type="pt",
        ).frames[0]
        torch.testing.assert_close(found[i], expected, atol=1e-4, rtol=0)


def test_reconstruction_is_the_autoencoders_own() -> None:
    generator = CogVideoXGenerator.tiny()
    with torch.no_grad():
        expected = generator.pipeline.vae(photos()[:, :, None] * 2 - 1).sample[:, :, 0]
    expected = (expected / 2 + 0.5).clamp(0, 1)
    torch.testing.assert_close(generator.reconstruct(photos()), expected)


def test_encoding_decodes_to_the_reconstruction() -> None:
    generator = CogVideoXGenerator.tiny()
    latents = generator.encode(photos())
    assert latents.shape == (2, 4, 4, 4) and latents.dtype == torch.float32
    with torch.no_grad():
        decoded = generator.pipeline.vae.decode(latents[:, :, None]).sample[:, :, 0]
    torch.testing.assert_close((decoded / 2 + 0.5).clamp(0, 1), generator.reconstruct(photos()))


def test_bfloat16_generator_gives_float32_frames(tmp_path: Path) -> None:
    tiny_cogvideox(num_frames=9).save_pretrained(tmp_path)
    config = CogVideoXGeneratorConfig(
        path=str(tmp_path), dtype="bfloat16", num_inference_steps=2, device="cpu"
    )
    generator = CogVideoXGenerator(config)
    assert generator.pipeline.transformer.dtype == torch.bfloat16
    assert generator.generate(photos(1), PROMPTS[:1], [1]).dtype == torch.float32
    assert generator.reconstruct(photos(1)).dtype == torch.float32


def test_loading_prints_nothing(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    tiny_cogvideox(num_frames=9).save_pretrained(tmp_path)
    capfd.readouterr()
    CogVideoXGenerator(CogVideoXGeneratorConfig(path=str(tmp_path), device="cpu"))
    assert capfd.readouterr() == ("", "")


def test_missing_folder_says_how_to_obtain_the_model() -> None:
    with pytest.raises(ValueError, match="hf download zai-org/CogVideoX-5b-I2V"):
        GENERATORS.build({"name": "cogvideox", "path": "THUDM/CogVideoX-5b-I2V"})


@pytest.mark.parametrize(
    ("field", "value"),
    [("dtype", "float16"), ("num_inference_steps", -1), ("guidance_scale", 0.5), ("height", -1)],
)
def test_bad_settings_are_refused(field: str, value: object) -> None:
    with pytest.raises(ValueError, match=field):
        GENERATORS.build({"name": "cogvideox", field: value})


def test_sizes_the_model_cannot_take_are_refused() -> None:
    with pytest.raises(ValueError, match="multiples of 16"):
        CogVideoXGenerator(
            CogVideoXGeneratorConfig(height=40, width=32, device="cpu"), tiny_cogvideox("1.5")
        )


@pytest.mark.parametrize(("ratio", "frames", "fits"), [(4, 9, True), (4, 5, False), (1, 4, True)])
def test_lengths_that_decode_to_other_lengths_are_refused(
    ratio: int, frames: int, fits: bool
) -> None:
    pipeline = tiny_cogvideox(temporal_ratio=ratio, num_frames=frames)
    config = CogVideoXGeneratorConfig(num_inference_steps=1, device="cpu")
    if not fits:
        with pytest.raises(ValueError, match="1 plus a multiple of 8"):
            CogVideoXGenerator(config, pipeline)
        return
    clips = CogVideoXGenerator(config, pipeline).generate(photos(1), PROMPTS[:1], [1])
    assert clips.shape[1] == frames


def test_packaged_model_generates() -> None:
    try:
        checkpoint_folder(EMBEDDED, COGVIDEOX)
    except ValueError as error:
        pytest.skip(f"packaged weights are absent: {error}")
    generator = GENERATORS.build({"name": "cogvideox", "num_inference_steps": 2, "device": "cpu"})
    photo = torch.rand(1, 3, *generator.view_size, generator=torch.Generator().manual_seed(0))
    assert generator.generate(photo, ["smile"], [0]).shape[0] == 1
