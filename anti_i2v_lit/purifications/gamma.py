"""A tone curve."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from anti_i2v_lit.purifications.base import Purification

_DARKEST = 1e-4  # the curve's slope at black would be infinite for exponents below 1


@final
class Gamma(Purification):
    """Raise every value to a power.

    Severity in native units: exponent = strongest_exponent ** severity; above 1 it darkens.

    Source: the tone curve of any photo editor; scikit-image's `adjust_gamma`.
    """

    @dataclass(kw_only=True)
    class Config:
        """Settings of the curve.

        Attributes:
            strongest_exponent: exponent at severity 1, no unit; not 1.
        """

        strongest_exponent: float = 1.6

        def __post_init__(self) -> None:
            if not 0.1 <= self.strongest_exponent <= 10 or self.strongest_exponent == 1:
                raise ValueError(
                    "strongest_exponent must be between 0.1 and 10 and not 1, got "
                    f"{self.strongest_exponent:g}"
                )

    def __init__(self, config: Config) -> None:
        self.config = config

    @property
    def is_differentiable(self) -> bool:
        """True: smooth, with a finite slope at black."""
        return True

    def _purify(self, photos: Tensor, severity: float, generator: torch.Generator) -> Tensor:
        exponent = self.config.strongest_exponent**severity
        return photos.clamp_min(_DARKEST) ** exponent
