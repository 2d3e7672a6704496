"""Noise levels against the schedulers of diffusers."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler, UniPCMultistepScheduler
from diffusers.pipelines.ltx.pipeline_ltx_image2video import calculate_shift

from anti_i2v_lit.surrogates.flow_matching import (
    FlowSchedule,
    with_given_frame,
    without_given_frame,
)

ALL = torch.arange(1000)
# As published with LTX-Video.
LTX = {
    "shift": 1.0,
    "use_dynamic_shifting": True,
    "base_image_seq_len": 1024,
    "max_image_seq_len": 4096,
    "base_shift": 0.95,
    "max_shift": 2.05,
    "shift_terminal": 0.1,
}


@pytest.mark.parametrize("shift", [1.0, 3.0, 5.0])
def test_levels_are_those_of_the_euler_scheduler(shift: float) -> None:
    scheduler = FlowMatchEulerDiscreteScheduler(shift=shift)
    schedule = FlowSchedule.from_settings(scheduler.config, num_tokens=0)
    expected = scheduler.sigmas.flip(0)
    torch.testing.assert_close(schedule.sigmas(ALL).float(), expected, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(
        schedule.network_timesteps(ALL), scheduler.timesteps.flip(0), atol=1e-3, rtol=1e-5
    )


def test_wans_sampler_visits_these_levels() -> None:
    scheduler = UniPCMultistepScheduler(
        prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=5.0
    )
    schedule = FlowSchedule.from_settings(scheduler.config, num_tokens=0)
    assert schedule.shift == 5.0
    scheduler.set_timesteps(20)
    sigmas = scheduler.sigmas[:-1]
    steps = schedule.timesteps_of(sigmas)
    # Its steps are evenly spaced in our timesteps: the shift is the same.
    gaps = steps.diff()
    torch.testing.assert_close(gaps, gaps.mean().expand_as(gaps), atol=0.05, rtol=1e-3)
    found = schedule.network_timesteps(steps)
    # The sampler cuts what it tells the network to whole numbers.
    assert ((found - scheduler.timesteps) >= -1e-2).all()
    assert ((found - scheduler.timesteps) < 1 + 1e-2).all()


@pytest.mark.parametrize("tokens", [300, 1024, 4000])
def test_ltx_shift_depends_on_the_number_of_tokens(tokens: int) -> None:
    scheduler = FlowMatchEulerDiscreteScheduler(**LTX)
    schedule = FlowSchedule.from_settings(scheduler.config, num_tokens=tokens)
    mu = calculate_shift(tokens, 1024, 4096, 0.95, 2.05)
    scheduler.set_timesteps(sigmas=np.linspace(1.0, 1e-3, 1000), mu=mu)
    expected = scheduler.sigmas[:-1].flip(0)
    assert expected[0] == pytest.approx(0.1)
    torch.testing.assert_close(schedule.sigmas(ALL).float(), expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("terminal", [0.0, 0.1])
def test_timesteps_of_is_the_inverse(terminal: float) -> None:
    schedule = FlowSchedule(num_timesteps=1000, shift=3.0, terminal=terminal)
    torch.testing.assert_close(schedule.timesteps_of(schedule.sigmas(ALL)), ALL.double())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"prediction_type": "epsilon"}, "rectified flow"),
        ({"use_flow_sigmas": True, "prediction_type": "epsilon"}, "flow_prediction"),
        (LTX | {"time_shift_type": "linear"}, "exponential"),
    ],
)
def test_other_schedules_are_refused(settings: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        FlowSchedule.from_settings(settings, num_tokens=100)


def test_given_frames_are_put_in_and_count_for_nothing() -> None:
    clip = torch.ones(2, 3, 4, 5, 5)
    image = torch.full((2, 4, 5, 5), 2.0)
    joined = with_given_frame(clip, image)
    assert (joined[:, 0] == 2).all() and (joined[:, 1:] == 1).all()
    masked = without_given_frame(clip)
    assert not masked[:, 0].any() and (masked[:, 1:] == 1).all()
