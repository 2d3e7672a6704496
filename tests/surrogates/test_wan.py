"""The Wan adapters against diffusers' own pipeline."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import WanImageToVideoPipeline

from anti_i2v_lit.miniatures.wan import tiny_wan_2_1, tiny_wan_2_2
from anti_i2v_lit.surrogates import SURROGATES
from anti_i2v_lit.surrogates.wan import (
    WanSurrogate,
)
from anti_i2v_lit.types import Draw
from tests.surrogates.wan_models import (
    BUILDERS,
    NAMES,
    PROMPTS,
    SIDES,
    draws_of,
    photos,
    surrogate_of,
    to_pil,
)


class Spy:
    """Records what the pipeline hands to its transformer and what comes back."""

    def __init__(self, transformer: Any) -> None:
        self.calls: list[tuple[dict, torch.Tensor]] = []
        self._forward = transformer.forward
        transformer.forward = self

    def __call__(self, **inputs):
        output = self._forward(**inputs)
        self.calls.append((inputs, output[0]))
        return output


def spied_calls(pipeline: Any, photo: torch.Tensor, prompt: str, num_frames: int) -> list:
    pipeline.set_progress_bar_config(disable=True)
    spy = Spy(pipeline.transformer)
    pipeline(
        image=to_pil(photo),
        prompt=prompt,
        height=photo.shape[-2],
        width=photo.shape[-1],
        num_frames=num_frames,
        num_inference_steps=3,
        guidance_scale=1.0,
        generator=torch.Generator().manual_seed(0),
        output_type="latent",
    )
    assert len(spy.calls) == 3
    return spy.calls


def draw_at(surrogate: WanSurrogate, latents: torch.Tensor, time: torch.Tensor, prompt: str):
    """A draw whose noisy clip is `latents` where the network is told `time`, clean clip zero."""
    sigma = time.double().reshape(1) / 1000
    return Draw(
        clip_latents=torch.zeros_like(latents),
        noise=(latents / sigma).float(),
        timesteps=surrogate.schedule.timesteps_of(sigma),
        prompts=(prompt,),
    )


@pytest.mark.parametrize(("size", "frames"), [((64, 64), 5), ((32, 96), 9)])
def test_wan_2_2_predicts_as_inside_the_pipelines_sampling_step(
    tmp_path: Path, size: tuple[int, int], frames: int
) -> None:
    tiny_wan_2_2().save_pretrained(tmp_path)
    sizes = {"height": size[0], "width": size[1], "num_frames": frames}
    surrogate: Any = SURROGATES.build({"name": "wan_2_2", "path": str(tmp_path), **sizes})
    pipeline = WanImageToVideoPipeline.from_pretrained(tmp_path)
    for photo, prompt in zip(photos(2, *size), PROMPTS, strict=True):
        condition = surrogate.condition(photo[None])
        for inputs, expected in spied_calls(copy.deepcopy(pipeline), photo, prompt, frames):
            hidden = inputs["hidden_states"]
            torch.testing.assert_close(condition.latents, hidden[:, :, 0], atol=1e-5, rtol=1e-4)
            latents = hidden.transpose(1, 2).clone()
            # The given frame must come from the photo, not from here.
            latents[:, 0] = 7.0
            assert inputs["timestep"].min() == 0
            draw = draw_at(surrogate, latents, inputs["timestep"].max(), prompt)
            found = surrogate.denoise(condition, draw, frozenset(), True).prediction
            assert found.std() > 1e-3
            wanted = expected.transpose(1, 2)
            torch.testing.assert_close(found[:, 1:], wanted[:, 1:], atol=2e-5, rtol=1e-4)
            assert not found[:, 0].any()


@pytest.mark.parametrize("frames", [5, 9])
def test_wan_2_1_predicts_as_inside_the_pipelines_sampling_step(
    tmp_path: Path, frames: int
) -> None:
    tiny_wan_2_1().save_pretrained(tmp_path)
    # At the size of CLIP's input its preprocessing has nothing to round.
    sizes = {"height": 32, "width": 32, "num_frames": frames}
    surrogate: Any = SURROGATES.build({"name": "wan_2_1", "path": str(tmp_path), **sizes})
    pipeline = WanImageToVideoPipeline.from_pretrained(tmp_path)
    for photo, prompt in zip(photos(2, 32, 32), PROMPTS, strict=True):
        condition = surrogate.condition(photo[None])
        for inputs, expected in spied_calls(copy.deepcopy(pipeline), photo, prompt, frames):
            image = inputs["encoder_hidden_states_image"]
            torch.testing.assert_close(condition.image_embedding, image, atol=1e-5, rtol=1e-4)
            latents = inputs["hidden_states"][:, :4].transpose(1, 2)
            draw = draw_at(surrogate, latents, inputs["timestep"], prompt)
            found = surrogate.denoise(condition, draw, frozenset(), True).prediction
            assert found.std() > 1e-3
            torch.testing.assert_close(found, expected.transpose(1, 2), atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("size", [(32, 48), (48, 32), (48, 80)])
def test_image_tokens_follow_the_published_preprocessing(size: tuple[int, int]) -> None:
    pipeline = tiny_wan_2_1()
    surrogate = surrogate_of("wan_2_1", pipeline, height=size[0], width=size[1])
    photo = torch.nn.functional.interpolate(photos(1, 8, 8), size=size, mode="bilinear")
    photo = (photo * 255).round() / 255
    expected = pipeline.image_processor(images=to_pil(photo[0]), return_tensors="pt").pixel_values
    images: Any = surrogate.modules[2]
    found = images.preprocess(photo)
    # The published one rounds to 8 bits after the resize: at most one grey level, over the std.
    level = 1 / 255 / min(pipeline.image_processor.image_std)
    assert found.shape == expected.shape
    assert (found - expected).abs().max() < 1.01 * level
    tokens = pipeline.encode_image(to_pil(photo[0]))
    assert (images(photo) - tokens).norm() < 0.02 * tokens.norm()


def test_both_image_paths_of_wan_2_1_carry_gradients() -> None:
    surrogate = surrogate_of("wan_2_1")
    views = photos(1, 32, 32).requires_grad_()
    condition = surrogate.condition(views)
    assert condition.image_embedding is not None
    # Two latent frames of 4 channels, laid side by side.
    assert condition.latents.shape == (1, 8, 4, 4)
    for value in (condition.latents[:, 4:], condition.image_embedding):
        (gradient,) = torch.autograd.grad(value.square().sum(), views, retain_graph=True)
        assert gradient.isfinite().all() and gradient.abs().max() > 0


@pytest.mark.parametrize("name", NAMES)
def test_target_is_the_flow_from_clean_to_noise(name: str) -> None:
    surrogate = surrogate_of(name)
    views = photos(2, *surrogate.view_size)
    draw = draws_of(surrogate, views)
    target = surrogate.denoise(surrogate.condition(views), draw, frozenset(), False).target
    expected = draw.noise - draw.clip_latents
    assert torch.equal(target[:, 1:], expected[:, 1:])
    # Wan2.2 is given the first frame and does not predict it.
    assert torch.equal(target[:, 0], expected[:, 0] * (name == "wan_2_1"))


@pytest.mark.parametrize("name", NAMES)
def test_bfloat16_surrogate_keeps_photos_and_answers_in_float32(name: str, tmp_path: Path) -> None:
    BUILDERS[name]().save_pretrained(tmp_path, max_shard_size="20KB")
    assert (tmp_path / "transformer" / "diffusion_pytorch_model.safetensors.index.json").exists()
    fields = {"name": name, "path": str(tmp_path), "height": SIDES[name], "width": SIDES[name]}
    half: Any = SURROGATES.build({**fields, "dtype": "bfloat16"})
    full: Any = SURROGATES.build(fields)
    assert half.modules[0].transformer.proj_out.weight.dtype == torch.bfloat16
    # As the model cards run it: the autoencoder stays in float32.
    assert {p.dtype for p in half.modules[1].parameters()} == {torch.float32}
    answers = []
    for surrogate in (half, full):
        views = photos(2, *surrogate.view_size).requires_grad_()
        condition = surrogate.condition(views, frozenset({"encoder.mid"}))
        denoised = surrogate.denoise(
            condition, draws_of(surrogate, views), frozenset({"block.1"}), True
        )
        values = (condition.latents, denoised.prediction, denoised.features["block.1"])
        assert {v.dtype for v in values} == {torch.float32}
        (gradient,) = torch.autograd.grad(denoised.prediction.square().sum(), views)
        assert gradient.dtype == torch.float32 and gradient.isfinite().all()
        answers.append((denoised.prediction, gradient))
    cosine = torch.nn.functional.cosine_similarity
    for a, b in zip(*answers, strict=True):
        assert cosine(a.flatten(), b.flatten(), dim=0) > 0.98
