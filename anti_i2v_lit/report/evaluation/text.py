"""Numbers and words of the page."""

from __future__ import annotations

import datetime
import math

from anti_i2v_lit.evaluation.facts import (
    NOT_A_CLOAK,
    NOT_JUDGED,
    PROTECTED,
    UNPROTECTED,
    WEAKENED,
    ColumnFacts,
    Counts,
)
from anti_i2v_lit.evaluation.outcome import Outcome
from anti_i2v_lit.evaluation.statistics import LEVEL, Estimate

NOT_MEASURED = "–"
CLEAN = "clean"
MARKS = {PROTECTED: "●", WEAKENED: "◐", UNPROTECTED: "○", NOT_A_CLOAK: "✕", NOT_JUDGED: "?"}
# From the most to the least alarming: the order of photos and of the sorted table.
ALARM = {NOT_A_CLOAK: 0, UNPROTECTED: 1, WEAKENED: 2, PROTECTED: 3, NOT_JUDGED: 4}
DIRECTIONS = {
    "lower": "↓ lower protects better",
    "higher": "↑ higher protects better",
    "none": "describes only",
}
CURVE_TITLES = {
    "dlib": "Likeness to the photo (dlib, cosine), faceless frames dropped",
    "dlib_zero": "Likeness to the photo (dlib, cosine), faceless frames = 0",
    "hse": "Likeness to the photo (hse, cosine), faceless frames dropped",
    "hse_zero": "Likeness to the photo (hse, cosine), faceless frames = 0",
    "arcface": "Likeness to the photo (ArcFace, cosine), faceless frames dropped",
    "arcface_zero": "Likeness to the photo (ArcFace, cosine), faceless frames = 0",
    "face": "Frames with a face (share)",
    "clip_lpips": "Distance to the clean photo's clip (LPIPS)",
    "motion": "Motion (grey levels)",
    "photo_lpips": "Distance to the photo (LPIPS)",
    "photo_ssim": "Similarity to the photo (SSIM)",
    "photo_psnr": "Similarity to the photo (PSNR, dB)",
}
KINDS = {
    "swapped": "Not a cloak: the original, or a copy of it, lies in its place",
    "faint": "Looks like the original, resized or saved again; judged as a cloak",
    "missing": "No protected file",
    "unreadable": "Cannot be read",
    "ambiguous": "Several files fit one photo",
    "frame": "Shows another part of the photo, or none that was found",
    "changed": "Changed since the manifest was written",
    "unpaired": "Belongs to no photo",
    "failed": "Could not be judged",
}


def number(value: float, digits: int = 3) -> str:
    """A number with fixed decimals; an undefined one as a dash."""
    if math.isnan(value):
        return NOT_MEASURED
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    return f"{value:.{digits}f}".replace("-", "−")


def percent(value: float) -> str:
    """A share in [0, 1] in percent, without decimals."""
    return NOT_MEASURED if math.isnan(value) else f"{100 * value:.0f} %"


def coverage(outcome: Outcome) -> str:
    """The coverage that the intervals were made for, in percent."""
    given = outcome.settings.get("statistics", {}).get("level", LEVEL)
    return f"{100 * given:g} %"


def interval(estimate: Estimate, digits: int = 3) -> str:
    """Ends of the interval; a word where there are too few photos for one."""
    if math.isnan(estimate.low) or math.isnan(estimate.high):
        return "one photo" if estimate.count == 1 else NOT_MEASURED
    return f"{number(estimate.low, digits)} to {number(estimate.high, digits)}"


def percent_interval(estimate: Estimate) -> str:
    """Ends of a share's interval in percent."""
    if math.isnan(estimate.low) or math.isnan(estimate.high):
        return "one photo" if estimate.count == 1 else NOT_MEASURED
    return f"{100 * estimate.low:.0f} to {100 * estimate.high:.0f} %"


def moment(iso: str) -> str:
    """An ISO 8601 time to the minute; anything else as it is."""
    try:
        time = datetime.datetime.fromisoformat(iso)
    except ValueError:
        return iso
    return f"{time:%Y-%m-%d %H:%M} {time.tzname() or ''}".rstrip()


def amount(count: int, one: str, many: str = "") -> str:
    """A number with its noun: "1 photo", "2 photos"."""
    return f"{count:,} {one if count == 1 else many or one + 's'}"


def counted(counts: Counts) -> str:
    """What stands behind a mean: "20 photos × 1 prompt × 3 seeds"."""
    parts = (
        amount(counts.photos, "photo"),
        amount(counts.prompts, "prompt"),
        amount(counts.seeds, "seed"),
    )
    return " × ".join(parts)


def side(difference: Estimate, better: str) -> str:
    """Return "better" or "worse" for the owner where the interval excludes zero.

    Args:
        difference: protection minus reference.
        better: which way protects: "lower", "higher" or "none".
    """
    if better == "none" or math.isnan(difference.low) or difference.low <= 0 <= difference.high:
        return ""
    return "better" if (difference.low > 0) == (better == "higher") else "worse"


def figure_title(name: str, columns: dict[str, ColumnFacts]) -> str:
    """A figure in words."""
    if name in columns:
        return columns[name].title
    return CURVE_TITLES.get(name, name.replace("_", " "))
