import pytest
import torch
from torch import nn

from anti_i2v_lit.surrogates.embedded.frame_autoencoder import AutoencoderShape, FrameAutoencoder
from anti_i2v_lit.surrogates.embedded.whitening import (
    fold_shift_and_scale,
    fold_whitening,
    measure_whitening,
)

SHAPE = AutoencoderShape(
    block_channels=(8, 8, 16), latent_channels=4, norm_groups=4, sample_size=32
)


def covariance(latents: torch.Tensor) -> torch.Tensor:
    return torch.cov(latents.double().movedim(1, -1).reshape(-1, latents.shape[1]).T)


@torch.no_grad()
def test_fold_gives_identity_covariance_and_leaves_the_pictures_alone() -> None:
    torch.manual_seed(1)
    model = FrameAutoencoder(SHAPE).eval()
    # Latents far from white: mixed, with deviations that differ a hundredfold.
    mixing = torch.randn(4, 4) @ torch.diag(torch.tensor([10.0, 1.0, 0.5, 0.1]))
    last = model.encoder.conv_out.conv
    last.weight[:4] = torch.einsum("oi,ichw->ochw", mixing, last.weight[:4])
    images = torch.rand(16, 3, 32, 32) * 2 - 1
    before, _ = model.encode(images)
    decoded = model.decode(before)
    whitening = measure_whitening(before)
    fold_whitening(model, whitening, logvar=-12.0)
    after, logvar = model.encode(images)
    torch.testing.assert_close(covariance(after), torch.eye(4).double(), atol=2e-3, rtol=0)
    torch.testing.assert_close(model.decode(after), decoded, atol=1e-4, rtol=1e-3)
    assert (logvar == -12.0).all()
    assert (whitening.deviations.diff() <= 0).all()


@torch.no_grad()
def test_folding_the_batch_normalisation_changes_no_latent() -> None:
    torch.manual_seed(2)
    model = FrameAutoencoder(SHAPE).eval()
    statistics = nn.BatchNorm2d(4, affine=False)
    statistics.running_mean = torch.randn(4)
    statistics.running_var = torch.rand(4) + 0.1
    statistics.eval()
    images = torch.rand(2, 3, 32, 32) * 2 - 1
    expected = statistics(model.encode(images)[0])
    fold_shift_and_scale(model, statistics)
    torch.testing.assert_close(model.encode(images)[0], expected, atol=1e-5, rtol=1e-4)


def test_too_few_latents_are_refused() -> None:
    with pytest.raises(ValueError, match="encode more"):
        measure_whitening(torch.randn(1, 8, 2, 2))
