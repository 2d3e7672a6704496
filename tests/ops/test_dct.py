"""The DCT against scipy, its inverse, and low-frequency synthesis against both."""

import numpy as np
import pytest
import scipy.fft
import torch

from anti_i2v_lit.ops.dct import analyse, dct_2d, idct_2d, low_frequency_count, synthesise

SIZES = [(8, 8), (33, 50), (64, 47), (1, 9)]


@pytest.fixture(params=SIZES, ids=str)
def images(request):
    generator = torch.Generator().manual_seed(1)
    return torch.rand(2, 3, *request.param, generator=generator)


def test_dct_agrees_with_scipy(images):
    expected = scipy.fft.dctn(images.numpy(), type=2, norm="ortho", axes=(-2, -1))
    np.testing.assert_allclose(dct_2d(images), expected, atol=2e-5)


def test_inverse_dct_agrees_with_scipy(images):
    expected = scipy.fft.idctn(images.numpy(), type=2, norm="ortho", axes=(-2, -1))
    np.testing.assert_allclose(idct_2d(images), expected, atol=2e-5)
    torch.testing.assert_close(idct_2d(dct_2d(images)), images, atol=1e-5, rtol=0)


def test_synthesis_agrees_with_scipy_on_a_zero_padded_block():
    generator = torch.Generator().manual_seed(2)
    block = torch.randn(2, 3, 5, 9, generator=generator)
    padded = np.zeros((2, 3, 33, 50), dtype=np.float32)
    padded[..., :5, :9] = block
    expected = scipy.fft.idctn(padded, type=2, norm="ortho", axes=(-2, -1))
    np.testing.assert_allclose(synthesise(block, (33, 50)), expected, atol=1e-5)


def test_analysis_agrees_with_scipy(images):
    height, width = images.shape[-2:]
    counts = (max(1, height // 3), max(1, width // 3))
    expected = scipy.fft.dctn(images.numpy(), type=2, norm="ortho", axes=(-2, -1))
    expected = expected[..., : counts[0], : counts[1]]
    np.testing.assert_allclose(analyse(images, counts), expected, atol=2e-5)


def test_synthesis_keeps_energy_and_is_undone_by_analysis():
    generator = torch.Generator().manual_seed(3)
    block = torch.randn(1, 3, 16, 12, generator=generator)
    image = synthesise(block, (128, 96))
    assert image.square().sum().item() == pytest.approx(block.square().sum().item(), rel=1e-5)
    torch.testing.assert_close(analyse(image, (16, 12)), block, atol=1e-5, rtol=0)


@pytest.mark.parametrize("transform", [dct_2d, idct_2d, lambda x: synthesise(x, (7, 11))])
def test_gradients_agree_with_finite_differences(transform):
    torch.manual_seed(4)
    values = torch.randn(1, 2, 5, 6, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(transform, values)


def test_counts_follow_the_share_and_never_vanish():
    assert low_frequency_count(512, 0.125) == 64
    assert low_frequency_count(512, 1.0) == 512
    assert low_frequency_count(7, 0.01) == 1


def test_more_frequencies_than_pixels_are_refused():
    with pytest.raises(ValueError, match="at most as many frequencies"):
        synthesise(torch.zeros(1, 3, 9, 9), (8, 8))
