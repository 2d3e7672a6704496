"""Writes `report.html` of an evaluation: one page without outside parts."""

from __future__ import annotations

import base64
import hashlib
import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from anti_i2v_lit.archive.files import write_whole
from anti_i2v_lit.archive.plan import duration_text
from anti_i2v_lit.evaluation.facts import HELD_OUT, UNKNOWN, VERDICTS, WHITE_BOX, Problem
from anti_i2v_lit.evaluation.outcome import Outcome
from anti_i2v_lit.evaluation.settings import ReportSettings
from anti_i2v_lit.report.evaluation import chart, curves, headline, heat, photos, text
from anti_i2v_lit.report.evaluation.clips import comparisons
from anti_i2v_lit.report.evaluation.tables import metric_tables

REPORT = "report.html"


@dataclass(frozen=True, kw_only=True)
class ProblemGroup:
    """Problems of one kind; `shown` are at most as many as the limit says."""

    kind: str
    title: str
    fails: bool
    shown: tuple[Problem, ...]
    total: int


def write_report(outcome: Outcome, folder: Path, config: ReportSettings | None = None) -> Path:
    """Write DIR/report.html; return its path. The same outcome and files give the same bytes.

    Clips, photos and protected files that cannot be read leave a text in their place.

    Args:
        outcome: what was found.
        folder: DIR, which the outcome's paths are relative to.
        config: how much is shown; None for the defaults.

    Raises:
        ValueError: no such folder.
    """
    if not folder.is_dir():
        raise ValueError(f"{folder} is not a folder; give the --out of an evaluation")
    limits = config or ReportSettings()
    environment = _environment()
    script = environment.get_template("evaluation/script.html").render()
    page = environment.get_template("evaluation/page.html").render(
        script=Markup(script),
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        heat_style=Markup(heat.heat_style()),
        coverage=text.coverage(outcome),
        outcome=outcome,
        limits=limits,
        **_above(outcome, limits),
        **_pictures(outcome, folder, limits),
        **_below(outcome, folder, limits),
    )
    path = folder / REPORT
    # File names that are not UTF-8 are shown with their bytes as escapes.
    write_whole(path, page.encode(errors="backslashreplace"))
    return path


def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("anti_i2v_lit.report", ""),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        number=text.number,
        percent=text.percent,
        interval=text.interval,
        percent_interval=text.percent_interval,
        amount=text.amount,
        moment=text.moment,
        counted=text.counted,
        duration=duration_text,
        level=heat.level,
        svg=chart.svg,
        yaml=_yaml,
    )
    environment.globals.update(
        side=text.side,
        marks=text.MARKS,
        directions=text.DIRECTIONS,
        clean=text.CLEAN,
        figure_title=text.figure_title,
        held_out=HELD_OUT,
        unknown=UNKNOWN,
        white_box=WHITE_BOX,
        verdicts=VERDICTS,
    )
    return environment


def _above(outcome: Outcome, limits: ReportSettings) -> dict[str, Any]:
    """Headline, counts, problems and verdicts."""
    tallies = photos.tallies(outcome)
    cases = heat.worst_cases(outcome)
    most = max((len(case.purifications) for case, _ in cases), default=0)
    white = {label for p in outcome.protections for label in p.white_box}
    return {
        "problems": _problems(outcome, limits.problems),
        "tallies": tallies,
        "title": headline.title(outcome, tallies),
        "sentence": headline.sentence(outcome, tallies),
        "clips_judged": sum(row.counts.clips for row in outcome.summary),
        "white": white,
        "worst": [pair for pair in cases if len(pair[0].purifications) == most],
        "worst_of_tiers": [pair for pair in cases if len(pair[0].purifications) < most],
        "unknown_models": [p.name for p in outcome.protections if not p.told_by],
        "faceless": sum(not photo.has_face for photo in outcome.photos),
        "columns": {column.name: column for column in outcome.columns},
    }


def _pictures(outcome: Outcome, folder: Path, limits: ReportSettings) -> dict[str, Any]:
    """Cards of photos, heat maps and charts."""
    chosen = photos.chosen(outcome, limits.photos)
    compared = comparisons(outcome, folder, [photo.key for photo, _ in chosen], limits)
    groups, total = curves.chart_groups(outcome, limits.charts)
    return {
        "cards": [
            photos.card(
                outcome,
                folder,
                photo,
                place=place,
                comparisons=compared.by_photo[photo.key],
                pictured=limits.pictures_per_photo,
            )
            for photo, place in chosen
        ],
        "card_files": max((len(photo.files) for photo, _ in chosen), default=0),
        "compared": compared,
        "maps": heat.heat_maps(outcome),
        "chart_groups": groups,
        "charts_shown": sum(len(group.charts) for group in groups),
        "charts_total": total,
    }


def _below(outcome: Outcome, folder: Path, limits: ReportSettings) -> dict[str, Any]:
    """Tables of everything."""
    lines = photos.lines(outcome)
    visibility = dict.fromkeys(n for p in outcome.photos for f in p.files for n in f.figures)
    return {
        "metrics": metric_tables(outcome, limits.metric_rows),
        "lines": lines[: limits.table_rows],
        "lines_total": len(lines),
        "visibility": list(visibility),
        "links": {name: photos.link(name, folder) for name in outcome.files},
    }


def _problems(outcome: Outcome, limit: int) -> list[ProblemGroup]:
    """Problems by kind: what makes the evaluation fail first, then as they are listed."""
    counts = Counter((p.fails, p.kind) for p in outcome.problems)
    kinds = sorted(counts, key=lambda key: (not key[0], _kind_place(key[1])))
    return [
        ProblemGroup(
            kind=kind,
            title=text.KINDS.get(kind, kind),
            fails=fails,
            shown=tuple(p for p in outcome.problems if (p.fails, p.kind) == (fails, kind))[:limit],
            total=counts[fails, kind],
        )
        for fails, kind in kinds
    ]


def _kind_place(kind: str) -> int:
    known = list(text.KINDS)
    return known.index(kind) if kind in known else len(known)


def _yaml(value: Any) -> str:
    plain = json.loads(json.dumps(value, default=str))
    found: str = yaml.safe_dump(plain, sort_keys=False, allow_unicode=True)
    return found
