"""Tables of single metrics: means, intervals, counts and paired differences."""

from __future__ import annotations

from dataclasses import dataclass

from anti_i2v_lit.evaluation.facts import ColumnFacts, Counts
from anti_i2v_lit.evaluation.outcome import Outcome, SummaryRow
from anti_i2v_lit.evaluation.statistics import Estimate
from anti_i2v_lit.report.evaluation.text import CLEAN


@dataclass(frozen=True, kw_only=True)
class MetricRow:
    """One mean of a metric.

    Attributes:
        generator: label.
        knowledge: one of `facts.KNOWLEDGE`, or "".
        purification: label.
        protection: name.
        mean: over photos.
        to_clean: paired difference to the clean photo's clip; None where there is none.
        to_noise: paired difference to noise of equal size; None where there is none.
        counts: what stands behind the mean.
        noise_counts: what stands behind `to_noise`.
    """

    generator: str
    knowledge: str
    purification: str
    protection: str
    mean: Estimate
    to_clean: Estimate | None
    to_noise: Estimate | None
    counts: Counts
    noise_counts: Counts


@dataclass(frozen=True, kw_only=True)
class MetricTable:
    """All means of one metric; `rows` may be fewer than `total`."""

    column: ColumnFacts
    rows: tuple[MetricRow, ...]
    total: int


def metric_tables(outcome: Outcome, limit: int) -> dict[str, list[MetricTable]]:
    """Heading -> tables, in the order of `outcome.columns`; a metric without rows keeps its name.

    Args:
        outcome: with a summary.
        limit: most rows per table.
    """
    summary = sorted(outcome.summary, key=lambda row: _order(outcome, row))
    known = list(outcome.columns)
    names = {column.name for column in known}
    for name in dict.fromkeys(name for row in summary for name in row.estimates):
        if name not in names:
            known.append(_unknown(name))
    groups: dict[str, list[MetricTable]] = {}
    for column in known:
        rows = [_row(row, column.name) for row in summary if column.name in row.estimates]
        table = MetricTable(column=column, rows=tuple(rows[:limit]), total=len(rows))
        groups.setdefault(column.group, []).append(table)
    return groups


def _row(row: SummaryRow, column: str) -> MetricRow:
    return MetricRow(
        generator=row.generator,
        knowledge=row.knowledge,
        purification=row.purification,
        protection=row.protection,
        mean=row.estimates[column],
        to_clean=row.to_clean.get(column),
        to_noise=row.to_noise.get(column),
        counts=row.counts,
        noise_counts=row.noise_counts,
    )


def _order(outcome: Outcome, row: SummaryRow) -> tuple[int, int, int]:
    """By generator, then purification; clean photos, protections, noise."""
    protections = [CLEAN, *(p.name for p in outcome.protections)]
    return (
        _place(row.generator, [g.label for g in outcome.generators]),
        _place(row.purification, [p.label for p in outcome.purifications]),
        _place(row.protection, protections),
    )


def _place(name: str, names: list[str]) -> int:
    return names.index(name) if name in names else len(names)


def _unknown(name: str) -> ColumnFacts:
    return ColumnFacts(
        name=name, title=name.replace("_", " "), unit="", better="none", digits=3, group="Others"
    )
