"""`outcome.json`: an `Outcome` to strict JSON and back, every number exactly."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import types
import typing
from pathlib import Path
from typing import Any

from anti_i2v_lit.evaluation.outcome import FORMAT, Outcome

FILE = "outcome.json"


def write_outcome(outcome: Outcome, folder: Path) -> Path:
    """Write `folder/outcome.json`, whole or not at all; undefined numbers become null."""
    path = folder / FILE
    partial = path.with_suffix(f".{os.getpid()}.partial")
    text = json.dumps(to_plain(outcome), indent=1, allow_nan=False, ensure_ascii=False)
    partial.write_text(text + "\n", encoding="utf-8", errors="backslashreplace")
    os.replace(partial, path)
    return path


def read_outcome(folder: Path) -> Outcome:
    """Read it back.

    Raises:
        ValueError: no such file, damaged, or written by another version.
    """
    path = folder / FILE
    if not path.is_file():
        raise ValueError(f"{path} is not a file; run `anti-i2v evaluate ... --out {folder}` first")
    try:
        plain = json.loads(path.read_text(encoding="utf-8"))
        if plain.get("format") != FORMAT:
            raise ValueError(f"format {plain.get('format')!r}, expected {FORMAT}")
        outcome = from_plain(Outcome, plain, "outcome")
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ValueError(f"{path} is not an outcome of this version: {error}") from error
    assert isinstance(outcome, Outcome)
    return outcome


def to_plain(value: Any) -> Any:
    """Dataclasses as plain data for strict JSON; NaN becomes null, infinity a text."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: to_plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, dict):
        return {str(name): to_plain(item) for name, item in value.items()}
    if isinstance(value, tuple | list):
        return [to_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None if math.isnan(value) else str(value)
    return value


def from_plain(kind: Any, value: Any, where: str) -> Any:
    """Plain JSON as an object of an annotated type; the other way of `to_plain`.

    Raises:
        ValueError: something that does not fit.
    """
    if kind is Any:
        return value
    if dataclasses.is_dataclass(kind):
        return _fields(kind, value, where)
    origin, parts = typing.get_origin(kind), typing.get_args(kind)
    if origin is tuple and parts[-1] is Ellipsis:
        return tuple(from_plain(parts[0], item, f"{where}[{i}]") for i, item in enumerate(value))
    if origin is tuple:
        pairs = zip(parts, value, strict=True)
        return tuple(from_plain(part, item, where) for part, item in pairs)
    if origin is dict:
        return {name: from_plain(parts[1], item, f"{where}.{name}") for name, item in value.items()}
    if origin in (typing.Union, types.UnionType):
        raise ValueError(f"{where}: no field of an outcome may be of several types")
    if kind is float:
        return math.nan if value is None else float(value)
    if not isinstance(value, kind):
        raise ValueError(f"{where}: expected {kind.__name__}, got {value!r}")
    return value


def _fields(kind: Any, value: Any, where: str) -> Any:
    hints = typing.get_type_hints(kind)
    unknown = set(value) - set(hints)
    if unknown:
        raise ValueError(f"{where}: unknown field {sorted(unknown)[0]!r}")
    return kind(
        **{name: from_plain(hints[name], item, f"{where}.{name}") for name, item in value.items()}
    )
