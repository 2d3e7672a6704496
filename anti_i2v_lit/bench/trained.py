"""Rows of a table whose cloaks saw purifications in the loop, and what those rows had not seen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from anti_i2v_lit.bench.plan import TablePlan, variant_settings
from anti_i2v_lit.bench.purify import NONE, rows_named

DRAWN = "Purifications that were drawn while it was computed"
MADE_OF = "Made of what was drawn: not drawn themselves, but hardly another kind"
UNSEEN = "Purifications of a kind that was not drawn"
UNTOUCHED = "The file as it is"
# What a purification is put together from: whoever drew a part has seen something of the whole.
_PARTS = {
    "diffpure": ("noise",),
    "face_crop": ("crop",),
    "gridpure": ("noise", "diffpure"),
    "jpeg_twice": ("jpeg",),
    "noisy_upscaling": ("resize", "noise"),
    "platform": ("jpeg", "resize"),
    "screenshot": ("jpeg", "resize"),
    "social_network": ("jpeg", "resize", "platform"),
}


def drawn_by(plan: TablePlan, overrides: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Variant -> registered names of the purifications that are drawn in its loop; no others."""
    return {
        name: tuple(str(node["name"]) for node in settings.attack.transforms)
        for name, settings in variant_settings(plan, overrides).items()
        if settings.attack.transforms and settings.attack.transform_share > 0
    }


def seen_and_unseen(names: Sequence[str], drawn: Sequence[str]) -> dict[str, list[str]]:
    """Title -> labels of a table's purifications, by what a row's cloaks had seen of them.

    Args:
        names: of the table: purifications, gauntlets and labels of their rows.
        drawn: registered names of the purifications that were drawn.
    """
    seen = {part for name in drawn for part in (name, *_PARTS.get(name, ()))}
    found: dict[str, list[str]] = {UNSEEN: [], MADE_OF: [], DRAWN: [], UNTOUCHED: []}
    for label, row in rows_named(names).items():
        config = row.config or {"name": NONE}
        name, inner = str(config["name"]), str(config.get("inner", ""))
        if name == NONE:
            title = UNTOUCHED
        elif name in drawn:
            title = DRAWN
        else:
            title = MADE_OF if seen & {name, inner, *_PARTS.get(name, ())} else UNSEEN
        found[title].append(label)
    return found


def compared(plan: TablePlan, overrides: Sequence[str]) -> Mapping[str, tuple[str, ...]]:
    """Variants whose gain is shown: those that drew something, if the reference did not."""
    drawn = drawn_by(plan, overrides)
    return {} if plan.reference in drawn else drawn
