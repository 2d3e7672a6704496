"""Metrics that compare two sets of clips and give one number for both together."""

from __future__ import annotations

import math
import warnings
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, final

import torch
from torch import Tensor

from anti_i2v_lit.checks import check_at_least
from anti_i2v_lit.metrics.base import GeneratedClip
from anti_i2v_lit.metrics.keyed import KeyedMetric
from anti_i2v_lit.metrics.requirements import Requirement

ENOUGH_CLIPS = 100  # below, the estimate says more about the number of clips than about them


@dataclass(kw_only=True)
class SetConfig:
    """Settings of a set metric.

    Attributes:
        weights: path of the network; empty means the one in $ANTI_I2V_DATA/models.
        min_clips: fewest clips per set for which there is a value at all.
    """

    weights: str = ""
    min_clips: int = ENOUGH_CLIPS

    def __post_init__(self) -> None:
        """Refuse sets without a covariance."""
        check_at_least(self.min_clips, 2, "min_clips")


class SetMetric(KeyedMetric, ABC):
    """A distance of a set of judged clips from a set of reference clips, over all ranks.

    A variant provides `direction`, `unit`, `source`, `needs`, `_features` and `_distance`;
    `update` and `compute` are final. A mean of it over clips does not exist.

    Attributes:
        direction: which way is better for the person who protects the photos.
        unit: of the number.
        source: where the definition comes from.
        needs: weight files and packages that the package does not carry.
    """

    Config: type[Any]
    direction: ClassVar[Literal["higher", "lower"]]
    unit: ClassVar[str]
    source: ClassVar[str]
    needs: ClassVar[tuple[Requirement, ...]] = ()

    def __init__(self, config: SetConfig) -> None:
        super().__init__()
        self.config = config

    @abstractmethod
    def _features(self, subject: GeneratedClip) -> Tensor:
        """Features of a clip, [N, D]."""

    @abstractmethod
    def _distance(self, judged: Tensor, reference: Tensor) -> float:
        """The distance of two sets of features, [N, D] and [M, D], float64."""

    @final
    @torch.no_grad()
    def update(
        self, judged: Sequence[GeneratedClip] = (), reference: Sequence[GeneratedClip] = ()
    ) -> None:
        """Look at clips of either set; a key that comes again in its set counts once.

        Args:
            judged: clips of protected photos.
            reference: clips to compare them with, as those of the clean photos.
        """
        for side, subjects in ((_JUDGED, judged), (_REFERENCE, reference)):
            for subject in subjects:
                features = self._features(subject)
                width = torch.tensor([features.shape[1]], device=features.device)
                self._remember(side + subject.key, torch.cat([width, features.flatten()]))

    @final
    def compute(self) -> Tensor:
        """The distance; NaN, with a warning, if a set has fewer than `min_clips` clips."""
        rows = self._by_key()
        sides = {s: [r for k, r in rows.items() if k.startswith(s)] for s in (_JUDGED, _REFERENCE)}
        counts = f"{len(sides[_JUDGED])} judged and {len(sides[_REFERENCE])} reference clips"
        fewest = min(len(side) for side in sides.values())
        if fewest < self.config.min_clips:
            warnings.warn(
                f"{type(self).__name__}: {counts}, fewer than min_clips="
                f"{self.config.min_clips}; no value",
                stacklevel=2,
            )
            return torch.tensor(math.nan)
        if fewest < ENOUGH_CLIPS:
            warnings.warn(
                f"{type(self).__name__} of {counts} is biased: compare it only with values of as "
                f"many clips; {ENOUGH_CLIPS} are needed for more",
                stacklevel=2,
            )
        judged, reference = (torch.cat([_matrix(row) for row in side]) for side in sides.values())
        return torch.tensor(self._distance(judged, reference), dtype=torch.float64)

    @final
    def counts(self) -> tuple[int, int]:
        """Judged and reference clips over all ranks; every rank has to call it."""
        keys = list(self._gathered())
        return tuple(sum(k.startswith(s) for k in keys) for s in (_JUDGED, _REFERENCE))  # type: ignore[return-value]


_JUDGED, _REFERENCE = "judged/", "reference/"


def _matrix(row: Tensor) -> Tensor:
    """Features [N, D] from a row that starts with D."""
    return row[1:].reshape(-1, int(row[0].item()))
