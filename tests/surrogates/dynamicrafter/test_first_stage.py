"""The first stage against numbers of the published implementation."""

from __future__ import annotations

import pytest
import torch

from anti_i2v_lit.surrogates.dynamicrafter import FirstStage

from .conftest import close, parity


def test_published_numbers() -> None:
    config, weights, io = parity("first_stage")
    model = FirstStage(**config).eval()
    model.load_state_dict(weights, strict=True)
    x = io["in.x"].requires_grad_()
    moments = model.moments(x)
    close(moments, io["out.moments"])
    mean = moments.chunk(2, dim=1)[0]
    close(model.decode(mean), io["out.decoded"])
    weight = io["in.grad_output"]
    scored = moments if weight.shape == moments.shape else mean
    (gradient,) = torch.autograd.grad((scored * weight).sum(), x)
    close(gradient, io["out.grad_x"])


def test_checkpointing_changes_nothing_and_a_dropped_decoder_says_so() -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = FirstStage(ch=32, ch_mult=(1, 2), num_res_blocks=1, resolution=16).eval()
    frames = torch.randn(1, 3, 18, 12, generator=torch.Generator().manual_seed(1))
    gradients = []
    for checkpointing in (False, True):
        x = frames.clone().requires_grad_()
        moments, features = model.moments_and_taps(x, frozenset(model.tap_names), checkpointing)
        assert tuple(features) == model.tap_names
        gradients.append(torch.autograd.grad(moments.square().sum(), x)[0])
    torch.testing.assert_close(gradients[0], gradients[1], atol=1e-6, rtol=1e-5)
    model.drop_decoder()
    assert all(name.startswith(("encoder.", "quant_conv.")) for name in model.state_dict())
    with pytest.raises(ValueError, match="without its decoder"):
        model.decode(torch.zeros(1, 4, 9, 6))
