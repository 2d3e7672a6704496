"""SDS: the denoiser's error is carried to the photo through the encoder alone."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from anti_i2v_lit.objectives.base import Objective
from anti_i2v_lit.objectives.features import condition_of, denoised_of, mean_square
from anti_i2v_lit.surrogates.base import Surrogate
from anti_i2v_lit.types import Observation, TapRequest


class ScoreDistillation(Objective):
    """Minus the training loss, with the score distillation gradient in place of its own.

    Xue et al., "Toward effective protection against diffusion-based mimicry through score
    distillation", ICLR 2024 (arXiv 2311.12832; github.com/xavihart/Diff-Protect): the gradient at
    the photo's latent `z` is the error `prediction - target` itself, so the denoiser runs forward
    only and the backward pass goes through the encoder. With a positive weight the training loss
    is driven up, SDS(+), with a negative one down, SDS(-), which is the one that the paper
    recommends.

    The value is `-mean((prediction - target)^2)`, as in `denoising`; it is not the function whose
    gradient is taken. Published for images, where the noised latent is the photo's own; here the
    clip is the photo standing still, so the mean error of its latent frames acts on the image
    latent. The error of epsilon, velocity and flow models is the noise error times a
    positive factor of the timestep, which is the weighting that score distillation leaves open.
    """

    @dataclass(kw_only=True)
    class Config:
        """Settings of the score distillation term.

        Attributes:
            weight: signed factor in the total, no unit; positive drives the training loss up.
        """

        weight: float = 1.0

    def __init__(self, config: Config) -> None:
        self.config = config

    @property
    def weight(self) -> float:
        """Signed factor of the term in the total."""
        return self.config.weight

    def taps(self, surrogate: Surrogate) -> TapRequest:
        """The image latent and the whole denoiser; its blocks are not looked at."""
        return TapRequest(condition=True, prediction=True)

    def _loss(
        self, surrogate: Surrogate, cloak: Observation, references: dict[str, Observation]
    ) -> Tensor:
        denoised, latents = denoised_of(cloak), condition_of(cloak).latents.float()
        assert denoised.prediction is not None, "the term requested the prediction"
        error = denoised.prediction.detach().float() - denoised.target.detach().float()
        carried = (_at_latent(error, latents) * latents).flatten(1).mean(dim=1)
        return -mean_square(error) - (carried - carried.detach())


def _at_latent(error: Tensor, latents: Tensor) -> Tensor:
    """The error [B, F, C, h, w] as a direction of the image latent [B, C or F * C, h, w].

    An image latent that is one frame takes the mean over frames; one that holds a map for every
    frame (Wan 2.1) takes each frame's own.

    Raises:
        ValueError: the latent has the shape of neither.
    """
    for direction in (error.mean(dim=1), error.flatten(1, 2)):
        if direction.shape == latents.shape:
            return direction
    raise ValueError(
        f"sds: expected an image latent like one or all frames of the prediction, got "
        f"{tuple(latents.shape)} and {tuple(error.shape)}; use the objective 'denoising' with "
        "this surrogate"
    )
