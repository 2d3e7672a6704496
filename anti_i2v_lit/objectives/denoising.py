"""The surrogate's own training loss, driven up."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from anti_i2v_lit.checks import check_in
from anti_i2v_lit.objectives.base import Objective
from anti_i2v_lit.objectives.features import denoised_of, mean_square
from anti_i2v_lit.surrogates.base import Surrogate
from anti_i2v_lit.types import Observation, TapRequest


class DenoisingLoss(Objective):
    """Minus the denoiser's training loss: the model is made to predict badly.

    `-mean((prediction - target)^2)` per photo, with the target of the model's own
    parameterisation (epsilon, v or flow). With a positive weight this is AdvDM (Liang et al.,
    ICML 2023, eq. 7) on the image condition, and the `-L_DM` term of Anti-I2V; with a negative
    weight it is the loss that Diff-Protect (Xue et al., ICLR 2024) minimises.
    """

    @dataclass(kw_only=True)
    class Config:
        """Settings of the training-loss term.

        Attributes:
            weight: signed factor in the total, no unit; positive drives the training loss up.
            normalise: "none" for the bare loss, "clean" to divide by the clean photo's loss at
                the same draw (-1 at the clean photo; one more denoiser pass per draw).
        """

        weight: float = 1.0
        normalise: str = "none"

        def __post_init__(self) -> None:
            """Refuse an unknown normalisation."""
            check_in(self.normalise, ("none", "clean"), "normalise")

    def __init__(self, config: Config) -> None:
        self.config = config

    @property
    def weight(self) -> float:
        """Signed factor of the term in the total."""
        return self.config.weight

    def taps(self, surrogate: Surrogate) -> TapRequest:
        """The whole denoiser; its blocks are not looked at."""
        clean = frozenset({"clean"} if self.config.normalise == "clean" else ())
        return TapRequest(prediction=True, references=clean)

    def _loss(
        self, surrogate: Surrogate, cloak: Observation, references: dict[str, Observation]
    ) -> Tensor:
        loss = -_training_loss(cloak)
        if self.config.normalise == "clean":
            return loss / _training_loss(references["clean"])
        return loss


def _training_loss(observation: Observation) -> Tensor:
    denoised = denoised_of(observation)
    assert denoised.prediction is not None, "the term requested the prediction"
    return mean_square(denoised.prediction.float() - denoised.target.float())
