"""The temporal autoencoder against numbers of the published implementation."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from anti_i2v_lit.surrogates.open_sora import TemporalVAE
from tests.surrogates.open_sora.conftest import Parity, assert_same, manifest_of, parity_of

SMALL = {"filters": 4, "num_groups": 2, "num_res_blocks": 1}


@pytest.fixture(scope="module")
def parity(real_data: Path) -> Parity:
    return parity_of(real_data, "opensora_vae_temporal")


def seeded(**fields: object) -> TemporalVAE:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return TemporalVAE(**{**SMALL, **fields}).eval()


def test_moments_reconstruction_and_gradient_are_the_published_ones(parity: Parity) -> None:
    model = TemporalVAE(**parity.config).eval()
    model.load_state_dict(parity.weights, strict=True)
    clip = parity["in.x"].requires_grad_()
    posterior = model.encode(clip)
    assert_same(posterior.mean, parity["out.mean"])
    assert_same(posterior.logvar, parity["out.logvar"])
    with torch.no_grad():
        assert_same(model.decode(posterior.mean, num_frames=clip.shape[2]), parity["out.decoded"])
    loss = (posterior.mean * parity["in.grad_output"]).sum()
    assert_same(torch.autograd.grad(loss, clip)[0], parity["out.grad_x"])


def test_full_model_has_the_published_names_and_shapes(real_data: Path) -> None:
    with torch.device("meta"):
        model = TemporalVAE()
    found = {f"temporal_vae.{k}": list(v.shape) for k, v in model.state_dict().items()}
    assert found == manifest_of(real_data, "opensora_v1_2_vae_temporal")


@pytest.mark.parametrize("num_frames", [1, 2, 4, 5, 8])
@pytest.mark.parametrize("downsample", [(False, True, True), (True, False, True), (True,)])
def test_every_length_comes_back(num_frames: int, downsample: tuple[bool, ...]) -> None:
    model = seeded(
        temporal_downsample=downsample, channel_multipliers=(1, 2, 2, 4)[: len(downsample) + 1]
    )
    clip = torch.randn(2, 4, num_frames, 3, 5, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        posterior = model.encode(clip)
        latent_frames = model.num_latent_frames(num_frames)
        assert posterior.mean.shape == posterior.logvar.shape == (2, 4, latent_frames, 3, 5)
        assert model.decode(posterior.mean, num_frames).shape == clip.shape


def test_convolutions_look_back_only() -> None:
    model = seeded(num_res_blocks=0, filters=2)
    clip = torch.randn(1, 4, 8, 3, 3, generator=torch.Generator().manual_seed(1))
    changed = clip.clone()
    changed[:, :, 4:] += 1.0
    with torch.no_grad():
        first, second = (model.encoder.stage("conv_in", value) for value in (clip, changed))
    assert torch.equal(first[:, :, :4], second[:, :, :4])
    assert not torch.equal(first[:, :, 4:], second[:, :, 4:])


def test_variance_is_kept_in_bounds_and_samples_follow_their_generator() -> None:
    model = seeded()
    with torch.no_grad():
        model.quant_conv.conv.bias[4:] = 1000.0
        posterior = model.encode(torch.zeros(1, 4, 4, 2, 2))
    assert posterior.logvar.max() == 20.0
    one, same, other = (posterior.sample(torch.Generator().manual_seed(i)) for i in (1, 1, 2))
    assert torch.equal(one, same) and not torch.allclose(one, other)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"activation_fn": "gelu"}, "activation_fn"),
        ({"temporal_downsample": (True, True)}, "3 entries"),
    ],
)
def test_impossible_settings_are_refused(fields: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        seeded(**fields)
