"""8-bit rounding against numpy, and its straight-through gradient."""

import numpy as np
import torch

from anti_i2v_lit.ops.quantise import quantise_8bit, round_through, straight_through, to_uint8


def test_rounds_to_the_nearest_level_like_numpy_and_does_not_truncate():
    values = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    expected = np.rint(values.numpy().astype(np.float64) * 255).astype(np.uint8)
    assert np.array_equal(to_uint8(values).numpy(), expected)
    assert np.array_equal(quantise_8bit(values).numpy(), expected.astype(np.float32) / 255)
    assert to_uint8(torch.tensor(127.9 / 255)) == 128


def test_every_8bit_value_is_a_fixed_point_bit_for_bit():
    levels = torch.arange(256, dtype=torch.uint8)
    photo = levels / 255.0
    assert torch.equal(quantise_8bit(photo), photo)
    assert torch.equal(to_uint8(photo), levels)


def test_values_out_of_range_are_clipped():
    assert quantise_8bit(torch.tensor([-0.2, 1.3])).tolist() == [0.0, 1.0]


def test_gradient_is_that_of_the_identity_everywhere():
    values = torch.tensor([-0.2, 0.0, 0.3, 0.5 / 255, 1.0, 1.3], requires_grad=True)
    for function in (quantise_8bit, round_through):
        (gradient,) = torch.autograd.grad((function(values) * torch.arange(6.0)).sum(), values)
        assert torch.equal(gradient, torch.arange(6.0))


def test_straight_through_returns_the_value_bit_for_bit():
    generator = torch.Generator().manual_seed(1)
    value = torch.rand(1000, generator=generator)
    source = 1e4 * torch.randn(1000, generator=generator)
    assert torch.equal(straight_through(value, source.requires_grad_()), value)
