"""The columns of the report: what they are called, how they are shown and what they mean."""

from __future__ import annotations

import math
from dataclasses import dataclass

from anti_i2v_lit.archive.row import Row

NOT_MEASURED = "–"


@dataclass(frozen=True, kw_only=True)
class Figure:
    """One measured figure of a photo.

    Attributes:
        field: column of the manifest.
        name: heading.
        unit: shown after the number, "" when it has none.
        digits: digits after the point.
        share: the number is a share and is shown in percent.
        high_is_more_visible: direction in which the cloak is easier to see; None for figures
            that are not about visibility.
        meaning: one sentence for the reader.
    """

    field: str
    name: str
    unit: str
    digits: int
    share: bool = False
    high_is_more_visible: bool | None = None
    meaning: str

    def value(self, row: Row) -> float | None:
        """The number of a row; None when it was not measured."""
        found: float | None = getattr(row, self.field)
        return found

    def text(self, value: float | None) -> str:
        """A number as shown in tables."""
        if value is None or math.isnan(value):
            return NOT_MEASURED
        if math.isinf(value):
            return "∞" if value > 0 else "−∞"
        shown = f"{100 * value:.0f}" if self.share else f"{value:.{self.digits}f}"
        return shown.replace("-", "−")

    def text_with_unit(self, value: float | None) -> str:
        """A number as shown beside a picture."""
        text = self.text(value)
        return text if text == NOT_MEASURED or not self.unit else f"{text} {self.unit}"


FIGURES = (
    Figure(field="ciede2000", name="CIEDE2000", unit="", digits=2, high_is_more_visible=True,
           meaning="mean colour difference; about 1 is just noticeable side by side"),
    Figure(field="psnr", name="PSNR", unit="dB", digits=1, high_is_more_visible=False,
           meaning="size of the change; higher is less visible"),
    Figure(field="ssim", name="SSIM", unit="", digits=3, high_is_more_visible=False,
           meaning="structural similarity; 1 is equal"),
    Figure(field="lpips", name="LPIPS", unit="", digits=3, high_is_more_visible=True,
           meaning="learned perceptual distance; 0 is equal"),
    Figure(field="max_change_8bit", name="Max change", unit="levels", digits=0,
           high_is_more_visible=True,
           meaning="largest change of any channel of any pixel, in grey levels of 255"),
    Figure(field="budget_8bit", name="Budget", unit="levels", digits=0,
           meaning="largest change that was allowed, in grey levels of 255"),
    Figure(field="loss_first", name="Loss before", unit="", digits=3,
           meaning="objective on the surrogate before the first step; lower is better protected"),
    Figure(field="loss_last", name="Loss after", unit="", digits=3,
           meaning="objective on the surrogate for the cloak; lower is better protected"),
    Figure(field="residual_kept", name="Residual kept", unit="%", digits=0, share=True,
           meaning="share of the change that is left after a platform save"),
    Figure(field="loss_kept", name="Loss kept", unit="%", digits=0, share=True,
           meaning="share of the gain in loss that is left after a platform save"),
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Spread:
    """Middle and ends of a figure over all photos, as text; `worst` is the most visible end."""

    name: str
    unit: str
    meaning: str
    median: str
    low: str
    high: str
    measured: int


def visibility(row: Row) -> float:
    """Order of the contact sheet: mean colour difference, unmeasured photos last."""
    value = row.ciede2000
    return -math.inf if value is None or math.isnan(value) else value
