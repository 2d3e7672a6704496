"""The tables that ship with the package: one YAML file each, found by name."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

_SUFFIX = ".yaml"


def list_names() -> tuple[str, ...]:
    """Names of the packaged tables, sorted."""
    files = resources.files(__name__).iterdir()
    return tuple(sorted(f.name.removesuffix(_SUFFIX) for f in files if f.name.endswith(_SUFFIX)))


def list_path(name: str) -> Path:
    """The file of a packaged table.

    Raises:
        ValueError: no table of this name; says which there are.
    """
    if name not in list_names():
        raise ValueError(f"unknown table {name!r}; expected one of {', '.join(list_names())}")
    return Path(str(resources.files(__name__) / f"{name}{_SUFFIX}"))
