"""Loggers and callbacks named in settings, in the notation of Lightning's own command line."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any


def objects(nodes: Any, where: str) -> list[Any]:
    """Build `{class_path: package.Class, init_args: {...}}` nodes, one or a list of them.

    Raises:
        ValueError: another notation, no such class, or arguments that it refuses.
    """
    return [_build(node, where) for node in (nodes if isinstance(nodes, list) else [nodes])]


def _build(node: Any, where: str) -> Any:
    if not isinstance(node, Mapping) or not node.keys() <= {"class_path", "init_args"}:
        raise ValueError(
            f"{where}: expected {{class_path: package.Class, init_args: {{...}}}}, got {node!r}"
        )
    module, _, name = str(node.get("class_path", "")).rpartition(".")
    try:
        return getattr(importlib.import_module(module), name)(**(node.get("init_args") or {}))
    except (ImportError, AttributeError, TypeError, ValueError) as error:
        raise ValueError(f"{where}: {node.get('class_path')!r}: {error}") from error
