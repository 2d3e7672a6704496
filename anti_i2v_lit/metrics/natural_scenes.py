"""Statistics of natural scenes: what BRISQUE and NIQE look at."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

RADIUS, SIGMA = 3, 7 / 6  # pixels; window of 7
SHAPES = torch.arange(0.2, 10, 0.001, dtype=torch.float64)  # of generalised Gaussians


def contrast_normalised(grey: Tensor) -> Tensor:
    """Mean-subtracted contrast-normalised coefficients (MSCN).

    Mittal, Moorthy and Bovik, BRISQUE, IEEE TIP 2012, equations 1 to 3 with C = 1; the picture
    is continued by zeros.

    Args:
        grey: [N, H, W], grey levels 0 to 255, float64.

    Returns:
        [N, H, W].
    """
    mean = _windowed(grey)
    spread = (_windowed(grey.square()) - mean.square()).abs().sqrt()
    return (grey - mean) / (spread + 1)


def asymmetric_gaussians(samples: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Fit asymmetric generalised Gaussians by their moments.

    Lasmar, Stitou and Berthoumieu, ICIP 2009; equations 9 to 15 of BRISQUE. Rows without values
    on one side count that side as 0.

    Args:
        samples: [N, K], float64.

    Returns:
        Shape (between 0.2 and 10, to 0.001), left and right root mean square, [N] each.
    """
    squares = samples.square()
    below = samples < 0
    left = (squares * below).sum(dim=1) / below.sum(dim=1).clamp_min(1)
    right = (squares * ~below).sum(dim=1) / (~below).sum(dim=1).clamp_min(1)
    left, right = left.sqrt(), right.sqrt()
    ratio = left / right
    r_hat = samples.abs().mean(dim=1).square() / squares.mean(dim=1)
    wanted = r_hat * (ratio**3 + 1) * (ratio + 1) / (ratio.square() + 1).square()
    table = _moment_ratio(SHAPES).to(samples.device)
    place = torch.searchsorted(table, wanted.nan_to_num(table[0].item())).clamp(1, len(table) - 1)
    nearer_below = wanted - table[place - 1] < table[place] - wanted
    shape = SHAPES.to(samples.device)[torch.where(nearer_below, place - 1, place)]
    return shape, left, right


def mean_of_fit(shape: Tensor, left: Tensor, right: Tensor) -> Tensor:
    """Mean of asymmetric generalised Gaussians, BRISQUE's equation 16, [N]."""
    return (right - left) * scale_of_fit(shape) * gamma(2 / shape) / gamma(1 / shape)


def scale_of_fit(shape: Tensor) -> Tensor:
    """Scale parameter of a generalised Gaussian over its root mean square, [N]."""
    return (gamma(1 / shape) / gamma(3 / shape)).sqrt()


def gamma(x: Tensor) -> Tensor:
    """Gamma function of positive numbers."""
    return torch.lgamma(x).exp()


def _moment_ratio(shape: Tensor) -> Tensor:
    return gamma(2 / shape).square() / (gamma(1 / shape) * gamma(3 / shape))


def _windowed(x: Tensor) -> Tensor:
    """Gaussian mean around every pixel, zeros outside, [N, H, W]."""
    weights = [math.exp(-0.5 * (k / SIGMA) ** 2) for k in range(-RADIUS, RADIUS + 1)]
    window = x.new_tensor(weights) / sum(weights)
    rows = F.conv2d(x[:, None], window[None, None, :, None], padding=(RADIUS, 0))
    return F.conv2d(rows, window[None, None, None, :], padding=(0, RADIUS))[:, 0]
