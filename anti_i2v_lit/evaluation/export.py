"""The rows of an evaluation as Parquet, CSV and JSON, for programs and spreadsheets."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from anti_i2v_lit.evaluation.calibration import OTHERS
from anti_i2v_lit.evaluation.outcome import Outcome
from anti_i2v_lit.evaluation.store import Result

STEM = "results"
_PLACES = ("photo", "protection", "purification", "generator", "prompt", "seed", "frame")
_FACTS = ("severity", "tier", "knowledge", "verdict")
FIELDS = (*_PLACES, *_FACTS)  # columns of a row that are no figures
BY_FRAME = "frames_"


def write_rows(results: Sequence[Result], outcome: Outcome, folder: Path) -> tuple[str, ...]:
    r"""Write `results.parquet`, `.csv` and `.json`, each whole or not at all.

    One row per clip: photo, protection, purification, generator, prompt, seed, frame (the clean
    counterpart), severity, tier, knowledge ("held-out", "unknown", "white-box" or ""), verdict of
    the photo, then one column per figure. Undefined figures are null. Values per frame are lists
    named `frames_<figure>`, in Parquet and JSON only. Bytes of names that are not UTF-8 are written
    as escapes such as `\udcfc`.

    Returns:
        The names of the files.
    """
    verdicts = _verdicts(outcome)
    flat = [_flat(result, outcome, verdicts) for result in results]
    named = {name for result in results for name in result.by_frame}
    by_frame = sorted(name for name in named if not name.startswith(OTHERS))
    figures = sorted({name for result in results for name in result.figures})
    table = pa.table({name: [row.get(name) for row in flat] for name in [*FIELDS, *figures]})
    whole = table
    for name in by_frame:
        lists = [_listed(result.by_frame.get(name)) for result in results]
        whole = whole.append_column(BY_FRAME + name, pa.array(lists, pa.list_(pa.float64())))
    writers: dict[str, Callable[[Path], Any]] = {
        "parquet": lambda path: pyarrow.parquet.write_table(whole, path),
        "csv": lambda path: pyarrow.csv.write_csv(table, path),
        "json": lambda path: path.write_text(_json(whole), encoding="utf-8"),
    }
    for suffix, write in writers.items():
        partial = folder / f"{STEM}.{os.getpid()}.partial"
        write(partial)
        os.replace(partial, folder / f"{STEM}.{suffix}")
    return tuple(f"{STEM}.{suffix}" for suffix in writers)


def _json(table: pa.Table) -> str:
    lines = [json.dumps(row, allow_nan=False, ensure_ascii=False) for row in table.to_pylist()]
    return "[\n" + ",\n".join(lines) + "\n]\n"


def _flat(
    result: Result, outcome: Outcome, verdicts: Mapping[tuple[str, str, str], str]
) -> dict[str, Any]:
    entry = {p.label: p for p in outcome.purifications}[result.purification]
    protection = {p.name: p for p in outcome.protections}.get(result.protection)
    knowledge = protection.knowledge(result.generator) if protection is not None else ""
    return {
        **{name: _text(getattr(result, name)) for name in _PLACES},
        "severity": entry.severity,
        "tier": entry.tier,
        "knowledge": knowledge,
        "verdict": verdicts.get((result.photo, result.protection, result.generator), ""),
        **{name: _number(value) for name, value in result.figures.items()},
    }


def _text(value: str | int) -> str | int:
    """Text that is UTF-8, which a file's name need not be; numbers stay."""
    return value if isinstance(value, int) else value.encode(errors="backslashreplace").decode()


def _verdicts(outcome: Outcome) -> Mapping[tuple[str, str, str], str]:
    return {
        (photo.key, verdict.protection, verdict.generator): verdict.verdict
        for photo in outcome.photos
        for verdict in photo.verdicts
    }


def _listed(values: Sequence[float] | None) -> list[float | None] | None:
    return None if values is None else [_number(value) for value in values]


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None
