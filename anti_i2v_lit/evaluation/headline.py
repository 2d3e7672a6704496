"""What a reader looks at first: who beats whom, and what is left after the worst purification."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence

from anti_i2v_lit.evaluation.columns import COLUMNS
from anti_i2v_lit.evaluation.statistics import Estimate, bootstrap_mean
from anti_i2v_lit.evaluation.store import Result
from anti_i2v_lit.evaluation.tables import SummaryRow, per_photo

HEADLINE = ("dlib_mean_zero", "hse_mean_zero", "clip_lpips")
CLEAN = "clean"
WORST = "worst of them per photo"
_ARROWS = {"lower": " ↓", "higher": " ↑", "none": ""}

Columns = Sequence[str]


def wins(
    rows: Mapping[str, Sequence[SummaryRow]],
    known: Mapping[str, Collection[str]],
    reference: str,
    columns: Columns = HEADLINE,
) -> str:
    """Markdown: does the reference protect better than each other row?

    Args:
        rows: generator -> its rows, which carry paired differences to the reference.
        known: protection -> generators that it was computed against.
        reference: the protection that is compared.
        columns: figures; those that nobody has are left out.
    """
    parts = [
        f"# {reference} against each other row\n\nOther row minus {reference}, same photos and "
        "seeds, mean with 95 % interval over photos. **better**: the interval excludes zero in "
        f"favour of {reference}; **worse**: it excludes zero against it; no word: it does not "
        "exclude zero. Intervals are not corrected for the number of comparisons."
    ]
    for generator, some in rows.items():
        who = "white box" if generator in known.get(reference, ()) else "held out"
        present = _present(columns, [row.differences for row in some])
        for purification in dict.fromkeys(row.purification for row in some):
            chosen = [r for r in some if r.purification == purification and r.differences]
            if chosen and present:
                parts.append(f"## {generator} ({who}), purification {purification}")
                cells = [[_compared(r.differences.get(c), c) for c in present] for r in chosen]
                parts.append(_table([r.protection for r in chosen], present, cells))
                parts.append(_count(reference, chosen, present))
    return "\n\n".join(parts)


def by_purification(
    results: Mapping[str, Sequence[Result]],
    known: Mapping[str, Collection[str]],
    columns: Columns = HEADLINE,
) -> str:
    """Markdown: protections across, purifications down, and each photo's worst of them.

    The worst is taken photo by photo and figure by figure, "none" included, before the mean.

    Args:
        results: generator -> its results.
        known: protection -> generators that it was computed against.
        columns: figures; those that nobody has are left out.
    """
    parts = [
        "# After each purification\n\nMeans with 95 % intervals over photos. The last line of a "
        f'table, "{WORST}", takes the least protected case of every photo first. *: the cloak was '
        "computed against this model (white box)."
    ]
    for generator, some in results.items():
        values = per_photo(some)
        protections = list(dict.fromkeys(r.protection for r in some))
        purifications = list(dict.fromkeys(r.purification for r in some))
        marks = {p: "*" if generator in known.get(p, ()) else "" for p in protections}
        heads = [p + marks[p] for p in protections]
        for column in [c for c in columns if any(key[2] == c for key in values)]:
            cells = [
                [_shown(bootstrap_mean(list(_of(values, p, q, column).values())), column)
                 for p in protections]
                for q in purifications
            ]  # fmt: skip
            cells.append([_shown(_worst(values, p, column), column) for p in protections])
            parts.append(f"## {generator}: {_title(column)}")
            parts.append(_table([*purifications, WORST], heads, cells, lambda head: head))
    return "\n\n".join(parts)


def _worst(
    values: Mapping[tuple[str, str, str], Mapping[str, float]], protection: str, column: str
) -> Estimate:
    """Mean over photos of the photo's least protected value over all purifications."""
    least = max if COLUMNS[column].better == "lower" else min
    found: dict[str, list[float]] = {}
    for (name, _, figure), photos in values.items():
        if (name, figure) == (protection, column):
            for photo, value in photos.items():
                found.setdefault(photo, []).append(value)
    return bootstrap_mean([
        least([v for v in cases if not math.isnan(v)], default=math.nan) for cases in found.values()
    ])  # fmt: skip


def _of(
    values: Mapping[tuple[str, str, str], Mapping[str, float]],
    protection: str,
    purification: str,
    column: str,
) -> Mapping[str, float]:
    return values.get((protection, purification, column), {})


def _present(columns: Columns, found: Sequence[Mapping[str, Estimate]]) -> list[str]:
    return [c for c in columns if c in COLUMNS and any(c in estimates for estimates in found)]


def _side(difference: Estimate | None, column: str) -> int:
    """1 if the reference is better beyond doubt, -1 if worse, 0 otherwise."""
    if difference is None or math.isnan(difference.low):
        return 0
    sign = 1 if COLUMNS[column].better == "lower" else -1
    return sign * ((difference.low > 0) - (difference.high < 0))


def _compared(difference: Estimate | None, column: str) -> str:
    word = {1: " **better**", -1: " **worse**", 0: ""}[_side(difference, column)]
    return _shown(difference, column, signed=True) + word


def _count(reference: str, rows: Sequence[SummaryRow], columns: Columns) -> str:
    """One sentence per figure: how many rows the reference beats, and which beat it."""
    others = [row for row in rows if row.protection != CLEAN]
    sentences = []
    for column in columns:
        sides = {row.protection: _side(row.differences.get(column), column) for row in others}
        beaten = sum(side > 0 for side in sides.values())
        lost = [name for name, side in sides.items() if side < 0]
        ending = f"worse than {', '.join(lost)}" if lost else "worse than none"
        sentences.append(
            f"{COLUMNS[column].title}: {reference} is better than {beaten} of {len(sides)}, "
            f"{ending}."
        )
    return " ".join(sentences)


def _title(column: str) -> str:
    return COLUMNS[column].title + _ARROWS[COLUMNS[column].better]


def _shown(estimate: Estimate | None, column: str, signed: bool = False) -> str:
    if estimate is None or math.isnan(estimate.mean):
        return "-"
    form = f"{'+' if signed else ''}.{COLUMNS[column].digits}f"
    mean = f"{estimate.mean:{form}}"
    if math.isnan(estimate.low):
        return mean
    return f"{mean} [{estimate.low:{form}}, {estimate.high:{form}}]"


def _table(
    names: Sequence[str],
    heads: Sequence[str],
    cells: Sequence[Sequence[str]],
    titled: Callable[[str], str] = _title,
) -> str:
    lines = [f"| | {' | '.join(titled(h) for h in heads)} |", "| --- |" + " ---: |" * len(heads)]
    lines += [f"| {n} | {' | '.join(row)} |" for n, row in zip(names, cells, strict=True)]
    return "\n".join(lines)
