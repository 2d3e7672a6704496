"""How visible is it? Over the limit the budget is lowered and the photo tried again."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from anti_i2v_lit.checks import check_at_least, check_between


@dataclass(kw_only=True)
class GateConfig:
    """Limits on the written file; 0 switches a limit off.

    Attributes:
        min_psnr_db: lowest peak signal-to-noise ratio, in decibels.
        min_ssim: lowest structural similarity, 0 to 1.
        max_ciede2000: largest mean colour difference, in CIEDE2000 units.
        max_lpips: largest LPIPS (AlexNet) distance.
        max_change_8bit: largest change of a sample, in grey levels; a lossy encoder adds its own
            rounding to the budget.
        budget_factor: factor on the budget for the next attempt, 0 to 1 exclusive.
        max_attempts: attempts before the photo is refused.
    """

    min_psnr_db: float = 24.0
    min_ssim: float = 0.6
    max_ciede2000: float = 8.0
    max_lpips: float = 0.6
    max_change_8bit: float = 0.0
    budget_factor: float = 0.75
    max_attempts: int = 3

    def __post_init__(self) -> None:
        """Refuse limits that cannot mean anything."""
        for name in ("min_psnr_db", "max_ciede2000", "max_lpips", "max_change_8bit"):
            check_at_least(getattr(self, name), 0.0, f"gate.{name}")
        check_between(self.min_ssim, 0.0, 1.0, "gate.min_ssim")
        check_between(self.budget_factor, 0.1, 0.99, "gate.budget_factor")
        check_at_least(self.max_attempts, 1, "gate.max_attempts")

    def complaints(self, figures: Mapping[str, float | None]) -> list[str]:
        """Sentences about every limit that is broken; empty if the photo may be published.

        A figure that is missing or not a number breaks its limit.

        Args:
            figures: `psnr`, `ssim`, `ciede2000`, `lpips` and `max_change_8bit` of the written file
                against the photo.
        """
        found = []
        for field, figure, unit, sign in _LIMITS:
            limit, value = getattr(self, field), figures[figure]
            value = math.nan if value is None else value
            if limit > 0 and not sign * value >= sign * limit:
                side = "below" if sign > 0 else "above"
                found.append(f"{figure} {value:.3g}{unit} is {side} gate.{field}={limit:g}")
        return found


# Field, figure that it limits, unit, and 1 where the figure must not be lower (-1: not higher).
_LIMITS = (
    ("min_psnr_db", "psnr", " dB", 1),
    ("min_ssim", "ssim", "", 1),
    ("max_ciede2000", "ciede2000", "", -1),
    ("max_lpips", "lpips", "", -1),
    ("max_change_8bit", "max_change_8bit", "", -1),
)
