"""Named, ordered lists of purifications: what a protection is judged against.

Tiers, from cheap to thorough: "quick" (a look), "written" (tier 1: what a re-saved upload is),
"audit" (tier 2: a sample of an archive) and "release" (tier 3: everything here). The worst row per
photo is the headline, and the only claim is "protected after" the rows that were run. Not among
them, since no such model is packaged: face restoration, a Stable Diffusion upscaler and an image
editor; the first two can be added where their folders exist, see docs/gauntlet.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from anti_i2v_lit.checks import check_in
from anti_i2v_lit.purifications import PURIFICATIONS
from anti_i2v_lit.purifications.base import Purification
from anti_i2v_lit.purifications.working_size import DEFAULT_WORK_PX, check_work_px


@dataclass(frozen=True, kw_only=True)
class GauntletRow:
    """One purification of a gauntlet.

    Attributes:
        label: for tables; unique within a gauntlet and the same in all of them.
        config: `{name, <fields>}` for the registry; None for the untouched photo.
        severity: in [0, 1], to be handed to `purify`.
    """

    label: str
    config: Mapping[str, Any] | None
    severity: float = 1.0

    def build(self) -> Purification | None:
        """Return the purification, loading its networks; None for the untouched photo.

        Raises:
            ValueError: the configuration is refused.
        """
        return None if self.config is None else PURIFICATIONS.build(self.config)


Gauntlet = tuple[GauntletRow, ...]


_AT_WORKING_SIZE = {"diffpure", "gridpure", "model_size", "noisy_upscaling", "remover", "vae"}


def gauntlet(name: str, *, work_px: int = DEFAULT_WORK_PX) -> Gauntlet:
    """Return the rows of a named gauntlet, in order.

    Args:
        name: a key of `GAUNTLETS`.
        work_px: shorter side at which networks and `model_size` purify, pixels: that of the
            judged generator's view (`min(generator.view_size)`), since an attacker would purify
            there.

    Raises:
        ValueError: unknown name, with the nearest known one, or a size that no network can use.
    """
    check_in(name, GAUNTLETS, "gauntlet")
    check_work_px(work_px)
    return tuple(_at(row, work_px) for row in GAUNTLETS[name])


def _at(row: GauntletRow, work_px: int) -> GauntletRow:
    if row.config is None or row.config["name"] not in _AT_WORKING_SIZE:
        return row
    return replace(row, config={**row.config, "work_px": work_px})


def _row(label: str, severity: float = 1.0, **config: Any) -> GauntletRow:
    return GauntletRow(label=label, config=config, severity=severity)


def _jpeg(quality: int, subsampling: str) -> GauntletRow:
    """A save at a quality, on the default scale from 100 down to 10."""
    return _row(
        f"JPEG q{quality} {subsampling}",
        (100 - quality) / 90,
        name="jpeg",
        subsampling=subsampling,
    )


def _half(kernel: str) -> GauntletRow:
    """Half size and back, on the default scale from 1 down to a quarter."""
    return _row(f"half size ({kernel})", 2 / 3, name="resize", kernel=kernel)


_NONE = GauntletRow(label="none", config=None, severity=0.0)
_STACK = _row("half size + JPEG q75", name="platform")
_NOISE = _row("noise 12.75 levels", 12.75 / 16, name="noise")
_CROP = _row("crop to 0.8", 2 / 3, name="crop")
_FACE_CROP = _row("face crop", name="face_crop")
_GREY = _row("greyscale", name="grey")

# What an attacker does for one model; at full size a large photo's model would see none of it.
_AT_MODEL_SIZE = (
    _row("JPEG q50 at the model's size", 50 / 90, name="model_size", inner="jpeg"),
    _row("half the model's size", 2 / 3, name="model_size", inner="resize"),
    _row("noise 12.75 levels at the model's size", 12.75 / 16, name="model_size", inner="noise"),
)

_NETWORKS = tuple(
    _row(network, name="social_network", network=network)
    for network in ("facebook", "instagram", "telegram", "whatsapp", "x")
)

_ROUND_TRIPS = tuple(
    _row(f"VAE of {model}", name="vae", model=model) for model in ("mmdit_128", "unet_128")
)
_DIFFUSION = (
    _row("noisy upscaling", name="noisy_upscaling"),
    _row("DiffPure t*=100", name="diffpure"),
    _row("GrIDPure 20 x 10", name="gridpure"),
)

_WRITTEN = (_NONE, _jpeg(75, "4:2:0"), _half("bicubic"), _STACK)

_AUDIT = (
    *_WRITTEN,
    *_NETWORKS,
    _NOISE,
    _CROP,
    _FACE_CROP,
    _GREY,
    *_AT_MODEL_SIZE,
    *_ROUND_TRIPS,
    *_DIFFUSION,
)

_RELEASE = (
    *_AUDIT,
    _row("learned remover", name="remover"),
    *(_jpeg(quality, "4:2:0") for quality in (30, 50, 85, 95)),
    *(_jpeg(quality, "4:4:4") for quality in (30, 50, 75, 85, 95)),
    _row("JPEG q50 twice (shifted)", 50 / 70, name="jpeg_twice"),
    _row("WebP q80", 20 / 90, name="webp"),
    _row("WebP q50", 50 / 90, name="webp"),
    *(_half(kernel) for kernel in ("bilinear", "box", "lanczos")),
    _row("rotation 5 degrees", 0.5, name="rotation"),
    _row("blur 1.5 px", 0.5, name="blur"),
    _row("blur 3 px", name="blur"),
    _row("noise 25.5 levels", name="noise", largest_std_8bit=25.5),
    _row("recolour", name="recolour"),
    _row("chroma blur", name="chroma_blur"),
    _row("3 bits", name="bit_depth"),
    _row("gamma 1.6", name="gamma"),
    _row("screenshot", name="screenshot"),
    _row("H.264 CRF 23", 23 / 40, name="video_codec"),
    _row("H.264 CRF 40", name="video_codec"),
    *(
        _row(network, name="social_network", network=network)
        for network in ("facebook_960", "telegram_large")
    ),
)

_QUICK = (_NONE, _STACK, *_AT_MODEL_SIZE, _GREY)

GAUNTLETS: dict[str, Gauntlet] = {
    "quick": _QUICK,
    "written": _WRITTEN,
    "audit": _AUDIT,
    "release": _RELEASE,
}
