"""What a protection gains by having seen purifications while it was computed, and where."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence

from anti_i2v_lit.evaluation.columns import COLUMNS
from anti_i2v_lit.evaluation.headline import HEADLINE
from anti_i2v_lit.evaluation.statistics import Estimate, paired_difference
from anti_i2v_lit.evaluation.store import Result
from anti_i2v_lit.evaluation.tables import PerPhoto, by_place
from anti_i2v_lit.evaluation.trials import pair_up, paired_means

WORST = "worst of these per photo"
_ARROWS = {"lower": " ↓", "higher": " ↑", "none": ""}

ByPlace = Mapping[tuple[str, str], Sequence[Result]]


def gains(
    results: Mapping[str, Sequence[Result]],
    known: Mapping[str, Collection[str]],
    trained: str,
    untrained: str,
    groups: Mapping[str, Sequence[str]],
) -> str:
    """Markdown: one protection minus another, by what the former has seen.

    Only trials count of which both sides have a clip (`paired_means`). The worst of a group is
    taken photo by photo and figure by figure before the difference.

    Args:
        results: generator -> its results.
        known: protection -> generators that it was computed against.
        trained: the protection in whose computation purifications were drawn.
        untrained: the same without.
        groups: title -> labels of purifications; empty groups are left out.
    """
    parts = [
        f"# What {trained} gains\n\n{trained} minus {untrained}, same photos, prompts and seeds, "
        "mean with 95 % interval over photos. **gains**: the interval excludes zero in favour of "
        f"{trained}; **loses**: it excludes zero against it; no word: it does not exclude zero. "
        "Intervals are not corrected for the number of comparisons."
    ]
    for generator, some in results.items():
        places = by_place(some)
        present = [c for c in HEADLINE if any(c in result.figures for result in some)]
        who = "white box" if generator in known.get(trained, ()) else "held out"
        parts.append(f"## {generator} ({who}): {trained}")
        for title, labels in groups.items():
            if labels and present:
                lines = _group(places, trained, untrained, labels, present)
                parts.append("\n".join([f"### {title}\n", *lines]))
    return "\n\n".join(parts)


def _group(
    places: ByPlace, trained: str, untrained: str, labels: Sequence[str], columns: Sequence[str]
) -> list[str]:
    heads = [COLUMNS[c].title + _ARROWS[COLUMNS[c].better] for c in columns]
    lines = [f"| | {' | '.join(heads)} |", "| --- |" + " ---: |" * len(heads)]
    pairs = {
        label: pair_up(places.get((trained, label), ()), places.get((untrained, label), ()))
        for label in labels
    }
    for label in labels:
        found = [_cell(*paired_means(pairs[label], c), c) for c in columns]
        lines.append(f"| {label} | {' | '.join(found)} |")
    if len(labels) > 1:
        found = []
        for column in columns:
            sides = [paired_means(some, column) for some in pairs.values()]
            ours, theirs = (_worst([side[i] for side in sides], column) for i in (0, 1))
            found.append(_cell(ours, theirs, column))
        lines.append(f"| {WORST} | {' | '.join(found)} |")
    return lines


def _worst(tables: Sequence[PerPhoto], column: str) -> PerPhoto:
    """Photo -> its least protected value; photos that lack one of the tables are left out."""
    least = max if COLUMNS[column].better == "lower" else min
    shared = set.intersection(*(set(table) for table in tables))
    return {
        photo: math.nan if any(math.isnan(t[photo]) for t in tables)
        else least(t[photo] for t in tables)
        for photo in shared
    }  # fmt: skip


def _cell(trained: PerPhoto, untrained: PerPhoto, column: str) -> str:
    difference = paired_difference(trained, untrained)
    if math.isnan(difference.mean):
        return "-"
    digits = COLUMNS[column].digits
    shown = f"{difference.mean:+.{digits}f}"
    if math.isnan(difference.low):
        return shown
    return f"{shown} [{difference.low:+.{digits}f}, {difference.high:+.{digits}f}]" + _word(
        difference, column
    )


def _word(difference: Estimate, column: str) -> str:
    if difference.low <= 0 <= difference.high:
        return ""
    lowered = difference.high < 0
    return " **gains**" if lowered == (COLUMNS[column].better == "lower") else " **loses**"
