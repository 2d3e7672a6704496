"""Figures of visibility against scikit-image and NumPy."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from skimage import color, metrics
from skimage.data import astronaut
from torch import Tensor

from anti_i2v_lit.backbones.lpips_net import load_lpips, lpips_distance
from anti_i2v_lit.checks import PhotoFailure
from anti_i2v_lit.metrics import imperceptibility
from anti_i2v_lit.metrics.imperceptibility import (
    colour_difference,
    lightness_change,
    lpips_of,
    max_change_8bit,
    measure_change,
    psnr,
    ssim,
)


def tensor(pixels: np.ndarray) -> Tensor:
    return torch.from_numpy(pixels.copy()).permute(2, 0, 1).float() / 255


@pytest.fixture(scope="module")
def pixels() -> tuple[np.ndarray, np.ndarray]:
    """An 8-bit photo and the same with up to 16 grey levels of noise, not square."""
    photo = astronaut()[:300, 90:400]
    noise = np.random.default_rng(0).integers(-16, 17, photo.shape)
    return photo, np.clip(photo.astype(int) + noise, 0, 255).astype(np.uint8)


def test_psnr_equals_scikit_image(pixels: tuple[np.ndarray, np.ndarray]) -> None:
    photo, cloak = pixels
    expected = metrics.peak_signal_noise_ratio(photo, cloak)
    assert psnr(tensor(cloak), tensor(photo)) == pytest.approx(expected, abs=1e-4)
    assert psnr(tensor(photo), tensor(photo)) == math.inf


def test_ssim_equals_scikit_image(pixels: tuple[np.ndarray, np.ndarray]) -> None:
    photo, cloak = (p.astype(np.float64) / 255 for p in pixels)
    expected = metrics.structural_similarity(
        photo, cloak, channel_axis=-1, data_range=1.0,
        gaussian_weights=True, sigma=1.5, use_sample_covariance=False,
    )  # fmt: skip
    found = ssim(tensor(pixels[1]), tensor(pixels[0]))
    assert found == pytest.approx(expected, abs=2e-5)
    assert ssim(tensor(pixels[0]), tensor(pixels[0])) == pytest.approx(1, abs=1e-6)


def test_colour_difference_equals_scikit_image(pixels: tuple[np.ndarray, np.ndarray]) -> None:
    labs = [color.rgb2lab(p) for p in pixels]
    expected = color.deltaE_ciede2000(*labs)
    mean, peak = colour_difference(tensor(pixels[1]), tensor(pixels[0]))
    assert mean == pytest.approx(expected.mean(), rel=1e-3)
    assert peak == pytest.approx(np.percentile(expected, 99), rel=1e-3, abs=2e-3)


def test_lightness_change_equals_scikit_image(pixels: tuple[np.ndarray, np.ndarray]) -> None:
    first, second = (color.rgb2lab(p)[..., 0] for p in pixels)
    found = lightness_change(tensor(pixels[1]), tensor(pixels[0]))
    assert found == pytest.approx(np.abs(first - second).mean(), rel=1e-4)


def test_a_pure_change_of_colour_leaves_lightness(pixels: tuple[np.ndarray, np.ndarray]) -> None:
    lab = color.rgb2lab(pixels[0] / 255 * 0.5 + 0.25)
    lab[..., 1] += 4
    photo, cloak = (
        torch.from_numpy(color.lab2rgb(x)).permute(2, 0, 1).float() for x in (lab - [0, 4, 0], lab)
    )
    assert lightness_change(cloak, photo) < 1e-3 < colour_difference(cloak, photo)[0]


def test_max_change_is_exact_in_8_and_16_bit(pixels: tuple[np.ndarray, np.ndarray]) -> None:
    photo, cloak = pixels
    expected = np.abs(photo.astype(int) - cloak.astype(int)).max()
    assert max_change_8bit(tensor(cloak), tensor(photo)) == expected
    deep = torch.tensor([1000, 1300]) / 65535
    first, second = (v.expand(3, 1, 1).float() for v in deep)
    assert max_change_8bit(first, second) == pytest.approx(300 / 257, rel=1e-6)


@pytest.mark.parametrize("measure", [psnr, ssim, max_change_8bit, lightness_change])
def test_bands_do_not_change_the_figure(
    pixels: tuple[np.ndarray, np.ndarray],
    monkeypatch: pytest.MonkeyPatch,
    measure: Callable[[Tensor, Tensor], float],
) -> None:
    cloak, photo = tensor(pixels[1]), tensor(pixels[0])
    whole, differences = measure(cloak, photo), colour_difference(cloak, photo)
    monkeypatch.setattr(imperceptibility, "BAND_PIXELS", 7 * photo.shape[-1])
    assert measure(cloak, photo) == pytest.approx(whole, rel=1e-6)
    assert colour_difference(cloak, photo) == pytest.approx(differences, rel=1e-6)


def test_bands_stay_small_and_cover_the_photo_once() -> None:
    photo = torch.arange(3 * 3000 * 900, dtype=torch.float32).reshape(3, 3000, 900)
    bands = [a for a, _ in imperceptibility._bands(photo, photo)]
    assert torch.equal(torch.cat(bands, dim=1), photo)
    assert max(b[0].numel() for b in bands) <= imperceptibility.BAND_PIXELS


def test_large_photos_are_judged_by_lpips_on_512_pixels(
    pixels: tuple[np.ndarray, np.ndarray],
) -> None:
    network = load_lpips()
    first, second = (tensor(p)[:, :128, :160] for p in pixels)
    with torch.no_grad():
        small = lpips_distance(network, first[None], second[None]).item()
        assert lpips_of(first, second, network) == pytest.approx(small, rel=1e-6)
        sizes: list[tuple[int, ...]] = []
        network.net.register_forward_hook(lambda _, inputs, __: sizes.append(inputs[0].shape))
        large = [x.repeat_interleave(8, 1).repeat_interleave(8, 2) for x in (first, second)]
        lpips_of(*large, network)
    assert {tuple(s[-2:]) for s in sizes} == {(410, 512)}


def test_measure_change_names_every_figure(pixels: tuple[np.ndarray, np.ndarray]) -> None:
    cloak, photo = tensor(pixels[1]), tensor(pixels[0])
    with torch.no_grad():
        figures = measure_change(cloak, photo, load_lpips())
    assert figures["psnr"] == psnr(cloak, photo)
    assert figures["ciede2000"] < figures["ciede2000_p99"]
    assert figures["max_change_8bit"] == 16
    assert set(figures) == {
        "psnr", "ssim", "ciede2000", "ciede2000_p99", "lpips", "max_change_8bit",
    }  # fmt: skip


def test_photos_of_different_size_or_range_are_refused() -> None:
    network = load_lpips()
    with pytest.raises(ValueError, match="photo's shape"):
        measure_change(torch.zeros(3, 20, 20), torch.zeros(3, 20, 21), network)
    with pytest.raises(ValueError, match="divide 8-bit pixels by 255"):
        measure_change(torch.full((3, 20, 20), 2.0), torch.zeros(3, 20, 20), network)
    with pytest.raises(PhotoFailure, match="at least 11 pixels"):
        ssim(torch.zeros(3, 10, 20), torch.zeros(3, 10, 20))
