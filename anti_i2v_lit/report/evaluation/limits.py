"""How much of an evaluation one page shows; the files beside it hold all."""

from __future__ import annotations

from dataclasses import dataclass, fields

from anti_i2v_lit.checks import check_at_least


@dataclass(kw_only=True)
class Config:
    """Limits of the page.

    Attributes:
        photos: photos shown with pictures and clips: the worst, the middle and the best ones.
        pictures_per_photo: protected files shown with pictures and residual, per photo.
        comparisons_per_photo: generator, purification, prompt and seed settings shown per photo.
        frames: frames shown per clip; of longer clips evenly spaced ones.
        frame_side_px: longer side of a shown frame, pixels.
        clip_megabytes: size of all embedded clips together, in 10^6 bytes as written to the page.
        charts: charts by frame index.
        table_rows: rows of the table of all photos, and of the table of file hashes.
        metric_rows: rows of a metric's table.
        problems: problems listed per kind.
    """

    photos: int = 12
    pictures_per_photo: int = 6
    comparisons_per_photo: int = 4
    frames: int = 48
    frame_side_px: int = 160
    clip_megabytes: float = 24.0
    charts: int = 72
    table_rows: int = 10_000
    metric_rows: int = 400
    problems: int = 100

    def __post_init__(self) -> None:
        """Refuse negative limits and frames that are too small to see."""
        for field in fields(self):
            low = {"frames": 2, "frame_side_px": 16}.get(field.name, 0)
            check_at_least(getattr(self, field.name), low, f"report.{field.name}")
