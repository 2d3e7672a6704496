"""From results to Markdown for the docs and CSV for programs."""

from __future__ import annotations

import csv
import io
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from anti_i2v_lit.evaluation.columns import COLUMNS, GROUPS, Column
from anti_i2v_lit.evaluation.statistics import Estimate, bootstrap_mean, paired_difference
from anti_i2v_lit.evaluation.store import Result
from anti_i2v_lit.evaluation.trials import mean, pair_up, paired_means

ABSENT = "absent"
NOTES = (
    "Means over photos (a photo's trials are averaged first) with 95 % intervals over photos "
    "(expanded percentile bootstrap, Hesterberg 2015; below five photos Student's). Identity is "
    "the cosine of face embeddings, generated frames against the clean photo's face, about 0 for "
    "strangers. Frames without a detected face are left out of "
    'the "faceless dropped" columns, as published ISM figures do, and count as 0 in the '
    '"faceless = 0" columns; FDFR is their share. "Clean clip" is the clip of the clean photo '
    "with the same seed after the same purification. Latent shift is the root mean square "
    "distance to the clean photo's latent in its standard deviations. Visibility is that of the "
    "written file at full size. Arrows: better for the person who protects the photo. "
    "PSNR is cut off at 100 dB, which stands for equal pictures. "
    '"absent": the weights of that judge were not at hand; "-": undefined.'
)

PerPhoto = dict[str, float]


@dataclass(frozen=True, kw_only=True)
class SummaryRow:
    """One protection after one purification.

    Attributes:
        protection: its name.
        purification: its name.
        estimates: column -> mean over photos; absent columns have no entry.
        differences: column -> paired difference to the reference; empty for the reference.
    """

    protection: str
    purification: str
    estimates: Mapping[str, Estimate]
    differences: Mapping[str, Estimate]


def by_place(results: Sequence[Result]) -> dict[tuple[str, str], list[Result]]:
    """(protection, purification) -> its results, both in the order of the results."""
    found: dict[tuple[str, str], list[Result]] = {}
    for result in results:
        found.setdefault((result.protection, result.purification), []).append(result)
    return found


def per_photo(results: Sequence[Result]) -> dict[tuple[str, str, str], PerPhoto]:
    """(protection, purification, column) -> photo -> mean over its trials; NaN trials left out."""
    trials: dict[tuple[str, str, str], dict[str, list[float]]] = defaultdict(dict)
    for result in results:
        for column, value in result.figures.items():
            group = trials[result.protection, result.purification, column]
            group.setdefault(result.photo, []).append(value)
    return {
        group: {photo: mean(values) for photo, values in photos.items()}
        for group, photos in trials.items()
    }


def summarise(results: Sequence[Result], reference: str) -> list[SummaryRow]:
    """Rows in the order of the results.

    Differences are taken between clips of the same photo, prompt and seed; see `paired_means`.

    Args:
        results: of all protections and purifications, by one generator.
        reference: protection that the paired differences are taken to.
    """
    values, places = per_photo(results), by_place(results)
    rows = []
    for (protection, purification), some in places.items():
        estimates, differences = {}, {}
        pairs = pair_up(some, places.get((reference, purification), []))
        for column in COLUMNS:
            own = values.get((protection, purification, column))
            if own is None:
                continue
            estimates[column] = bootstrap_mean(list(own.values()))
            compared = (reference, purification, column) in values
            if compared and protection != reference:
                differences[column] = paired_difference(*paired_means(pairs, column))
        rows.append(
            SummaryRow(
                protection=protection,
                purification=purification,
                estimates=estimates,
                differences=differences,
            )
        )
    return rows


def sort_rows(rows: Sequence[SummaryRow], column: str) -> list[SummaryRow]:
    """Best protected first, purification by purification; undefined values last.

    Raises:
        ValueError: the column has no better side, or no row has it.
    """
    better = COLUMNS[column].better
    if better == "none":
        raise ValueError(f"cannot sort by {column}: it describes and does not judge")
    if not any(column in row.estimates for row in rows):
        raise ValueError(f"cannot sort by {column}: it is absent; give the judge its weights")
    order = list(dict.fromkeys(row.purification for row in rows))
    sign = 1.0 if better == "lower" else -1.0

    def rank(row: SummaryRow) -> tuple[int, bool, float]:
        mean = row.estimates[column].mean if column in row.estimates else math.nan
        undefined = math.isnan(mean)
        return order.index(row.purification), undefined, 0.0 if undefined else sign * mean

    return sorted(rows, key=rank)


def markdown(rows: Sequence[SummaryRow], reference: str) -> str:
    """Tables by group of columns and purification, means first, then paired differences."""
    parts = [NOTES]
    for purification in dict.fromkeys(row.purification for row in rows):
        chosen = [row for row in rows if row.purification == purification]
        parts.append(f"## Purification: {purification}")
        for title, columns in GROUPS.items():
            parts.append(f"### {title}")
            parts.append(_table(columns, [(r.protection, r.estimates) for r in chosen]))
        against = [(r.protection, r.differences) for r in chosen if r.protection != reference]
        if any(differences for _, differences in against):
            parts.append(f"### Paired difference to {reference} (same photos and seeds)")
            for columns in GROUPS.values():
                judging = [c for c in columns if c.better != "none"]
                if judging:
                    parts.append(_table(judging, against, signed=True))
    return "\n\n".join(parts) + "\n"


def csv_text(rows: Sequence[SummaryRow]) -> str:
    """One line per protection, purification and column, for programs."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(
        ["protection", "purification", "column", "photos", "mean", "low", "high",
         "difference", "difference_low", "difference_high"]
    )  # fmt: skip
    for row in rows:
        for name, estimate in row.estimates.items():
            numbers = [estimate.mean, estimate.low, estimate.high]
            other = row.differences.get(name)
            numbers += [other.mean, other.low, other.high] if other else [math.nan] * 3
            shown = ["" if math.isnan(n) else f"{n:.6g}" for n in numbers]
            writer.writerow([row.protection, row.purification, name, estimate.count, *shown])
    return file.getvalue()


def _table(
    columns: Sequence[Column],
    rows: Sequence[tuple[str, Mapping[str, Estimate]]],
    signed: bool = False,
) -> str:
    arrows = {"lower": " ↓", "higher": " ↑", "none": ""}
    heads = ["protection", "photos", *(c.title + arrows[c.better] for c in columns)]
    lines = [_line(heads), _line(["---"] + ["---:"] * (len(heads) - 1))]
    for name, estimates in rows:
        count = max((e.count for e in estimates.values()), default=0)
        cells = [_cell(estimates.get(c.name), c.digits, signed) for c in columns]
        lines.append(_line([name, str(count), *cells]))
    return "\n".join(lines)


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _cell(estimate: Estimate | None, digits: int, signed: bool) -> str:
    if estimate is None:
        return ABSENT
    if math.isnan(estimate.mean):
        return "-"
    sign = "+" if signed else ""
    mean = f"{estimate.mean:{sign}.{digits}f}"
    if math.isnan(estimate.low):
        return mean
    return f"{mean} [{estimate.low:{sign}.{digits}f}, {estimate.high:{sign}.{digits}f}]"
