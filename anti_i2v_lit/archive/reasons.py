"""Refusals and failures, grouped by what went wrong."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from anti_i2v_lit.archive.row import Row

_NUMBER = re.compile(r"\d+(?:\.\d+)?")


@dataclass(frozen=True, kw_only=True)
class ReasonGroup:
    """Photos that ended for the same reason.

    Attributes:
        status: "refused" or "failed".
        reason: the reason; where the photos differ in numbers only, that of the first photo.
        keys: the photos.
    """

    status: str
    reason: str
    keys: tuple[str, ...]


def group_reasons(rows: Iterable[Row]) -> list[ReasonGroup]:
    """Group rows that are not cloaked by status and reason, largest group first.

    Reasons that differ only in the photo's own key or in numbers are one group.
    """
    groups: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        if row.status != "cloaked":
            pattern = _NUMBER.sub("#", row.reason.replace(row.key, "#") if row.key else row.reason)
            groups.setdefault((row.status, pattern), []).append(row)
    found = [
        ReasonGroup(
            status=status,
            reason=members[0].reason or "no reason recorded",
            keys=tuple(r.key for r in members),
        )
        for (status, _), members in groups.items()
    ]
    return sorted(found, key=lambda g: (-len(g.keys), g.status, g.reason))
