"""DynamiCrafter's sampling against diffusers' scheduler and guidance; its options."""

from __future__ import annotations

from functools import cache

import pytest
import torch
from diffusers import DDIMScheduler
from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import rescale_noise_cfg

from anti_i2v_lit.generators.dynamicrafter import (
    DynamiCrafterGenerator,
    DynamiCrafterGeneratorConfig,
)
from anti_i2v_lit.generators.dynamicrafter_sampling import ddim_steps, guided, take
from anti_i2v_lit.surrogates.dynamicrafter.loading import DynamiCrafterParts
from anti_i2v_lit.surrogates.dynamicrafter.miniature import tiny_parts
from anti_i2v_lit.surrogates.dynamicrafter.model import Schedule
from anti_i2v_lit.surrogates.dynamicrafter.settings import PUBLISHED
from anti_i2v_lit.surrogates.parameterisation import Parameterisation


@cache
def parts_of(kind: Parameterisation) -> DynamiCrafterParts:
    """Generators leave their networks as they are, so tests share them."""
    return tiny_parts(kind)


def generator_of(
    kind: Parameterisation = Parameterisation.VELOCITY, **fields: object
) -> DynamiCrafterGenerator:
    settings = {"num_inference_steps": 2, "device": "cpu", **fields}
    return DynamiCrafterGenerator(DynamiCrafterGeneratorConfig(**settings), parts_of(kind))


def photo() -> torch.Tensor:
    return torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(3))


@pytest.mark.parametrize(
    ("size", "spacing", "theirs", "kind"),
    [
        (512, "uniform_trailing", "trailing", Parameterisation.VELOCITY),
        (256, "uniform", "leading", Parameterisation.EPSILON),
    ],
)
@pytest.mark.parametrize("eta", [0.0, 1.0])
def test_steps_are_those_of_diffusers(
    size: int, spacing: str, theirs: str, kind: Parameterisation, eta: float
) -> None:
    scheduler = DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        rescale_betas_zero_snr=size != 256,
        prediction_type=kind.value,
        timestep_spacing=theirs,
        steps_offset=1,
        clip_sample=False,
        set_alpha_to_one=False,
    )
    scheduler.set_timesteps(50)
    steps = ddim_steps(Schedule(PUBLISHED[size]), 50, eta, spacing)
    assert [s.timestep for s in steps] == scheduler.timesteps.tolist()
    source = torch.Generator().manual_seed(0)
    # Not the first: out of pure noise diffusers takes the root of a number just below zero.
    for step in (steps[1], steps[20], steps[-1]):
        noisy, answer, noise = (torch.randn(2, 4, 3, 2, 2, generator=source) for _ in range(3))
        expected = scheduler.step(
            answer, step.timestep, noisy, eta=eta, variance_noise=noise
        ).prev_sample
        clean = scheduler.step(answer, step.timestep, noisy, eta=eta).pred_original_sample
        # diffusers has no dynamic rescale: what it does to the clean latents is added here.
        expected = expected + step.alpha_squared_before**0.5 * (step.rescale - 1) * clean
        found = take(step, kind, noisy, answer, noise)
        torch.testing.assert_close(found, expected, atol=2e-4, rtol=2e-3)


def test_dynamic_rescale_undoes_the_training_factor_step_by_step() -> None:
    schedule = Schedule(PUBLISHED[1024])
    steps = ddim_steps(schedule, 50, 1.0, "uniform_trailing")
    assert steps[0].timestep == 999 and steps[-1].timestep == 19 and steps[0].sigma > 0.9
    factor = torch.tensor([s.rescale for s in steps]).prod()
    expected = schedule.scales[19] / schedule.scales[999]
    torch.testing.assert_close(factor, expected, atol=1e-5, rtol=1e-5)
    assert {s.rescale for s in ddim_steps(Schedule(PUBLISHED[256]), 50, 1.0, "uniform")} == {1.0}


def test_guidance_is_that_of_diffusers() -> None:
    source = torch.Generator().manual_seed(0)
    with_photo, without = (torch.randn(2, 4, 3, 5, 5, generator=source) for _ in range(2))
    mixed = without + 7.5 * (with_photo - without)
    torch.testing.assert_close(guided(with_photo, without, 7.5, 0.0), mixed)
    expected = rescale_noise_cfg(mixed, with_photo, guidance_rescale=0.7)
    torch.testing.assert_close(guided(with_photo, without, 7.5, 0.7), expected)


def test_every_step_count_ends_finite() -> None:
    """Near pure noise the kept share of old noise rounds below zero for some counts."""
    schedule = Schedule(PUBLISHED[512])
    ones = torch.ones(1, 1)
    for count in range(1, 60):
        first = ddim_steps(schedule, count, 1.0, "uniform_trailing")[0]
        assert take(first, Parameterisation.VELOCITY, ones, ones, ones).isfinite().all()


def test_options_change_the_clip_and_defaults_are_the_models_own() -> None:
    def clip(kind: Parameterisation, **fields: object) -> torch.Tensor:
        return generator_of(kind, **fields).generate(photo(), ["smile"], [1])

    velocity, epsilon = Parameterisation.VELOCITY, Parameterisation.EPSILON
    own = clip(velocity)
    same = clip(
        velocity,
        timestep_spacing="uniform_trailing",
        guidance_scale=7.5,
        guidance_rescale=0.7,
        fps=24,
    )
    assert torch.equal(own, same)
    changes = [{"eta": 0.0}, {"guidance_scale": 1.0}, {"guidance_rescale": 0.0}, {"fps": 8}]
    for fields in changes:
        assert not torch.allclose(own, clip(velocity, **fields), atol=1e-4), fields
    older = clip(epsilon, timestep_spacing="uniform", guidance_rescale=0.0)
    assert torch.equal(clip(epsilon), older)
    assert generator_of(num_frames=2).generate(photo(), [""], [1]).shape == (1, 2, 3, 32, 32)


def test_encoding_is_the_posterior_mean_and_reconstruction_its_decoding() -> None:
    parts = tiny_parts()
    generator = DynamiCrafterGenerator(DynamiCrafterGeneratorConfig(device="cpu"), parts)
    latents = generator.encode(photo())
    with torch.no_grad():
        moments = parts.first_stage.moments(2 * photo() - 1)
        decoded = parts.first_stage.decode(latents)
    torch.testing.assert_close(latents, moments[:, :4])
    expected = ((decoded + 1) / 2).clamp(0, 1)
    torch.testing.assert_close(generator.reconstruct(photo()), expected)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"eta": 2.0}, "eta"),
        ({"timestep_spacing": "quad"}, "timestep_spacing"),
        ({"guidance_scale": 0.5}, "guidance_scale"),
        ({"guidance_rescale": 1.5}, "guidance_rescale"),
        ({"num_inference_steps": -1}, "num_inference_steps"),
        ({"timestep_spacing": "uniform", "num_inference_steps": 600}, "between 1 and 500"),
        ({"num_frames": 9}, "at most 3"),
        ({"size": 300}, "size must be"),
    ],
)
def test_bad_settings_are_refused(fields: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        generator_of(**fields)
