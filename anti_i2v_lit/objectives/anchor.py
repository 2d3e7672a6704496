"""IRA: features are drawn toward an unrelated image's, or driven away from the clean photo's."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass, field
from typing import Generic, TypeVar, final

import torch
from torch import Tensor

from anti_i2v_lit.checks import check_in
from anti_i2v_lit.objectives.base import Objective
from anti_i2v_lit.objectives.features import (
    chosen_taps,
    condition_of,
    denoised_of,
    mean_square,
    spread,
)
from anti_i2v_lit.surrogates.base import Surrogate
from anti_i2v_lit.types import Observation, TapRequest

DIRECTIONS = ("toward", "away")


@dataclass(kw_only=True)
class LatentAnchorConfig:
    """Settings of the latent term.

    Attributes:
        weight: signed factor in the total, no unit.
        direction: "toward" the anchor image's features, or "away" from the clean photo's.
    """

    weight: float = 1.0
    direction: str = "toward"

    def __post_init__(self) -> None:
        """Refuse an unknown direction."""
        check_in(self.direction, DIRECTIONS, "direction")


@dataclass(kw_only=True)
class AnchorConfig(LatentAnchorConfig):
    """Settings of an anchor term on taps.

    Attributes:
        taps: names of the taps, or shares of the depth from 0 (the first) to 1 (the last);
            empty means automatic.
    """

    taps: list[str] = field(default_factory=list)


ConfigT = TypeVar("ConfigT", bound=LatentAnchorConfig)


class Anchor(Objective, Generic[ConfigT]):
    """What the anchor terms share: the distance, its scale and its sign.

    toward: `mean((f - p)^2) / var(g)`; away: `-mean((f - g)^2) / var(g)`, averaged over taps,
    with f the features under the cloak, p under the anchor image, g under the clean photo at the
    same draw, and var the variance of all entries of one photo's feature map. So 1 means one
    standard deviation of clean features, on any surrogate. `away` has no lower bound, and its
    gradient is exactly zero at the clean photo: it needs a random start or another term.

    Args:
        config: weight and direction, and what a variant adds.
    """

    def __init__(self, config: ConfigT) -> None:
        self.config = config

    @property
    @final
    def weight(self) -> float:
        """Signed factor of the term in the total."""
        return self.config.weight

    @property
    @final
    def direction(self) -> str:
        """Either "toward" or "away"."""
        return self.config.direction

    @abstractmethod
    def _features(self, surrogate: Surrogate, observation: Observation) -> list[Tensor]:
        """Feature maps [B, ...] of the taps, in a fixed order."""

    def _references(self) -> frozenset[str]:
        return frozenset({"clean", "anchor"} if self.direction == "toward" else {"clean"})

    def _loss(
        self, surrogate: Surrogate, cloak: Observation, references: dict[str, Observation]
    ) -> Tensor:
        clean = self._features(surrogate, references["clean"])
        target, sign = clean, -1.0
        if self.direction == "toward":
            target, sign = self._features(surrogate, references["anchor"]), 1.0
        moved = self._features(surrogate, cloak)
        parts = [
            sign * mean_square(f.float() - p.float()) / spread(g)
            for f, p, g in zip(moved, target, clean, strict=True)
        ]
        return torch.stack(parts).mean(dim=0)


@final
class DenoiserAnchor(Anchor[AnchorConfig]):
    """Internal representation anchor (IRA) on denoiser blocks.

    Formula in `Anchor`; source: Anti-I2V, arXiv 2603.24570, `L_IRA,eps`. Which blocks m are used
    is not published; the automatic choice is the last three, which IRC observes anyway.
    """

    Config = AnchorConfig

    def taps(self, surrogate: Surrogate) -> TapRequest:
        """The configured denoiser taps or the last three.

        Raises:
            ValueError: an unknown tap, or a surrogate without denoiser taps.
        """
        return TapRequest(denoiser=frozenset(self._plan(surrogate)), references=self._references())

    def _plan(self, surrogate: Surrogate) -> tuple[str, ...]:
        known = surrogate.denoiser_taps
        return chosen_taps(self.config.taps, known, known[-3:], "denoiser tap")

    def _features(self, surrogate: Surrogate, observation: Observation) -> list[Tensor]:
        features = denoised_of(observation).features
        return [features[name] for name in self._plan(surrogate)]


@final
class EncoderAnchor(Anchor[AnchorConfig]):
    """Internal representation anchor (IRA) on levels of the VAE encoder.

    Formula in `Anchor`; source: Anti-I2V, arXiv 2603.24570, `L_IRA,E`. Automatic: all levels.
    """

    Config = AnchorConfig

    def taps(self, surrogate: Surrogate) -> TapRequest:
        """The configured encoder taps or all of them.

        Raises:
            ValueError: an unknown tap, or a surrogate without encoder taps.
        """
        return TapRequest(encoder=frozenset(self._plan(surrogate)), references=self._references())

    def _plan(self, surrogate: Surrogate) -> tuple[str, ...]:
        known = surrogate.encoder_taps
        return chosen_taps(self.config.taps, known, known, "encoder tap")

    def _features(self, surrogate: Surrogate, observation: Observation) -> list[Tensor]:
        features = condition_of(observation).features
        return [features[name] for name in self._plan(surrogate)]


@final
class LatentAnchor(Anchor[LatentAnchorConfig]):
    """The image latent drawn toward the anchor's, or driven away from the clean photo's.

    Formula in `Anchor` on the latent that conditions the denoiser. "toward" is the encoder
    attack of PhotoGuard (Salman et al., ICML 2023, eq. 3) with a distance in clean variances.
    """

    Config = LatentAnchorConfig

    def taps(self, surrogate: Surrogate) -> TapRequest:
        """The condition itself; no surrogate lacks it."""
        return TapRequest(condition=True, references=self._references())

    def _features(self, surrogate: Surrogate, observation: Observation) -> list[Tensor]:
        return [condition_of(observation).latents]
