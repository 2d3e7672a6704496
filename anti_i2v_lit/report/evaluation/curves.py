"""Protection by frame index: which charts the page shows, and what is in them."""

from __future__ import annotations

import math
from dataclasses import dataclass

from anti_i2v_lit.evaluation.outcome import Curve, Outcome
from anti_i2v_lit.report.evaluation.heat import knowledge_of
from anti_i2v_lit.report.evaluation.text import CLEAN, figure_title


@dataclass(frozen=True, kw_only=True)
class Chart:
    """Clean photo, cloak and noise of one protection, by frame.

    Attributes:
        generator: label.
        knowledge: one of `facts.KNOWLEDGE`.
        purification: label.
        figure: name of the figure.
        title: the figure in words.
        protection: name.
        clean: curve of the photos' own clips; None where there is none.
        cloak: curve of the cloaks' clips.
        noise: curve of noise of equal size; None where there is none.
        threshold: value below which a whole clip counts as somebody else's; NaN for none.
        low: lower end of the axis, the same for all charts of a figure.
        high: upper end of the axis.
    """

    generator: str
    knowledge: str
    purification: str
    figure: str
    title: str
    protection: str
    clean: Curve | None
    cloak: Curve
    noise: Curve | None
    threshold: float
    low: float
    high: float

    @property
    def lines(self) -> tuple[tuple[str, Curve], ...]:
        """Kind and curve of what there is, in the order in which it is drawn."""
        named = (("noise", self.noise), ("clean", self.clean), ("cloak", self.cloak))
        return tuple((kind, curve) for kind, curve in named if curve is not None)


@dataclass(frozen=True, kw_only=True)
class ChartGroup:
    """Charts of one generator and figure after one purification."""

    generator: str
    purification: str
    title: str
    charts: tuple[Chart, ...]


def chart_groups(outcome: Outcome, limit: int) -> tuple[list[ChartGroup], int]:
    """The charts that are shown and how many there are in all.

    Held-out generators come first; for each, the first purification of the gauntlet with every
    figure, then the further purifications.

    Args:
        outcome: with curves.
        limit: most charts.
    """
    charts = _charts(outcome)
    groups: dict[tuple[str, str, str], list[Chart]] = {}
    for chart in charts[:limit]:
        key = (chart.generator, chart.purification, chart.figure)
        groups.setdefault(key, []).append(chart)
    found = [
        ChartGroup(generator=g, purification=p, title=some[0].title, charts=tuple(some))
        for (g, p, _), some in groups.items()
    ]
    return found, len(charts)


def _charts(outcome: Outcome) -> list[Chart]:
    curves = {(c.generator, c.purification, c.figure, c.protection): c for c in outcome.curves}
    noise = {p.name: p.noise for p in outcome.protections}
    columns = {c.name: c for c in outcome.columns}
    ranges = {figure: _range(outcome, figure) for figure in {c.figure for c in outcome.curves}}
    found = []
    for (generator, purification, figure, protection), curve in curves.items():
        if protection == CLEAN or protection in noise.values():
            continue
        key = (generator, purification, figure)
        low, high = ranges[figure]
        found.append(
            Chart(
                generator=generator,
                knowledge=knowledge_of(outcome, protection, generator),
                purification=purification,
                figure=figure,
                title=figure_title(figure, columns),
                protection=protection,
                clean=curves.get((*key, CLEAN)),
                cloak=curve,
                noise=curves.get((*key, noise.get(protection, ""))),
                threshold=_threshold(outcome, generator, figure),
                low=low,
                high=high,
            )
        )
    return sorted(found, key=lambda chart: _order(outcome, chart))


def _order(outcome: Outcome, chart: Chart) -> tuple[int, ...]:
    purifications = [p.label for p in outcome.purifications]
    figures = list(dict.fromkeys(curve.figure for curve in outcome.curves))
    return (
        _place(chart.purification, purifications),
        _place(chart.generator, [g.label for g in outcome.generators]),
        _place(chart.figure, figures),
        _place(chart.protection, [p.name for p in outcome.protections]),
    )


def _place(name: str, names: list[str]) -> int:
    return names.index(name) if name in names else len(names)


def _threshold(outcome: Outcome, generator: str, figure: str) -> float:
    """The threshold of a figure's mean over frames; of several, the first one."""
    network = figure.removesuffix("_zero")
    for threshold in outcome.thresholds:
        if threshold.generator == generator and threshold.figure.startswith(f"{network}_"):
            return threshold.value
    return math.nan


def _range(outcome: Outcome, figure: str) -> tuple[float, float]:
    """An axis that holds zero and every interval of a figure; never empty."""
    values = [0.0]
    for curve in outcome.curves:
        if curve.figure == figure:
            values += [v for p in curve.points for v in (p.mean, p.low, p.high)]
    finite = [v for v in values if math.isfinite(v)]
    low, high = min(finite), max(finite)
    return (low, high) if high > low else (low, low + 1.0)
