"""Networks whose linear layers were replaced give what they gave before."""

from __future__ import annotations

import torch
from diffusers.models.activations import GELU
from diffusers.models.attention import FeedForward as DiffusersFeedForward
from torch import nn

from anti_i2v_lit.generators.cogvideox_frames import dense_gelu
from anti_i2v_lit.generators.dense import Dense, quicken
from anti_i2v_lit.generators.dynamicrafter_frames import GatedDense
from anti_i2v_lit.surrogates.dynamicrafter.attention import FeedForward, GatedProjection


def test_numbers_stay() -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        networks = [
            nn.Sequential(nn.Linear(24, 40), nn.SiLU(), nn.Linear(40, 8, bias=False)),
            FeedForward(24),
            DiffusersFeedForward(24, activation_fn="gelu-approximate"),
            DiffusersFeedForward(24, activation_fn="gelu"),
        ]
        x = 3 * torch.randn(2, 7, 24)
    for network in networks:
        network.requires_grad_(False)
        expected = network(x)
        quicken(network, {GatedProjection: GatedDense, GELU: dense_gelu})
        assert any(isinstance(m, Dense | GatedDense) for m in network.modules())
        assert not any(type(m) in (nn.Linear, GELU) for m in network.modules())
        torch.testing.assert_close(network(x), expected, rtol=1e-5, atol=1e-5)


def test_other_precisions_are_left_alone() -> None:
    network = nn.Sequential(nn.Linear(8, 8)).to(torch.bfloat16)
    quicken(network, {})
    assert type(network[0]) is nn.Linear
