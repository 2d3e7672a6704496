"""WHY a photo changes: one loss per photo, lower is better protected."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, final

import torch
from torch import Tensor

from anti_i2v_lit.checks import NonFiniteLoss
from anti_i2v_lit.surrogates.base import Surrogate
from anti_i2v_lit.types import Observation, TapRequest


class Objective(ABC):
    """One term of the loss.

    A variant provides `taps` and `_loss`; `loss` is final: it checks the shape and that every
    value is finite, and names the photo and the step if not.
    """

    Config: type[Any]

    @property
    @abstractmethod
    def weight(self) -> float:
        """Signed factor of the term in the total."""

    @abstractmethod
    def taps(self, surrogate: Surrogate) -> TapRequest:
        """What the term needs to see of this surrogate.

        Raises:
            ValueError: a configured tap does not exist in this surrogate.
        """

    @abstractmethod
    def _loss(
        self, surrogate: Surrogate, cloak: Observation, references: dict[str, Observation]
    ) -> Tensor:
        """Return [B]; each entry depends only on its own photo.

        `surrogate` is the one that was observed; a term asks it for names of taps only.
        """

    def place(self, device: torch.device) -> None:  # noqa: B027 (most terms hold no weights)
        """Move the term's own frozen networks, if it has any."""

    @final
    def loss(
        self,
        surrogate: Surrogate,
        cloak: Observation,
        references: dict[str, Observation],
        keys: Sequence[str],
        step: int,
    ) -> Tensor:
        """Return the unweighted loss per photo, float32 [B].

        Args:
            surrogate: the model that was observed, as given to `taps`.
            cloak: the cloaked photo's observation.
            references: "clean" and/or "anchor" -> observation at the same draw, no gradient.
            keys: photo keys, for messages.
            step: step of the attack, for messages.

        Raises:
            NonFiniteLoss: a value is NaN or infinite.
        """
        value = self._loss(surrogate, cloak, references).float()
        assert value.shape == (len(keys),), f"{type(self).__name__} returned {tuple(value.shape)}"
        bad = [k for k, v in zip(keys, value.detach(), strict=True) if not torch.isfinite(v)]
        if bad:
            raise NonFiniteLoss(
                f"objective {type(self).__name__} became non-finite at step {step} "
                f"for {', '.join(bad)}; lower its weight or run the surrogate in float32",
                tuple(bad),
            )
        return value
