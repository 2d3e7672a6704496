"""Several generators beside each other: who is protected against a model that nobody asked."""

from __future__ import annotations

import csv
import io
from collections.abc import Collection, Mapping, Sequence

from anti_i2v_lit.evaluation.columns import COLUMNS
from anti_i2v_lit.evaluation.tables import SummaryRow, csv_text

SHOWN = ("dlib_mean_zero", "hse_mean_zero", "fdfr", "clip_lpips", "clip_psnr", "shift_own")
WHITE_BOX = "*"
_ARROWS = {"lower": " ↓", "higher": " ↑", "none": ""}


def matrix(rows: Mapping[str, Sequence[SummaryRow]], known: Mapping[str, Collection[str]]) -> str:
    """Markdown: per purification and figure, protections down and generators across.

    Args:
        rows: generator -> its rows, all with the same protections and purifications.
        known: protection -> generators that it was computed against.
    """
    first = next(iter(rows.values()))
    parts = [
        "# White-box and transfer protection\n\n"
        f"Means with 95 % intervals over photos. {WHITE_BOX}: the cloak was computed against this "
        "model (white box); all other cells are transfer to a model it never saw. An absolute "
        "figure of one generator says nothing about another: compare each with its own row "
        '"clean" or "noise". Arrows: better for the person who protects the photo.'
    ]
    present = [c for c in SHOWN if any(c in r.estimates for some in rows.values() for r in some)]
    for purification in dict.fromkeys(row.purification for row in first):
        parts.append(f"## Purification: {purification}")
        for column in present:
            title = f"### {COLUMNS[column].title}{_ARROWS[COLUMNS[column].better]}"
            parts.append(f"{title}\n\n{_table(rows, known, purification, column)}")
    return "\n\n".join(parts)


def csv_by_generator(rows: Mapping[str, Sequence[SummaryRow]]) -> str:
    """`csv_text` of every generator, with its label in front of each line."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    for number, (label, some) in enumerate(rows.items()):
        head, *lines = csv.reader(io.StringIO(csv_text(some)))
        if number == 0:
            writer.writerow(["generator", *head])
        writer.writerows([label, *line] for line in lines)
    return file.getvalue()


def _table(
    rows: Mapping[str, Sequence[SummaryRow]],
    known: Mapping[str, Collection[str]],
    purification: str,
    column: str,
) -> str:
    cells: dict[str, dict[str, str]] = {}
    for label, some in rows.items():
        for row in some:
            if row.purification == purification:
                mark = WHITE_BOX if label in known.get(row.protection, ()) else ""
                cells.setdefault(row.protection, {})[label] = _cell(row, column) + mark
    lines = [f"| protection | {' | '.join(rows)} |", "| --- |" + " ---: |" * len(rows)]
    for protection, found in cells.items():
        lines.append(f"| {protection} | {' | '.join(found.get(label, '-') for label in rows)} |")
    return "\n".join(lines)


def _cell(row: SummaryRow, column: str) -> str:
    estimate, digits = row.estimates.get(column), COLUMNS[column].digits
    if estimate is None or estimate.mean != estimate.mean:
        return "-"
    mean = f"{estimate.mean:.{digits}f}"
    if estimate.low != estimate.low:
        return mean
    return f"{mean} [{estimate.low:.{digits}f}, {estimate.high:.{digits}f}]"
