"""Name tables: one per seam, imported on use, open to outsiders through entry points."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import entry_points
from typing import Any, Generic, TypeVar

from anti_i2v_lit.checks import check_in
from anti_i2v_lit.config import parse_config

T = TypeVar("T")


@dataclass(frozen=True)
class Registry(Generic[T]):
    """Names of the variants of one seam.

    Attributes:
        seam: singular name of the seam, for messages; entry-point group is
            `anti_i2v_lit.<seam>s`.
        base: "module:Class" that every variant derives from.
        table: name -> "module:Class" of the built-in variants.
    """

    seam: str
    base: str
    table: Mapping[str, str]

    def targets(self) -> dict[str, str]:
        """Name -> "module:Class" of built-ins and of installed plug-ins (built-ins win)."""
        found = {e.name: e.value for e in entry_points(group=f"anti_i2v_lit.{self.seam}s")}
        return {**found, **self.table}

    def names(self) -> list[str]:
        """All known names, sorted; imports nothing."""
        return sorted(self.targets())

    def load(self, name: str) -> type[T]:
        """Import and return the class behind a name.

        Raises:
            ValueError: unknown name, with the nearest known one.
            TypeError: the class does not derive from the seam's base class.
        """
        target = self.table.get(name)
        if target is None:  # looking through all that is installed takes milliseconds
            targets = self.targets()
            check_in(name, targets, self.seam)
            target = targets[name]
        cls, base = _import(target), _import(self.base)
        if not issubclass(cls, base):
            raise TypeError(f"{self.seam} {name!r} is {cls}, which is not a {base.__name__}")
        return cls

    def build(self, node: Mapping[str, Any]) -> T:
        """Build a component from `{name: ..., <fields of its Config>}`.

        Raises:
            ValueError: unknown name or field, wrong type, or a value its Config refuses.
        """
        fields = dict(node)
        name = fields.pop("name", None)
        if not isinstance(name, str):
            raise ValueError(f"{self.seam}: a 'name' is needed, one of {', '.join(self.names())}")
        cls: Any = self.load(name)
        return cls(parse_config(cls.Config, fields, where=f"{self.seam} {name!r}"))

    def describe(self) -> dict[str, str]:
        """Name -> first line of the class docstring (imports the classes)."""
        return {n: (self.load(n).__doc__ or "").strip().split("\n")[0] for n in self.names()}


def _import(target: str) -> Any:
    module, _, attribute = target.partition(":")
    return getattr(importlib.import_module(module), attribute)
