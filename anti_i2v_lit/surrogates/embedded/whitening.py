"""Whiten an autoencoder's latents exactly, by rewriting linear layers.

The latent of a whitened autoencoder has mean zero and identity covariance over the training
pictures. Nothing else changes: decoding an encoding gives the same picture. Large models do the
same with a shift and scale per channel, or with a batch normalisation (FLUX.2). Whitening also
gives the directions of little variance, which carry fine detail, unit scale; an encoder then
reacts to small perturbations as strongly as those of large models do.
"""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor, nn

from anti_i2v_lit.surrogates.embedded.autoencoder import PictureAutoencoder


@dataclasses.dataclass(frozen=True, kw_only=True)
class Whitening:
    """The map ``w = matrix @ (z - mean)`` and its parts."""

    mean: Tensor  # [C], mean of the latents before
    matrix: Tensor  # [C, C], rows are principal directions divided by their deviation
    inverse: Tensor  # [C, C], inverse of ``matrix``
    deviations: Tensor  # [C], standard deviation along each principal direction, falling


def measure_whitening(latents: Tensor, *, floor: float = 1e-4) -> Whitening:
    """Principal-component whitening of ``[N, C, h, w]`` latents, in float64.

    Args:
        latents: Latent means of training pictures.
        floor: Smallest standard deviation divided by, share of the largest.

    Raises:
        ValueError: Fewer latent vectors than a covariance needs.
    """
    channels = latents.shape[1]
    vectors = latents.double().movedim(1, -1).reshape(-1, channels)
    if len(vectors) <= channels:
        raise ValueError(
            f"{len(vectors)} latent vectors arrived; expected more than {channels}; encode more."
        )
    mean = vectors.mean(0)
    values, directions = torch.linalg.eigh(torch.cov(vectors.T))
    deviations, directions = values.clamp_min(0).sqrt().flip(0), directions.flip(1)
    deviations = deviations.clamp_min(float(deviations[0]) * floor)
    # The sign of an eigenvector is arbitrary; a positive largest entry makes runs comparable.
    signs = directions.gather(0, directions.abs().argmax(0, keepdim=True)).sign()
    directions = directions * signs
    return Whitening(
        mean=mean,
        matrix=(directions / deviations).T.contiguous(),
        inverse=(directions * deviations).contiguous(),
        deviations=deviations,
    )


@torch.no_grad()
def fold_shift_and_scale(model: PictureAutoencoder, statistics: nn.BatchNorm2d) -> None:
    """Write the batch normalisation between encoder and decoder into the encoder's last layer."""
    if statistics.running_mean is None or statistics.running_var is None:
        raise ValueError("statistics track no running values; expected them; use the default.")
    scale = (statistics.running_var.double() + statistics.eps).rsqrt()
    _fold_encoder(model, torch.diag(scale), statistics.running_mean.double())


@torch.no_grad()
def fold_whitening(
    model: PictureAutoencoder, whitening: Whitening, *, logvar: float = -12.0
) -> None:
    """Make ``model`` encode to whitened latents and decode from them.

    The decoder's layers that read the latent are linear in it, so they absorb the inverse matrix
    exactly. They do not absorb the mean: at the zero-padded border that would not be exact. A mean
    that is already zero (see :func:`fold_shift_and_scale`) makes the whole fold exact; what is
    left of it is kept in the latent instead of being subtracted.

    Args:
        model: Changed in place.
        whitening: The map of :func:`measure_whitening`.
        logvar: Constant log variance given to the posterior; -12 is a deviation of 0.0025.
    """
    _fold_encoder(model, whitening.matrix, torch.zeros_like(whitening.mean))
    channels = model.shape.latent_channels
    last = model.moment_layer()
    last.weight[channels:] = 0.0
    assert last.bias is not None
    last.bias[channels:] = logvar
    for reader in model.latent_readers():
        weight = torch.einsum("oihw,ij->ojhw", reader.weight.double(), whitening.inverse)
        reader.weight.copy_(weight)


def _fold_encoder(model: PictureAutoencoder, matrix: Tensor, shift: Tensor) -> None:
    """Replace the encoder's mean ``z`` by ``matrix @ (z - shift)``."""
    channels = model.shape.latent_channels
    last = model.moment_layer()
    assert last.bias is not None
    weight, bias = last.weight[:channels].double(), last.bias[:channels].double()
    last.weight[:channels] = torch.einsum("oi,ichw->ochw", matrix, weight).to(last.weight.dtype)
    last.bias[:channels] = (matrix @ (bias - shift)).to(last.bias.dtype)
