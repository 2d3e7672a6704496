"""The settings of an output folder: written once, compared ever after."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from anti_i2v_lit.archive.files import STATE_FOLDER, write_whole
from anti_i2v_lit.config import deciding

_ABSENT = object()
_HEAD = "# Settings of this folder. Every run that continues it must have the same ones.\n"


def settings_path(folder: Path) -> Path:
    """Where the settings of an output folder lie."""
    return folder / STATE_FOLDER / "settings.yaml"


def read_settings(folder: Path) -> dict[str, Any]:
    """Return the recorded settings.

    Raises:
        ValueError: nothing recorded there, or the file is not a YAML mapping.
    """
    path = settings_path(folder)
    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ValueError(f"{folder} has no {path.name}: it is not the --out of a run") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is damaged: {error}") from error
    if not isinstance(found, dict):
        raise ValueError(f"{path} is damaged: expected a mapping, got {type(found).__name__}")
    return found


def write_settings(folder: Path, settings: Mapping[str, Any]) -> None:
    """Record settings as YAML, whole or not at all.

    Raises:
        ValueError: something in them is not plain data.
    """
    text = yaml.safe_dump(plain(settings), sort_keys=False, allow_unicode=True)
    write_whole(settings_path(folder), (_HEAD + text).encode())


def plain(value: Any, where: str = "settings") -> Any:
    """Reduce to what YAML keeps: dict, list, str, int, float, bool, None.

    Raises:
        ValueError: naming the place and the type of anything else.
    """
    if isinstance(value, Mapping):
        return {str(k): plain(v, f"{where}.{k}") for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [plain(v, f"{where}[{i}]") for i, v in enumerate(value)]
    if value is None or type(value) in (str, int, float, bool):
        return value
    raise ValueError(f"{where}: expected plain data, got {type(value).__name__}")


def differences(there: Mapping[str, Any], here: Mapping[str, Any]) -> list[str]:
    """List differing fields, as "attack.budget_8bit: 16 there, 8 here".

    Those that decide no byte of a cloak may differ, or be missing on one side.
    """
    old, new = (_flatten(plain(deciding(settings)), "") for settings in (there, here))
    names = [*old, *(n for n in new if n not in old)]
    return [
        f"{name}: {_show(old.get(name, _ABSENT))} there, {_show(new.get(name, _ABSENT))} here"
        for name in names
        if not _same(old.get(name, _ABSENT), new.get(name, _ABSENT))
    ]


def _flatten(value: Any, prefix: str) -> dict[str, Any]:
    if isinstance(value, dict) and value:
        pairs = [(f"{prefix}.{k}" if prefix else k, v) for k, v in value.items()]
    elif isinstance(value, list) and value:
        pairs = [(f"{prefix}[{i}]", v) for i, v in enumerate(value)]
    else:
        return {prefix: value}
    return {name: leaf for path, v in pairs for name, leaf in _flatten(v, path).items()}


def _same(a: Any, b: Any) -> bool:
    if isinstance(a, bool) or isinstance(b, bool):
        return a is b
    if isinstance(a, float) and isinstance(b, float) and math.isnan(a) and math.isnan(b):
        return True
    return bool(a == b)


def _show(value: Any) -> str:
    return "(absent)" if value is _ABSENT else repr(value)
