"""Distances and tap plans that objectives share."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from anti_i2v_lit.objectives.features import (
    channel_statistics,
    chosen_taps,
    comparable,
    mean_square,
    spread,
)


def test_mean_square_and_spread_match_numpy() -> None:
    values = torch.randn(3, 4, 5, generator=torch.Generator().manual_seed(0)) * 7 + 2
    flat = values.numpy().reshape(3, -1).astype(np.float64)
    np.testing.assert_allclose(mean_square(values), (flat**2).mean(axis=1), rtol=1e-5)
    np.testing.assert_allclose(spread(values), flat.var(axis=1), rtol=1e-5)


def test_equal_shapes_are_compared_token_by_token() -> None:
    first, second = torch.rand(1, 6, 4), torch.rand(1, 6, 4)
    assert comparable(first, second) == (first, second)


def test_channel_statistics_match_numpy_and_average_neighbouring_channels() -> None:
    tokens = torch.randn(2, 50, 6, generator=torch.Generator().manual_seed(1))
    array = tokens.numpy().astype(np.float64)
    expected = np.stack([array.mean(axis=1), array.std(axis=1)], axis=1)
    np.testing.assert_allclose(channel_statistics(tokens, 6), expected, rtol=1e-4, atol=1e-6)
    pairs = expected.reshape(2, 2, 3, 2).mean(axis=-1)
    np.testing.assert_allclose(channel_statistics(tokens, 3), pairs, rtol=1e-4, atol=1e-6)


def test_levels_of_different_resolution_and_width_can_be_subtracted() -> None:
    coarse, fine = comparable(torch.rand(2, 16, 8), torch.rand(2, 64, 4))
    assert coarse.shape == fine.shape == (2, 2, 4)


def test_a_constant_channel_has_a_finite_gradient() -> None:
    tokens = torch.zeros(1, 9, 2, requires_grad=True)
    channel_statistics(tokens, 2).sum().backward()
    assert tokens.grad is not None and torch.isfinite(tokens.grad).all()


def test_taps_may_be_shares_of_the_depth() -> None:
    known = [f"block.{i}" for i in range(30)]
    assert chosen_taps(["0", "0.5", "1"], known, [], "denoiser tap") == (
        "block.0", "block.14", "block.29",
    )  # fmt: skip
    assert chosen_taps(["0.9", "block.3"], known[:11], [], "tap") == ("block.9", "block.3")
    with pytest.raises(ValueError, match="between 0 and 1, got 1.5"):
        chosen_taps(["1.5"], known, [], "denoiser tap")
    with pytest.raises(ValueError, match=r"0\.9, 1 are block\.1, block\.1"):
        chosen_taps(["0.9", "1"], known[:2], [], "denoiser tap")


def test_an_unknown_tap_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(ValueError, match="Did you mean 'block.1'"):
        chosen_taps(["blok.1"], ["block.0", "block.1"], [], "denoiser tap")
    with pytest.raises(ValueError, match="at least one encoder tap"):
        chosen_taps([], [], [], "encoder tap")
