from collections.abc import Callable

import pytest
import torch
from torch import nn

from anti_i2v_lit.surrogates.embedded.autoencoder import PictureAutoencoder
from anti_i2v_lit.surrogates.embedded.frame_autoencoder import AutoencoderShape, FrameAutoencoder
from anti_i2v_lit.surrogates.embedded.ldm_autoencoder import LdmAutoencoder, LdmShape
from anti_i2v_lit.surrogates.embedded.whitening import (
    fold_shift_and_scale,
    fold_whitening,
    measure_whitening,
)


def framewise() -> PictureAutoencoder:
    shape = AutoencoderShape(
        block_channels=(8, 8, 16), latent_channels=4, norm_groups=4, sample_size=32
    )
    return FrameAutoencoder(shape).eval()


def first_stage() -> PictureAutoencoder:
    return LdmAutoencoder(LdmShape(sample_size=32)).eval()


BOTH = pytest.mark.parametrize("make", [framewise, first_stage])


def covariance(latents: torch.Tensor) -> torch.Tensor:
    return torch.cov(latents.double().movedim(1, -1).reshape(-1, latents.shape[1]).T)


@BOTH
@torch.no_grad()
def test_fold_gives_identity_covariance_and_leaves_the_pictures_alone(
    make: Callable[[], PictureAutoencoder],
) -> None:
    torch.manual_seed(1)
    model = make()
    channels = model.shape.latent_channels
    # Latents far from white: mixed, with deviations that differ a hundredfold.
    mixing = torch.randn(channels, channels) @ torch.diag(torch.logspace(1, -1, channels))
    last = model.moment_layer()
    last.weight[:channels] = torch.einsum("oi,ichw->ochw", mixing, last.weight[:channels])
    images = torch.rand(16, 3, 32, 32) * 2 - 1
    before, _ = model.encode(images)
    decoded = model.decode(before)
    whitening = measure_whitening(before)
    fold_whitening(model, whitening, logvar=-12.0)
    after, logvar = model.encode(images)
    expected = torch.eye(channels).double()
    torch.testing.assert_close(covariance(after), expected, atol=2e-3, rtol=0)
    torch.testing.assert_close(model.decode(after), decoded, atol=1e-4, rtol=1e-3)
    assert (logvar == -12.0).all()
    assert (whitening.deviations.diff() <= 0).all()


@BOTH
@torch.no_grad()
def test_folding_the_batch_normalisation_changes_no_latent(
    make: Callable[[], PictureAutoencoder],
) -> None:
    torch.manual_seed(2)
    model = make()
    channels = model.shape.latent_channels
    statistics = nn.BatchNorm2d(channels, affine=False)
    statistics.running_mean = torch.randn(channels)
    statistics.running_var = torch.rand(channels) + 0.1
    statistics.eval()
    images = torch.rand(2, 3, 32, 32) * 2 - 1
    expected = statistics(model.encode(images)[0])
    fold_shift_and_scale(model, statistics)
    torch.testing.assert_close(model.encode(images)[0], expected, atol=1e-5, rtol=1e-4)


def test_too_few_latents_are_refused() -> None:
    with pytest.raises(ValueError, match="encode more"):
        measure_whitening(torch.randn(1, 8, 2, 2))
