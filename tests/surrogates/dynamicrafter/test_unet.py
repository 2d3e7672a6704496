"""The U-Net and the Resampler against numbers of the published implementation."""

from __future__ import annotations

import torch

from anti_i2v_lit.surrogates.dynamicrafter import Resampler, UNet

from .conftest import close, parity


def test_published_numbers_of_the_resampler() -> None:
    config, weights, io = parity("resampler")
    model = Resampler(**config).eval()
    model.load_state_dict(weights, strict=True)
    x = io["in.x"].requires_grad_()
    y = model(x)
    close(y, io["out.y"])
    (gradient,) = torch.autograd.grad((y * io["in.grad_output"]).sum(), x)
    close(gradient, io["out.grad_x"])


def test_published_numbers_of_the_unet() -> None:
    config, weights, io = parity("unet")
    model = UNet(**config).eval()
    model.load_state_dict(weights, strict=True)
    x, context = io["in.x"].requires_grad_(), io["in.context"].requires_grad_()
    arguments = (x, io["in.timesteps"], context)
    y, features = model.tapped(*arguments, io["in.fs"], frozenset(model.tap_names), True)
    assert y is not None
    close(y, io["out.y"])
    close(model(*arguments, fs=io["in.fs"]), io["out.y"])
    for name, value in features.items():
        close(value, io["out." + name.replace(".", "")])
    gradients = torch.autograd.grad((y * io["in.grad_output"]).sum(), (x, context))
    close(gradients[0], io["out.grad_x"])
    close(gradients[1], io["out.grad_context"])
