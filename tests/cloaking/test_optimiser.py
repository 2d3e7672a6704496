"""Sign descent against its formula."""

from __future__ import annotations

import numpy as np
import pytest
import torch
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


def test_a_proportional_step_follows_the_gradient_at_unit_root_mean_square() -> None:
    values = torch.tensor([3.0, -1.0, 0.5, 0.0])
    parameter = torch.nn.Parameter(torch.zeros(4))
    other = torch.nn.Parameter(torch.zeros(4))
    optimiser = SignDescent(momentum=0.0)
    optimiser.add_photo([parameter, other])
    parameter.grad, other.grad = values.clone(), values.clone()
    sizes = {parameter: torch.tensor(0.5), other: torch.tensor(0.5)}
    optimiser.set_step_sizes(sizes, [parameter])
    optimiser.step()
    expected = -0.5 * values.numpy() / np.sqrt(np.mean(values.numpy() ** 2))
    np.testing.assert_allclose(parameter.detach().numpy(), expected, rtol=1e-6)
    np.testing.assert_allclose(other.detach().numpy(), -0.5 * np.sign(values.numpy()))
