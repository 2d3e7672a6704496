"""The table of metrics in the docs, made from the registry.

python -m anti_i2v_lit.metrics.table docs/metrics.md
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from anti_i2v_lit.metrics import METRICS, SET_METRICS
from anti_i2v_lit.metrics.requirements import Requirement

START, END = "<!-- table: start -->", "<!-- table: end -->"


def metric_table() -> str:
    """Name, meaning, direction, unit, source and needs of every metric, and how to meet them."""
    classes: dict[str, type[Any]] = {n: METRICS.load(n) for n in METRICS.names()}
    classes |= {n: SET_METRICS.load(n) for n in SET_METRICS.names()}
    lines = [
        "| name | what | better | unit | source | needs |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    needs: dict[str, Requirement] = {}
    for name, cls in classes.items():
        what = (cls.__doc__ or "").strip().split("\n")[0].rstrip(".")
        wanted = ", ".join(f"`{need.name}`" for need in cls.needs) or "nothing"
        needs |= {need.name: need for need in cls.needs}
        cells = (f"`{name}`", what, cls.direction, cls.unit, cls.source, wanted)
        lines.append(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |")
    lines += ["", "How to get what is needed:", ""]
    lines += [f"- `{name}`: {needs[name].how_to_get}." for name in sorted(needs)]
    return "\n".join(lines)


def with_table(page: str) -> str:
    """A page with the present table between its two marks.

    Raises:
        ValueError: the marks are missing.
    """
    before, start, rest = page.partition(START)
    _, end, after = rest.partition(END)
    if not start or not end:
        raise ValueError(f"expected the marks {START} and {END} in the page")
    return f"{before}{START}\n{metric_table()}\n{END}{after}"


def main() -> None:
    """Rewrite the table of the page given on the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("page", type=Path, help="Markdown file with the two marks")
    page: Path = parser.parse_args().page
    page.write_text(with_table(page.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
