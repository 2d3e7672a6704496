"""The gauntlet as a heat map: purifications down, protections across, one map per generator."""

from __future__ import annotations

import math
from dataclasses import dataclass

from anti_i2v_lit.evaluation.facts import PurificationFacts
from anti_i2v_lit.evaluation.outcome import ALL_TIERS, HeatCell, Outcome, WorstCase

LEVELS = 20
# Lightness falls steadily and the hue hardly changes, so the order survives grey paper and any
# kind of colour vision. Shares are printed inside as well.
_RAMP = ((0.0, (247, 244, 236)), (0.35, (176, 205, 196)), (0.7, (62, 128, 132)), (1.0, (8, 48, 62)))


@dataclass(frozen=True, kw_only=True)
class HeatRow:
    """One purification: a cell per protection, None where it was not judged."""

    purification: PurificationFacts
    cells: tuple[HeatCell | None, ...]


@dataclass(frozen=True, kw_only=True)
class WorstRow:
    """Worst case per photo: one entry per protection, None where it was not judged.

    `tiers` says of what: "all 6", "written (4)"; tiers of the same purifications are one row.
    """

    tiers: str
    cells: tuple[WorstCase | None, ...]


@dataclass(frozen=True, kw_only=True)
class HeatMap:
    """All fields of one generator.

    Attributes:
        generator: label.
        knowledge: one of `facts.KNOWLEDGE`, or "mixed" where that differs by protection.
        protections: columns: name and knowledge.
        rows: in the order of the gauntlet.
        worst: one per tier.
        figures: identity figures whose means are in the cells.
    """

    generator: str
    knowledge: str
    protections: tuple[tuple[str, str], ...]
    rows: tuple[HeatRow, ...]
    worst: tuple[WorstRow, ...]
    figures: tuple[str, ...]


def heat_maps(outcome: Outcome) -> list[HeatMap]:
    """One map per generator that has fields, in the order of the outcome."""
    order = [generator.label for generator in outcome.generators]
    order += [c.generator for c in outcome.heat if c.generator not in order]
    return [
        _map(outcome, label)
        for label in dict.fromkeys(order)
        if any(cell.generator == label for cell in outcome.heat)
    ]


def _map(outcome: Outcome, generator: str) -> HeatMap:
    cells = {(c.purification, c.protection): c for c in outcome.heat if c.generator == generator}
    names = [p.name for p in outcome.protections]
    names += [name for _, name in cells if name not in names]
    knowledge = {name: cell.knowledge for (_, name), cell in cells.items()}
    shown = [name for name in dict.fromkeys(names) if name in knowledge]
    facts = {p.label: p for p in outcome.purifications}
    labels = [*facts, *(label for label, _ in cells if label not in facts)]
    kinds = set(knowledge.values())
    return HeatMap(
        generator=generator,
        knowledge=kinds.pop() if len(kinds) == 1 else "mixed",
        protections=tuple((name, knowledge[name]) for name in shown),
        rows=tuple(
            HeatRow(
                purification=facts.get(label, _unknown(label)),
                cells=tuple(cells.get((label, name)) for name in shown),
            )
            for label in dict.fromkeys(labels)
            if any((label, name) in cells for name in shown)
        ),
        worst=_worst(outcome, generator, shown),
        figures=tuple(dict.fromkeys(cell.figure for cell in cells.values() if cell.figure)),
    )


def _worst(outcome: Outcome, generator: str, names: list[str]) -> tuple[WorstRow, ...]:
    found: dict[str, dict[str, WorstCase]] = {}
    for case, tiers in worst_cases(outcome):
        if case.generator == generator:
            found.setdefault(tiers, {})[case.protection] = case
    return tuple(
        WorstRow(tiers=tiers, cells=tuple(cases.get(name) for name in names))
        for tiers, cases in found.items()
    )


def worst_cases(outcome: Outcome) -> list[tuple[WorstCase, str]]:
    """Worst cases, each with the names of its tiers; tiers of equal purifications are one."""
    groups: dict[tuple[str, str, frozenset[str]], list[WorstCase]] = {}
    for case in outcome.worst:
        key = (case.generator, case.protection, frozenset(case.purifications))
        groups.setdefault(key, []).append(case)
    return [(cases[0], _tier_names(cases)) for cases in groups.values()]


def _tier_names(cases: list[WorstCase]) -> str:
    """Such as "all 6 (gauntlet quick)" or "gauntlet written (4)"."""
    number = len(cases[0].purifications)
    named = ", ".join(case.tier for case in cases if case.tier != ALL_TIERS)
    if all(case.tier != ALL_TIERS for case in cases):
        return f"gauntlet {named} ({number})"
    return f"all {number}" + (f" (gauntlet {named})" if named else "")


def _unknown(label: str) -> PurificationFacts:
    return PurificationFacts(
        label=label, name="", severity=math.nan, tier="", settings={}, description=""
    )


def knowledge_of(outcome: Outcome, protection: str, generator: str) -> str:
    """What is known of the generator's part in computing the cloak; "" for no protection."""
    named = (facts for facts in outcome.protections if facts.name == protection)
    return next((facts.knowledge(generator) for facts in named), "")


def level(share: float) -> str:
    """Class of a field: h0 (nothing) to h20 (everything), "hn" where it is not known."""
    if math.isnan(share):
        return "hn"
    return f"h{round(LEVELS * min(1.0, max(0.0, share)))}"


def ramp(share: float) -> tuple[int, int, int]:
    """Background of a share, sRGB in 0..255."""
    for (low, start), (high, end) in zip(_RAMP, _RAMP[1:], strict=False):
        if share <= high:
            part = (share - low) / (high - low)
            red, green, blue = (round(a + part * (b - a)) for a, b in zip(start, end, strict=True))
            return red, green, blue
    return _RAMP[-1][1]


def luminance(colour: tuple[int, int, int]) -> float:
    """Relative luminance of an sRGB colour (WCAG 2.2)."""
    linear = [
        c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4
        for c in (part / 255 for part in colour)
    ]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def heat_style() -> str:
    """CSS of the classes; ink is black or white, whichever stands out more."""
    lines = []
    for step in range(LEVELS + 1):
        colour = ramp(step / LEVELS)
        shade = luminance(colour)
        ink = "#000" if (shade + 0.05) / 0.05 >= 1.05 / (shade + 0.05) else "#fff"
        lines.append(f".h{step}{{background:#{bytes(colour).hex()};color:{ink}}}")
    return "\n".join(lines)
