"""What the report says about all photos, from their rows, of which it keeps few."""

from __future__ import annotations

import math
import statistics
from array import array
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

from anti_i2v_lit.archive.reasons import ReasonGroup, Reasons
from anti_i2v_lit.archive.row import STATUSES, Row
from anti_i2v_lit.report.figures import FIGURES, Figure, Spread, visibility


class FirstRows:
    """The few rows that come first in an order, out of any number.

    Args:
        limit: how many.
        order: sorts the rows; no two of them may be equal in it.
    """

    def __init__(self, limit: int, order: Callable[[Row], Any]) -> None:
        self._limit, self._order = limit, order
        self._rows: list[Row] = []

    def add(self, row: Row) -> None:
        """Take a row; at most twice the limit are kept at a time."""
        self._rows.append(row)
        if len(self._rows) > 2 * self._limit:
            self._cut()

    def rows(self) -> list[Row]:
        """The first ones, in order."""
        self._cut()
        return list(self._rows)

    def _cut(self) -> None:
        self._rows.sort(key=self._order)
        del self._rows[self._limit :]


class Values:
    """The measured values of one figure: 8 bytes each, so that the median is exact.

    Args:
        figure: which one.
    """

    def __init__(self, figure: Figure) -> None:
        self._figure, self._values = figure, array("d")

    def add(self, row: Row) -> None:
        """Take a row; NaN counts as not measured."""
        value = self._figure.value(row)
        if value is not None and not math.isnan(value):
            self._values.append(value)

    def spread(self) -> Spread | None:
        """Middle and ends; None if nothing was measured."""
        figure, values = self._figure, self._values
        if not values:
            return None
        return Spread(
            name=figure.name,
            unit=figure.unit,
            meaning=figure.meaning,
            median=figure.text(statistics.median(values)),
            low=figure.text(min(values)),
            high=figure.text(max(values)),
            measured=len(values),
        )


class Gathered:
    """All rows of a folder, seen once.

    Memory grows by 80 bytes per photo; of the rows themselves only those are kept that the page
    shows.

    Args:
        rows: all of them.
        num_worst: how many of the most visible cloaks are kept.
        num_first: how many of the first ones by name are kept.
        keys_per_reason: how many photos are named per reason of refusal or failure.

    Attributes:
        counts: status -> photos.
        surrogates: names of the models that the photos are cloaked against.
        digests: of the settings.
        seconds: time spent on all photos.
        budget_low: smallest budget used, grey levels; infinite without any.
        budget_high: largest budget used, grey levels.
    """

    def __init__(
        self, rows: Iterable[Row], *, num_worst: int, num_first: int, keys_per_reason: int
    ) -> None:
        self.counts: Counter[str] = Counter(dict.fromkeys(STATUSES, 0))
        self.surrogates: set[str] = set()
        self.digests: set[str] = set()
        self.seconds, self.budget_low, self.budget_high = 0.0, math.inf, -math.inf
        self._worst = FirstRows(num_worst, lambda row: (-visibility(row), row.key))
        self._first = FirstRows(num_first, lambda row: row.key)
        self._values = [Values(figure) for figure in FIGURES]
        self._reasons = Reasons(keys_per_reason)
        for row in rows:
            self._take(row)

    def _take(self, row: Row) -> None:
        self.counts[row.status] += 1
        self.seconds += row.seconds
        if row.config_sha256:
            self.digests.add(row.config_sha256)
        if row.status != "cloaked":
            self._reasons.add(row)
            return
        self.surrogates.update(row.surrogates)
        self.budget_low = min(self.budget_low, row.budget_8bit)
        self.budget_high = max(self.budget_high, row.budget_8bit)
        self._worst.add(row)
        self._first.add(row)
        for values in self._values:
            values.add(row)

    @property
    def worst(self) -> list[Row]:
        """The most visible cloaks, most visible first."""
        return self._worst.rows()

    @property
    def first(self) -> list[Row]:
        """The first cloaks by name."""
        return self._first.rows()

    @property
    def spreads(self) -> list[Spread]:
        """Every figure of the cloaks that was measured at least once."""
        return [found for values in self._values if (found := values.spread()) is not None]

    @property
    def reasons(self) -> list[ReasonGroup]:
        """Refusals and failures."""
        return self._reasons.groups()
