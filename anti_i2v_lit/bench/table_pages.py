"""A table's pages: the headline for the docs, everything for readers, CSV for programs."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from anti_i2v_lit.bench.plan import TablePlan, known_models
from anti_i2v_lit.bench.trained import compared, seen_and_unseen
from anti_i2v_lit.evaluation.columns import COLUMNS
from anti_i2v_lit.evaluation.gains import gains
from anti_i2v_lit.evaluation.headline import by_purification, wins
from anti_i2v_lit.evaluation.run import Evaluation
from anti_i2v_lit.evaluation.tables import (
    NOTES,
    SummaryRow,
    csv_text,
    markdown,
    sort_rows,
    summarise,
)
from anti_i2v_lit.evaluation.transfer import csv_by_generator, matrix

_FALLBACK = "clip_lpips"


def write_pages(
    plan: TablePlan,
    found: Mapping[str, Evaluation],
    facts: Sequence[str],
    out: Path,
    overrides: Sequence[str],
) -> Path:
    """Write `brief.md`, `table.md` and `table.csv`.

    Args:
        plan: the table.
        found: generator -> what it made of all protections.
        facts: sentences about how it was made.
        out: folder.
        overrides: settings of all variants.

    Returns:
        `table.md`, which holds the brief and after it every figure.
    """
    rows = {label: summarise(e.results, plan.reference) for label, e in found.items()}
    facts = list(facts)
    if plan.sort:
        column = _sorted_by(plan.sort, rows)
        rows = {label: sort_rows(some, column) for label, some in rows.items()}
        facts.append(f"sorted by {COLUMNS[column].title}, best protected first")
    facts.append("refused or failed: " + (_lost(found) or "none"))
    known = known_models(plan, overrides)
    brief = [f"# {plan.title}\n\n" + "\n".join(f"- {fact}" for fact in facts)]
    brief += [matrix(rows, known)] if len(rows) > 1 else []
    results = {label: evaluation.results for label, evaluation in found.items()}
    purifications = list(dict.fromkeys(r.purification for some in results.values() for r in some))
    for name, drawn in compared(plan, overrides).items():
        groups = seen_and_unseen(purifications, drawn)
        brief.append(gains(results, known, name, plan.reference, groups))
    brief.append(wins(rows, known, plan.reference))
    if len(purifications) > 2:
        brief.append(by_purification(results, known))
    whole = [
        f"# Every figure of generator {label}\n\n{markdown(some, plan.reference)}"
        for label, some in rows.items()
    ]
    _write(out / "brief.md", "\n\n".join([*brief, NOTES]) + "\n")
    _write(out / "table.md", "\n\n".join([*brief, *whole]))
    single = next(iter(rows.values())) if len(rows) == 1 else None
    _write(out / "table.csv", csv_text(single) if single else csv_by_generator(rows))
    return out / "table.md"


def publish(out: Path, page: Path) -> None:
    """Copy the brief to a page of the docs, and the CSV file beside it.

    Args:
        out: folder of `write_pages`.
        page: Markdown file to be written.
    """
    page.parent.mkdir(parents=True, exist_ok=True)
    _write(page, (out / "brief.md").read_text(encoding="utf-8"))
    _write(page.with_suffix(".csv"), (out / "table.csv").read_text(encoding="utf-8"))


def _sorted_by(wanted: str, rows: Mapping[str, Sequence[SummaryRow]]) -> str:
    """The wanted column, or one that needs no weights where nobody has it."""
    measured = all(any(wanted in row.estimates for row in some) for some in rows.values())
    return wanted if measured else _FALLBACK


def _lost(found: Mapping[str, Evaluation]) -> str:
    lost = {name: keys for e in found.values() for name, keys in e.missing.items() if keys}
    return "; ".join(f"{name}: {', '.join(keys)}" for name, keys in lost.items())


def _write(path: Path, text: str) -> None:
    partial = path.with_name(f"{path.name}.partial")
    partial.write_text(text, encoding="utf-8")
    os.replace(partial, path)
