"""The U-Net and the Resampler against numbers of the published implementation."""

from __future__ import annotations

import json

import pytest
import torch

from anti_i2v_lit.surrogates.dynamicrafter import Resampler, UNet, attention
from anti_i2v_lit.surrogates.dynamicrafter.model import DynamiCrafter
from anti_i2v_lit.surrogates.dynamicrafter.settings import PUBLISHED

from .conftest import close, data_folder, parity

SMALL = {
    "in_channels": 8,
    "model_channels": 32,
    "out_channels": 4,
    "num_res_blocks": 1,
    "attention_resolutions": (1,),
    "channel_mult": (1, 2),
    "num_head_channels": 16,
    "context_dim": 8,
    "temporal_length": 3,
    "use_linear": True,
    "use_relative_position": False,
    "addition_attention": True,
    "image_cross_attention": True,
    "fs_condition": True,
}


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


def small(**changes: object) -> UNet:
    """A U-Net with random weights, none of them zero."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = UNet(**{**SMALL, **changes}).eval()
        for parameter in model.parameters():
            torch.nn.init.normal_(parameter, std=0.1)
    return model


def arguments() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    source = torch.Generator().manual_seed(2)
    x = torch.randn(2, 8, 3, 8, 4, generator=source)
    return x, torch.tensor([3, 900]), torch.randn(2, 77 + 48, 8, generator=source)


def test_full_configuration_has_the_published_names_and_shapes() -> None:
    path = data_folder() / "parity" / "manifests" / "dynamicrafter_512.json"
    if not path.is_file():
        pytest.skip(f"published names are absent: {path}")
    manifest = json.loads(path.read_text())
    found = DynamiCrafter.on_meta(PUBLISHED[512]).state_dict()
    assert {name: list(value.shape) for name, value in found.items()} == manifest["shapes"]


def test_image_tokens_are_dealt_to_their_frames_and_others_are_shared() -> None:
    model = small(temporal_attention=False, addition_attention=False)
    x, timesteps, context = arguments()
    _, before = model.tapped(x, timesteps, context, None, frozenset({"input.1"}), False)
    changed = context.clone()
    changed[:, 77 + 16 : 77 + 32] += 1  # the second frame's
    _, after = model.tapped(x, timesteps, changed, None, frozenset({"input.1"}), False)
    moved = (after["input.1"] - before["input.1"]).flatten(1).abs().amax(1) > 1e-6
    assert moved.tolist() == [False, True, False] * 2
    shared = context[:, : 77 + 5]
    _, before = model.tapped(x, timesteps, shared, None, frozenset({"input.1"}), False)
    _, after = model.tapped(x, timesteps, shared * 2, None, frozenset({"input.1"}), False)
    assert ((after["input.1"] - before["input.1"]).flatten(1).abs().amax(1) > 1e-6).all()


def test_attention_in_parts_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    model = small()
    whole = model(*arguments())
    monkeypatch.setattr(attention, "_MAX_ROWS", 5)
    torch.testing.assert_close(model(*arguments()), whole, atol=1e-5, rtol=1e-5)


def test_maps_are_added_to_every_third_block_down() -> None:
    model = small()
    x, timesteps, context = arguments()
    zero = torch.zeros(())
    added = model(x, timesteps, context, [zero])
    torch.testing.assert_close(added, model(x, timesteps, context))
    assert not torch.allclose(model(x, timesteps, context, [zero + 1]), added)
    with pytest.raises(ValueError, match="expected 1 maps, got 2"):
        model(x, timesteps, context, [zero, zero])


def test_frame_rate_is_a_condition_with_a_default() -> None:
    model = small(default_fs=5)
    x, timesteps, context = arguments()
    own = model(x, timesteps, context)
    told = model(x, timesteps, context, fs=torch.tensor([5, 5]))
    torch.testing.assert_close(own, told, atol=0, rtol=0)
    assert not torch.allclose(own, model(x, timesteps, context, fs=torch.tensor([6, 6])))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_head_channels": -1}, "num_heads or num_head_channels"),
        ({"num_head_channels": -1, "num_heads": 2}, "addition_attention"),
        ({"use_relative_position": True, "temporal_length": None}, "temporal_length"),
    ],
)
def test_contradictions_are_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        UNet(**{**SMALL, **changes})
