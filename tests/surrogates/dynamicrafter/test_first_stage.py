"""The first stage against numbers of the published implementation."""

from __future__ import annotations

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
