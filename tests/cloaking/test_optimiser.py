"""Sign descent against its formula."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from lightning.pytorch.core.optimizer import LightningOptimizer
from torch import nn

from anti_i2v_lit.cloaking.optimiser import SignDescent


@pytest.mark.parametrize("momentum", [0.0, 0.5, 1.0])
def test_steps_follow_dong_2018(momentum: float) -> None:
    generator = torch.Generator().manual_seed(0)
    parameter = nn.Parameter(torch.zeros(4, 5))
    optimiser = SignDescent(momentum)
    optimiser.add_photo([parameter])
    expected, accumulated = np.zeros((4, 5)), np.zeros((4, 5))
    for step in range(6):
        gradient = torch.randn(4, 5, generator=generator) * 10.0**step
        parameter.grad = gradient.clone()
        optimiser.set_step_sizes({parameter: torch.tensor(0.25)})
        optimiser.step()
        array = gradient.double().numpy()
        accumulated = momentum * accumulated + array / np.abs(array).mean()
        expected -= 0.25 * np.sign(accumulated)
    np.testing.assert_allclose(parameter.detach().numpy(), expected, atol=1e-6)
    if momentum:
        np.testing.assert_allclose(optimiser.momentum_of(parameter), accumulated, rtol=1e-4)


def test_parameters_without_step_or_gradient_rest() -> None:
    resting, blind, moving = (nn.Parameter(torch.zeros(3)) for _ in range(3))
    resting.grad, moving.grad = torch.ones(3), torch.ones(3)
    optimiser = SignDescent(0.9)
    optimiser.add_photo([resting, blind, moving])
    optimiser.set_step_sizes({blind: torch.tensor(1.0), moving: torch.tensor(1.0)})
    optimiser.step()
    assert resting.tolist() == blind.tolist() == [0, 0, 0] and moving.tolist() == [-1, -1, -1]
    assert optimiser.momentum_of(resting).tolist() == [0, 0, 0]


def test_a_photo_that_left_is_forgotten_and_the_others_are_not() -> None:
    first, second = nn.Parameter(torch.zeros(2)), nn.Parameter(torch.zeros(2))
    optimiser = SignDescent(0.5)
    for parameter in (first, second):
        optimiser.add_photo([parameter])
        parameter.grad = torch.ones(2)
    optimiser.set_step_sizes({first: torch.tensor(1.0), second: torch.tensor(1.0)})
    optimiser.step()
    optimiser.drop_photo([first])
    optimiser.set_step_sizes({second: torch.tensor(1.0)})
    optimiser.step()
    assert first.tolist() == [-1, -1] and second.tolist() == [-2, -2]
    assert optimiser.momentum_of(first).tolist() == [0, 0]
    assert optimiser.momentum_of(second).tolist() == [1.5, 1.5]


def test_momentum_can_be_put_back() -> None:
    first, second = nn.Parameter(torch.zeros(2)), nn.Parameter(torch.zeros(2))
    ends = []
    for parameter, restored in ((first, False), (second, True)):
        optimiser = SignDescent(0.9)
        optimiser.add_photo([parameter])
        if restored:
            optimiser.set_momentum_of(parameter, torch.tensor([5.0, -5.0]))
        parameter.grad = torch.tensor([-1.0, -1.0])
        optimiser.set_step_sizes({parameter: torch.tensor(1.0)})
        optimiser.step()
        ends.append(parameter.tolist())
    assert ends == [[1, 1], [-1, 1]]


def test_a_direction_takes_the_place_of_the_sign_of_the_accumulated_gradient() -> None:
    parameter, other = (nn.Parameter(torch.zeros(3)) for _ in range(2))
    optimiser = SignDescent(momentum=0.5)
    optimiser.add_photo([parameter, other])
    sizes = {parameter: torch.tensor(0.5), other: torch.tensor(0.5)}
    for _ in range(2):
        parameter.grad, other.grad = torch.tensor([3.0, -3.0, 0.0]), torch.ones(3)
        optimiser.set_step_sizes(sizes, {parameter: _twice})
        optimiser.step()
    # accumulated: g / 2, then 0.5 * g / 2 + g / 2
    expected = -0.5 * 2.0 * (1.0 + 1.5) * np.array([1.5, -1.5, 0.0])
    np.testing.assert_allclose(parameter.detach().numpy(), expected, rtol=1e-6)
    assert other.tolist() == [-1.0, -1.0, -1.0]


def _twice(gradient: torch.Tensor) -> torch.Tensor:
    return 2.0 * gradient


def test_directions_reach_the_optimiser_inside_lightnings_wrapper() -> None:
    parameter = nn.Parameter(torch.zeros(2))
    optimiser = SignDescent(momentum=0.0)
    wrapped = LightningOptimizer(optimiser)
    optimiser.add_photo([parameter])
    parameter.grad = torch.tensor([3.0, 1.0])
    wrapped.set_step_sizes({parameter: torch.tensor(1.0)}, {parameter: _twice})
    optimiser.step()
    assert parameter.tolist() == [-6.0, -2.0]
