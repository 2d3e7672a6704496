"""Conversions between noise, velocity, clean sample and flow, against diffusers' schedulers."""

from __future__ import annotations

import itertools

import pytest
import torch
from diffusers import CogVideoXDDIMScheduler, FlowMatchEulerDiscreteScheduler

from anti_i2v_lit.surrogates.parameterisation import (
    Parameterisation,
    add_noise,
    clean_and_noise,
    convert,
    diffusion_coefficients,
    target,
)

KINDS = list(Parameterisation)


@pytest.fixture
def pair() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    clean = torch.randn(3, 2, 4, 5, 5, generator=generator, dtype=torch.float64)
    return clean, torch.randn(clean.shape, generator=generator, dtype=torch.float64)


def rectified() -> tuple[torch.Tensor, torch.Tensor]:
    sigma = torch.tensor([0.1, 0.5, 0.9], dtype=torch.float64)
    return 1 - sigma, sigma


def variance_preserving() -> tuple[torch.Tensor, torch.Tensor]:
    schedule = CogVideoXDDIMScheduler(prediction_type="v_prediction")
    return diffusion_coefficients(schedule.alphas_cumprod, torch.tensor([3, 500, 990]))


def test_noising_and_velocity_are_those_of_the_scheduler(
    pair: tuple[torch.Tensor, torch.Tensor],
) -> None:
    clean, noise = pair
    schedule = CogVideoXDDIMScheduler(rescale_betas_zero_snr=True, snr_shift_scale=1.0)
    steps = torch.tensor([0, 400, 999])
    alpha, sigma = diffusion_coefficients(schedule.alphas_cumprod, steps)
    torch.testing.assert_close(
        add_noise(clean, noise, alpha, sigma), schedule.add_noise(clean, noise, steps)
    )
    torch.testing.assert_close(
        target(Parameterisation.VELOCITY, clean, noise, alpha, sigma),
        schedule.get_velocity(clean, noise, steps),
    )


@pytest.mark.parametrize(
    "kind", [Parameterisation.EPSILON, Parameterisation.SAMPLE, Parameterisation.VELOCITY]
)
def test_clean_sample_is_the_one_the_scheduler_steps_with(
    kind: Parameterisation, pair: tuple[torch.Tensor, torch.Tensor]
) -> None:
    noisy, prediction = pair
    schedule = CogVideoXDDIMScheduler(prediction_type=kind.value, clip_sample=False)
    schedule.set_timesteps(10)
    step = int(schedule.timesteps[3])
    alpha, sigma = diffusion_coefficients(schedule.alphas_cumprod, torch.tensor([step] * 3))
    expected = schedule.step(prediction, step, noisy).pred_original_sample
    found, _ = clean_and_noise(kind, prediction, noisy, alpha, sigma)
    torch.testing.assert_close(found, expected)


def test_flow_is_the_one_of_the_flow_matching_scheduler(
    pair: tuple[torch.Tensor, torch.Tensor],
) -> None:
    clean, noise = pair
    schedule = FlowMatchEulerDiscreteScheduler()
    steps = schedule.timesteps[[900, 400, 50]]
    sigma = schedule.sigmas[[900, 400, 50]].double()
    noisy = add_noise(clean, noise, 1 - sigma, sigma)
    torch.testing.assert_close(noisy, schedule.scale_noise(clean, steps, noise))
    # One Euler step of the scheduler with the true flow walks along the straight line.
    flow = target(Parameterisation.FLOW, clean, noise, 1 - sigma, sigma)
    schedule.set_timesteps(1000)
    walked = schedule.step(flow[:1], schedule.timesteps[900], noisy[:1]).prev_sample
    later = schedule.sigmas[901].double().reshape(1)
    torch.testing.assert_close(
        walked, add_noise(clean[:1], noise[:1], 1 - later, later), atol=1e-6, rtol=1e-6
    )


@pytest.mark.parametrize("coefficients", [rectified, variance_preserving])
@pytest.mark.parametrize(("source", "to"), list(itertools.product(KINDS, KINDS)))
def test_round_trip(
    source: Parameterisation,
    to: Parameterisation,
    coefficients,
    pair: tuple[torch.Tensor, torch.Tensor],
) -> None:
    prediction, noisy = pair
    alpha, sigma = coefficients()
    there = convert(prediction, noisy, alpha, sigma, source, to)
    torch.testing.assert_close(convert(there, noisy, alpha, sigma, to, source), prediction)


@pytest.mark.parametrize("coefficients", [rectified, variance_preserving])
@pytest.mark.parametrize("kind", KINDS)
def test_a_perfect_prediction_gives_back_both_halves(
    kind: Parameterisation, coefficients, pair: tuple[torch.Tensor, torch.Tensor]
) -> None:
    clean, noise = pair
    alpha, sigma = coefficients()
    noisy = add_noise(clean, noise, alpha, sigma)
    perfect = target(kind, clean, noise, alpha, sigma)
    found = clean_and_noise(kind, perfect, noisy, alpha, sigma)
    torch.testing.assert_close(found, (clean, noise))


def test_undetermined_conversions_are_refused(pair: tuple[torch.Tensor, torch.Tensor]) -> None:
    prediction, noisy = pair
    zero, one = torch.zeros(3), torch.ones(3)
    with pytest.raises(ValueError, match="alpha is 0"):
        convert(prediction, noisy, zero, one, Parameterisation.EPSILON, Parameterisation.SAMPLE)
    with pytest.raises(ValueError, match="sigma is 0"):
        convert(prediction, noisy, one, zero, Parameterisation.SAMPLE, Parameterisation.EPSILON)
    # Velocity stays defined at pure noise, which is why zero-SNR schedules use it.
    found = convert(
        prediction, noisy, zero, one, Parameterisation.VELOCITY, Parameterisation.SAMPLE
    )
    torch.testing.assert_close(found, -prediction)
