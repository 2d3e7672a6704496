"""How visible is a cloak? Figures of two photos of any size, in bounded memory."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import lpips
import torch
import torch.nn.functional as F
from torch import Tensor

from anti_i2v_lit.backbones.lpips_net import load_lpips, lpips_distance
from anti_i2v_lit.checks import PhotoFailure
from anti_i2v_lit.metrics.base import CloakedPhoto, Metric, check_pair
from anti_i2v_lit.ops.colour import ciede2000, rgb_to_lab

BAND_PIXELS = 1 << 18  # pixels worked on at a time
LPIPS_SIDE = 512  # pixels of the longer side that LPIPS sees
SSIM_RADIUS = 5  # pixels; window of 11, Gaussian of 1.5 pixels
SSIM_SIGMA = 1.5
DIFFERENCE_BINS_PER_UNIT = 1000  # resolution of the percentile of colour differences
MAX_DIFFERENCE = 200  # CIEDE2000 units; no two sRGB colours are this far apart


def measure_change(cloak: Tensor, photo: Tensor, network: lpips.LPIPS) -> dict[str, float]:
    """All figures of a cloak against its photo.

    Args:
        cloak: [3, H, W] in [0, 1], float32.
        photo: same shape and range.
        network: from `backbones.lpips_net.load_lpips`.

    Returns:
        `psnr` (dB), `ssim`, `ciede2000` and `ciede2000_p99` (CIEDE2000 units), `lpips`,
        `max_change_8bit` (grey levels).

    Raises:
        ValueError: shapes, types or ranges.
        PhotoFailure: a side below 11 pixels, for which SSIM is not defined.
    """
    check_pair(cloak, photo)
    mean, peak = colour_difference(cloak, photo)
    return {
        "psnr": psnr(cloak, photo),
        "ssim": ssim(cloak, photo),
        "ciede2000": mean,
        "ciede2000_p99": peak,
        "lpips": lpips_of(cloak, photo, network),
        "max_change_8bit": max_change_8bit(cloak, photo),
    }


def psnr(cloak: Tensor, photo: Tensor) -> float:
    """Peak signal-to-noise ratio in dB over all channels; infinite for equal photos."""
    total = sum((a.double() - b.double()).square().sum().item() for a, b in _bands(cloak, photo))
    return math.inf if total == 0 else -10 * math.log10(total / photo.numel())


def max_change_8bit(cloak: Tensor, photo: Tensor) -> float:
    """Largest change of a channel in grey levels; exact for 8-bit and 16-bit photos."""
    largest = max(
        ((a * 65535).round() - (b * 65535).round()).abs().max().item()
        for a, b in _bands(cloak, photo)
    )
    return largest / 257  # 65535 = 255 * 257


def ssim(cloak: Tensor, photo: Tensor) -> float:
    """Structural similarity, 1 for equal photos, mean over channels.

    Wang et al., IEEE TIP 2004: Gaussian window of 11 pixels and sigma 1.5, K1 = 0.01,
    K2 = 0.03, population statistics, windows that lie inside the photo. Equal to scikit-image's
    `structural_similarity(..., gaussian_weights=True, use_sample_covariance=False)`.

    Raises:
        PhotoFailure: a side below 11 pixels.
    """
    window = 2 * SSIM_RADIUS + 1
    if min(photo.shape[-2:]) < window:
        raise PhotoFailure(
            f"SSIM needs at least {window} pixels a side, got {tuple(photo.shape[-2:])}"
        )
    total, count = 0.0, 0
    for a, b in _bands(cloak, photo, halo=SSIM_RADIUS):
        similarity = _ssim_map(a, b)
        total += similarity.double().sum().item()
        count += similarity.numel()
    return total / count


def colour_difference(cloak: Tensor, photo: Tensor) -> tuple[float, float]:
    """Mean and 99th percentile of the CIEDE2000 difference over pixels.

    The percentile is read off a histogram with 1000 bins per unit, so it is exact to 0.001.
    """
    highest = MAX_DIFFERENCE * DIFFERENCE_BINS_PER_UNIT - 1
    histogram = torch.zeros(1, dtype=torch.int64)  # as long as the largest difference so far
    total = 0.0
    for a, b in _bands(cloak, photo):
        difference = ciede2000(rgb_to_lab(a[None]), rgb_to_lab(b[None])).flatten()
        total += difference.double().sum().item()
        bins = (difference * DIFFERENCE_BINS_PER_UNIT).long().clamp(max=highest)
        found = torch.bincount(bins.cpu(), minlength=len(histogram))
        found[: len(histogram)] += histogram
        histogram = found
    pixels = photo[0].numel()
    reached = histogram.cumsum(0) >= 0.99 * pixels
    peak = int(reached.int().argmax())  # the first bin that reaches 99 %
    return total / pixels, peak / DIFFERENCE_BINS_PER_UNIT


def lightness_change(cloak: Tensor, photo: Tensor) -> float:
    """Mean over pixels of the absolute change of L* (CIE 1976), in units of L* (0 to 100)."""
    total = 0.0
    for a, b in _bands(cloak, photo):
        change = rgb_to_lab(a[None])[:, 0] - rgb_to_lab(b[None])[:, 0]
        total += change.abs().double().sum().item()
    return total / photo[0].numel()


def lpips_of(cloak: Tensor, photo: Tensor, network: lpips.LPIPS) -> float:
    """LPIPS (AlexNet) of copies whose longer side is at most 512 pixels.

    LPIPS was calibrated on small patches; on a full-size photo AlexNet sees only fine grain,
    and 12 megapixels would take several GB.
    """
    first, second = (at_lpips_size(x[None]) for x in (cloak, photo))
    return lpips_distance(network, first, second).item()


def _bands(first: Tensor, second: Tensor, halo: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
    """Bands of full rows [3, rows, W] of two photos; neighbours share 2 * halo rows."""
    height, width = first.shape[-2:]
    rows = max(1, BAND_PIXELS // width)
    for start in range(halo, height - halo, rows):
        stop = min(start + rows, height - halo)
        window = slice(start - halo, stop + halo)
        yield first[:, window], second[:, window]


def _ssim_map(first: Tensor, second: Tensor) -> Tensor:
    """SSIM at the positions where the window fits, [3, H - 10, W - 10]."""
    # Around 0.5 instead of 0, the difference of squares below loses fewer digits.
    a, b = first - 0.5, second - 0.5
    mean_a, mean_b = _smooth(a), _smooth(b)
    var_a, var_b = _smooth(a * a) - mean_a**2, _smooth(b * b) - mean_b**2
    covariance = _smooth(a * b) - mean_a * mean_b
    mean_a, mean_b = mean_a + 0.5, mean_b + 0.5
    c1, c2 = 0.01**2, 0.03**2
    luminance = (2 * mean_a * mean_b + c1) / (mean_a**2 + mean_b**2 + c1)
    return luminance * (2 * covariance + c2) / (var_a + var_b + c2)


def _smooth(x: Tensor) -> Tensor:
    """Gaussian window at the positions where it fits; [3, H, W] -> [3, H - 10, W - 10].

    Shifted sums, rows first: several times faster than a convolution with one channel.
    """
    size = 2 * SSIM_RADIUS + 1
    weights = [math.exp(-0.5 * ((k - SSIM_RADIUS) / SSIM_SIGMA) ** 2) for k in range(size)]
    weights = [w / sum(weights) for w in weights]
    for dim in (1, 2):
        length = x.shape[dim] - size + 1
        total = x.narrow(dim, 0, length) * weights[0]
        for shift in range(1, size):
            total.add_(x.narrow(dim, shift, length), alpha=weights[shift])
        x = total
    return x


def at_lpips_size(photos: Tensor) -> Tensor:
    """Photos [N, 3, H, W] with a longer side of at most 512 pixels, antialiased."""
    height, width = photos.shape[-2:]
    factor = LPIPS_SIDE / max(height, width)
    if factor >= 1:
        return photos
    size = (max(1, round(height * factor)), max(1, round(width * factor)))
    return F.interpolate(photos, size=size, mode="bilinear", align_corners=False, antialias=True)


@dataclass(kw_only=True)
class NoSettings:
    """A metric without settings."""


class Psnr(Metric[CloakedPhoto]):
    """Peak signal-to-noise ratio of the cloak against the photo, in dB."""

    Config = NoSettings
    direction, unit = "higher", "dB"
    source = "10 log10(1 / mean squared error), all channels together"

    def __init__(self, config: NoSettings) -> None:
        super().__init__()

    def _score(self, subject: CloakedPhoto) -> float:
        return psnr(subject.cloak, subject.photo)


class Ssim(Metric[CloakedPhoto]):
    """Structural similarity of the cloak and the photo."""

    Config = NoSettings
    direction, unit = "higher", "1"
    source = "Wang et al., Image quality assessment, IEEE TIP 2004"

    def __init__(self, config: NoSettings) -> None:
        super().__init__()

    def _score(self, subject: CloakedPhoto) -> float:
        return ssim(subject.cloak, subject.photo)


class ColourDifference(Metric[CloakedPhoto]):
    """Mean CIEDE2000 colour difference of the cloak and the photo."""

    Config = NoSettings
    direction, unit = "lower", "CIEDE2000"
    source = "Sharma, Wu, Dalal, The CIEDE2000 color-difference formula, 2005; mean over pixels"

    def __init__(self, config: NoSettings) -> None:
        super().__init__()

    def _score(self, subject: CloakedPhoto) -> float:
        return colour_difference(subject.cloak, subject.photo)[0]


class ColourDifferencePeak(Metric[CloakedPhoto]):
    """99th percentile of the CIEDE2000 colour difference over pixels."""

    Config = NoSettings
    direction, unit = "lower", "CIEDE2000"
    source = "Sharma, Wu, Dalal, The CIEDE2000 color-difference formula, 2005; 99th percentile"

    def __init__(self, config: NoSettings) -> None:
        super().__init__()

    def _score(self, subject: CloakedPhoto) -> float:
        return colour_difference(subject.cloak, subject.photo)[1]


class Lpips(Metric[CloakedPhoto]):
    """LPIPS (AlexNet) distance of the cloak and the photo, at 512 pixels at most."""

    Config = NoSettings
    direction, unit = "lower", "1"
    source = "Zhang et al., The unreasonable effectiveness of deep features, CVPR 2018; v0.1"

    def __init__(self, config: NoSettings) -> None:
        super().__init__()
        self._network = [load_lpips()]  # in a list, so that its weights are not ours

    def _score(self, subject: CloakedPhoto) -> float:
        network = self._network[0].to(subject.photo.device)
        return lpips_of(subject.cloak, subject.photo, network)


class MaxChange(Metric[CloakedPhoto]):
    """Largest change of any channel of any pixel, in grey levels."""

    Config = NoSettings
    direction, unit = "lower", "grey levels"
    source = "L-infinity norm of the residual times 255"

    def __init__(self, config: NoSettings) -> None:
        super().__init__()

    def _score(self, subject: CloakedPhoto) -> float:
        return max_change_8bit(subject.cloak, subject.photo)


class LightnessChange(Metric[CloakedPhoto]):
    """Mean absolute change of L* between the cloak and the photo; 0 if only colour changed."""

    Config = NoSettings
    direction, unit = "lower", "L*"
    source = "CIE 1976 L*a*b* (CIE 15:2018), D65; mean absolute difference over pixels"

    def __init__(self, config: NoSettings) -> None:
        super().__init__()

    def _score(self, subject: CloakedPhoto) -> float:
        return lightness_change(subject.cloak, subject.photo)
