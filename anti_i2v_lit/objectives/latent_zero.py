"""The image latent is pulled to zero, so that the model is told of an empty photo."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from anti_i2v_lit.objectives.base import Objective
from anti_i2v_lit.objectives.features import condition_of, mean_square, spread
from anti_i2v_lit.surrogates.base import Surrogate
from anti_i2v_lit.types import Observation, TapRequest


class ZeroLatent(Objective):
    """The encoder attack of PhotoGuard with its demo's target, the zero latent.

    `mean(z'^2) / var(z)`, with z' the image latent under the cloak and z the clean photo's, so
    that weights mean the same on any surrogate. Salman et al., "Raising the cost of malicious
    AI-powered image editing", ICML 2023 (arXiv 2302.06588, eq. 3; github.com/MadryLab/photoguard).
    For another target image use `ira_latent` with direction "toward".
    """

    @dataclass(kw_only=True)
    class Config:
        """Settings of the zero-latent term.

        Attributes:
            weight: signed factor in the total, no unit; positive pulls to zero.
        """

        weight: float = 1.0

    def __init__(self, config: Config) -> None:
        self.config = config

    @property
    def weight(self) -> float:
        """Signed factor of the term in the total."""
        return self.config.weight

    def taps(self, surrogate: Surrogate) -> TapRequest:
        """The image latent, of the cloak and of the clean photo; the denoiser does not run."""
        return TapRequest(condition=True, references=frozenset({"clean"}))

    def _loss(
        self, surrogate: Surrogate, cloak: Observation, references: dict[str, Observation]
    ) -> Tensor:
        clean = condition_of(references["clean"]).latents
        return mean_square(condition_of(cloak).latents) / spread(clean)
