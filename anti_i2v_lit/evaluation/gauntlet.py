"""Which purifications an evaluation runs: a named gauntlet, or a list of single ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from anti_i2v_lit.checks import check_between, check_in
from anti_i2v_lit.config import parse_config
from anti_i2v_lit.evaluation.facts import PurificationFacts
from anti_i2v_lit.evaluation.outcome import ALL_TIERS
from anti_i2v_lit.evaluation.purifier_files import weights_digest
from anti_i2v_lit.purifications import PURIFICATIONS
from anti_i2v_lit.purifications.base import Purification
from anti_i2v_lit.purifications.gauntlets import GAUNTLETS

NONE = "none"
WORK_PX = "work_px"


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One purification of an evaluation.

    Attributes:
        label: unique name.
        config: {name, <fields>}; None for the untouched file.
        severity: in [0, 1].
    """

    label: str
    config: Mapping[str, Any] | None
    severity: float

    @property
    def node(self) -> dict[str, Any]:
        """Its settings as plain data."""
        return {"config": dict(self.config) if self.config else None, "severity": self.severity}

    def does_the_same_as(self, other: Entry) -> bool:
        """Whether name, all fields and severity are the same, whatever the two are called."""
        own, theirs = self.config, other.config
        if own is None or theirs is None:
            return own is theirs
        if (own["name"], self.severity) != (theirs["name"], other.severity):
            return False
        return (WORK_PX in own) == (WORK_PX in theirs) and _filled(own) == _filled(theirs)

    @property
    def identity(self) -> list[Any]:
        """All that decides what it does to a generator's photos: settings and weight files."""
        return [self.node, weights_digest(self.config)]

    @property
    def follows_view(self) -> bool:
        """Whether a network purifies at the size that the judged generator sees."""
        if self.config is None or WORK_PX in self.config:
            return False
        cls: Any = PURIFICATIONS.load(str(self.config["name"]))
        return WORK_PX in {field.name for field in fields(cls.Config)}

    def build(self, work_px: int) -> Purification | None:
        """The purification; None for the untouched file.

        Args:
            work_px: shorter side at which networks purify whose settings do not say it, pixels:
                that of the judged generator's view, since an attacker would purify there.

        Raises:
            ValueError: its settings are refused, or a file that it needs is absent.
        """
        if self.config is None:
            return None
        size = {WORK_PX: work_px} if self.follows_view else {}
        return PURIFICATIONS.build({**self.config, **size})

    def facts(self) -> PurificationFacts:
        """What an outcome says about it."""
        name = str(self.config["name"]) if self.config else ""
        cls = PURIFICATIONS.load(name) if name else None
        described = (cls.__doc__ or "").strip().split("\n")[0] if cls else "The file as it is."
        homes = [t for t in GAUNTLETS if any(self.does_the_same_as(row) for row in _rows(t))]
        return PurificationFacts(
            label=self.label,
            name=name,
            severity=self.severity,
            tier=homes[0] if homes else "",
            settings={
                **{k: v for k, v in (self.config or {}).items() if k != "name"},
                **({WORK_PX: "shorter side of the generator's view"} if self.follows_view else {}),
            },
            description=described,
        )


def entries(given: Any) -> tuple[Entry, ...]:
    """Resolve the setting `gauntlet`.

    Args:
        given: a gauntlet's name, or a list of: "none", a gauntlet's name, a purification's name,
            {name, severity, label, <fields>}.

    Raises:
        ValueError: unknown names, no entry, or a label that comes twice with other settings.
    """
    listed = given if isinstance(given, list) else [given]
    found: dict[str, Entry] = {}
    for item in listed:
        for entry in _resolved(item):
            known = found.setdefault(entry.label, entry)
            if known.node != entry.node:
                raise ValueError(
                    f"gauntlet: two different entries are called {entry.label!r}; "
                    "give one of them a label of its own"
                )
    if not found:
        raise ValueError("gauntlet: expected at least one entry, such as none")
    return tuple(found.values())


def tiers(given: Sequence[Entry]) -> dict[str, tuple[str, ...]]:
    """Tier -> labels, for every named gauntlet that is run whole, and for all together.

    A gauntlet was run if each of its rows was, by what it does: a label alone says nothing.
    """
    found = {
        name: [next((e.label for e in given if e.does_the_same_as(row)), None) for row in rows]
        for name, rows in ((name, _rows(name)) for name in GAUNTLETS)
    }
    whole = {
        name: tuple(label for label in labels if label is not None)
        for name, labels in found.items()
        if None not in labels
    }
    return {**whole, ALL_TIERS: tuple(entry.label for entry in given)}


def _rows(name: str) -> list[Entry]:
    """The entries of a named gauntlet."""
    return [Entry(label=r.label, config=r.config, severity=r.severity) for r in GAUNTLETS[name]]


def _filled(config: Mapping[str, Any]) -> Any:
    """The settings of a purification with its defaults.

    Raises:
        ValueError: the settings are refused.
    """
    name, given = str(config["name"]), {k: v for k, v in config.items() if k != "name"}
    cls: Any = PURIFICATIONS.load(name)
    return parse_config(cls.Config, given, where=f"purification {name!r}")


def _resolved(item: Any) -> list[Entry]:
    if isinstance(item, str):
        if item in GAUNTLETS:
            return _rows(item)
        item = {"name": item}
    if not isinstance(item, Mapping) or not isinstance(item.get("name"), str):
        raise ValueError(f"gauntlet: expected a name or {{name: ..., severity: ...}}, got {item!r}")
    fields = dict(item)
    name, label = fields.pop("name"), fields.pop("label", None)
    severity = fields.pop("severity", 1.0)
    if not isinstance(severity, int | float):
        raise ValueError(f"gauntlet: severity of {name} must be a number, got {severity!r}")
    check_between(float(severity), 0.0, 1.0, f"severity of {name}")
    if name == NONE:
        return [Entry(label=str(label or NONE), config=None, severity=0.0)]
    check_in(name, [NONE, *GAUNTLETS, *PURIFICATIONS.names()], "gauntlet or purification")
    default = name if severity == 1.0 else f"{name} at {severity:g}"
    config = {"name": name, **fields}
    _filled(config)
    return [Entry(label=str(label or default), config=config, severity=float(severity))]
