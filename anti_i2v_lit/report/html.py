"""Writes `report.html`: one page without outside parts, for the owner of the photos."""

from __future__ import annotations

import base64
import datetime
import hashlib
import importlib.metadata
import math
import os
import platform
import urllib.parse
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from anti_i2v_lit import __version__
from anti_i2v_lit.archive.files import sha256_of, write_whole
from anti_i2v_lit.archive.ledger import Ledger
from anti_i2v_lit.archive.outputs import file_of, locate
from anti_i2v_lit.archive.plan import duration_text
from anti_i2v_lit.archive.row import Row
from anti_i2v_lit.archive.verify import source_path
from anti_i2v_lit.report.figures import FIGURES
from anti_i2v_lit.report.gathering import Gathered
from anti_i2v_lit.report.pictures import PhotoPictures, photo_pictures

REPORT = "report.html"
WORST_SHOWN = 100
FIRST_SHOWN = 24
CROPS_SHOWN = 24
TABLE_ROWS = 1000
KEYS_PER_REASON = 200
_PACKAGES = ("torch", "lightning", "diffusers", "transformers", "pillow", "numpy")


@dataclass(frozen=True, kw_only=True)
class Card:
    """One photo of the contact sheet."""

    row: Row
    pictures: PhotoPictures
    link: str


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One figure in the table: its text and, for sorting, its number ("" when there is none)."""

    text: str
    number: str


def write_report(folder: Path) -> Path:
    """Write DIR/report.html from the manifest, the settings and the files; return its path.

    The page holds at most 124 photos (the 100 most visible by CIEDE2000 and the first 24) and a
    table of the 1,000 most visible, and says so; the manifest has all. Rows are read one after the
    other, so that the number of photos hardly matters for memory. Missing or unreadable originals
    leave a placeholder.

    Raises:
        ValueError: no such folder or a damaged manifest.
    """
    if not folder.is_dir():
        raise ValueError(f"{folder} is not a folder; give the --out of a run")
    ledger = Ledger(folder)
    seen = Gathered(
        ledger.rows().values(),
        num_worst=max(WORST_SHOWN, TABLE_ROWS),
        num_first=FIRST_SHOWN,
        keys_per_reason=KEYS_PER_REASON,
    )
    worst = seen.worst
    environment = _environment()
    script = environment.get_template("script.html").render()
    page = environment.get_template("report.html").render(
        script=Markup(script),
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        made=datetime.datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %Z"),
        counts=seen.counts,
        surrogates=sorted(seen.surrogates),
        budgets=_budgets(seen),
        spent=duration_text(seen.seconds),
        spreads=seen.spreads,
        cards=_cards(folder, _shown(worst, seen.first)),
        worst_shown=WORST_SHOWN,
        first_shown=FIRST_SHOWN,
        figures=FIGURES,
        table=worst[:TABLE_ROWS],
        link=_link,
        cells=_cells,
        reasons=seen.reasons,
        settings=_settings_text(ledger),
        versions=_versions(),
        digests=sorted(seen.digests),
        manifest_sha256=sha256_of(ledger.path) if ledger.path.exists() else "",
    )
    path = folder / REPORT
    # File names that are not UTF-8 are shown with their bytes as escapes.
    write_whole(path, page.encode(errors="backslashreplace"))
    return path


def _environment() -> Environment:
    return Environment(
        loader=PackageLoader("anti_i2v_lit.report", ""),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def _shown(worst: list[Row], first: list[Row]) -> list[Row]:
    """Rows of the contact sheet: the most visible ones, then the first ones by name."""
    chosen = worst[:WORST_SHOWN]
    keys = {row.key for row in chosen}
    return chosen + [row for row in first if row.key not in keys]


def _cards(folder: Path, rows: list[Row]) -> list[Card]:
    cards = []
    for number, row in enumerate(rows):
        pictures = photo_pictures(
            source_path(folder, row), locate(folder, row.output), with_crop=number < CROPS_SHOWN
        )
        cards.append(Card(row=row, pictures=pictures, link=_link(row)))
    return cards


def _link(row: Row) -> str:
    """A relative address of the cloak or of its shard; never one with a scheme."""
    return "./" + urllib.parse.quote(os.fsencode(file_of(row.output)))


def _cells(row: Row) -> Iterator[Cell]:
    for figure in FIGURES:
        value = figure.value(row)
        known = value is not None and not math.isnan(value)
        yield Cell(text=figure.text(value), number=repr(value) if known else "")


def _budgets(seen: Gathered) -> str:
    """Budgets that were used: "16" or "8 to 16"."""
    if not seen.counts["cloaked"]:
        return ""
    low, high = seen.budget_low, seen.budget_high
    return f"{high:g}" if low == high else f"{low:g} to {high:g}"


def _settings_text(ledger: Ledger) -> str:
    try:
        settings: dict[str, Any] = ledger.settings()
    except ValueError as error:
        return str(error)
    text: str = yaml.safe_dump(settings, sort_keys=False, allow_unicode=True)
    return text


def _versions() -> list[tuple[str, str]]:
    """Versions on the machine that writes the report."""
    found = [("anti-i2v-lit", __version__), ("Python", platform.python_version())]
    for name in _PACKAGES:
        try:
            found.append((name, importlib.metadata.version(name)))
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
