"""What is measured, in which unit, and which way is better for the person who protects a photo."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

EMBEDDERS = ("dlib", "hse")


@dataclass(frozen=True, kw_only=True)
class Column:
    """One figure of a table.

    Attributes:
        name: key of the figure.
        title: head of the column, with its unit.
        better: which way protects better; "none" if it only describes.
        digits: decimals shown.
    """

    name: str
    title: str
    better: Literal["lower", "higher", "none"]
    digits: int = 3


def _identity_columns() -> list[Column]:
    found = []
    for name in EMBEDDERS:
        for frame in ("first", "last", "mean"):
            where = "mean of frames" if frame == "mean" else f"{frame} frame"
            found.append(
                Column(
                    name=f"{name}_{frame}",
                    title=f"{name} {where}, faceless dropped (cosine)",
                    better="lower",
                )
            )
            found.append(
                Column(
                    name=f"{name}_{frame}_zero",
                    title=f"{name} {where}, faceless = 0 (cosine)",
                    better="lower",
                )
            )
    return [*found, Column(name="fdfr", title="FDFR (share of frames)", better="higher")]


IDENTITY = tuple(_identity_columns())
FIDELITY = (
    Column(name="clip_psnr", title="PSNR to clean clip (dB)", better="lower", digits=2),
    Column(name="clip_ssim", title="SSIM to clean clip", better="lower"),
    Column(name="clip_lpips", title="LPIPS to clean clip, at 512 px at most", better="higher"),
    Column(name="photo_psnr", title="PSNR to photo (dB)", better="lower", digits=2),
    Column(name="photo_ssim", title="SSIM to photo", better="lower"),
    Column(name="photo_lpips", title="LPIPS to photo, at 512 px at most", better="higher"),
    Column(name="motion", title="motion (grey levels)", better="none", digits=2),
)
LATENTS = (
    Column(name="shift_own", title="latent shift, own encoder (std)", better="higher"),
    Column(name="shift_foreign", title="latent shift, TAEF2 (std)", better="higher"),
)
VISIBILITY = (
    Column(name="psnr", title="PSNR of the file (dB)", better="none", digits=2),
    Column(name="ciede2000", title="CIEDE2000 of the file", better="none", digits=2),
    Column(name="max_change_8bit", title="largest change (grey levels)", better="none", digits=1),
)
GROUPS: dict[str, tuple[Column, ...]] = {
    "Identity of the generated frames": IDENTITY,
    "Fidelity of the clip": FIDELITY,
    "Displacement of the image latent": LATENTS,
    "Visibility of the protection": VISIBILITY,
}
COLUMNS: dict[str, Column] = {c.name: c for group in GROUPS.values() for c in group}
