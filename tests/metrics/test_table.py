"""The docs' table is the registry's."""

from __future__ import annotations

from pathlib import Path

import pytest

from anti_i2v_lit.metrics import METRICS, SET_METRICS
from anti_i2v_lit.metrics.table import metric_table, with_table

PAGE = Path(__file__).parents[2] / "docs" / "metrics.md"


def test_the_page_is_up_to_date() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert page == with_table(page), "run python -m anti_i2v_lit.metrics.table docs/metrics.md"


def test_every_metric_has_a_row_of_six_cells() -> None:
    rows = [line for line in metric_table().splitlines() if line.startswith("| `")]
    assert len(rows) == len(METRICS.names()) + len(SET_METRICS.names())
    for row in rows:
        cells = [cell.strip() for cell in row.strip("|").split(" | ")]
        assert len(cells) == 6 and all(cells)


def test_a_page_without_marks_is_refused() -> None:
    with pytest.raises(ValueError, match="expected the marks"):
        with_table("# Metrics")
