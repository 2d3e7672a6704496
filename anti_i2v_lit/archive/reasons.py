"""Refusals and failures, grouped by what went wrong."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from anti_i2v_lit.archive.row import Row

KEYS_KEPT = 200
_NUMBER = re.compile(r"\d+(?:\.\d+)?")


@dataclass(frozen=True, kw_only=True)
class ReasonGroup:
    """Photos that ended for the same reason.

    Attributes:
        status: "refused" or "failed".
        reason: the reason; where the photos differ in numbers only, that of the first photo.
        count: how many photos.
        keys: the first of them.
    """

    status: str
    reason: str
    count: int
    keys: tuple[str, ...]


@dataclass(kw_only=True)
class _Members:
    reason: str
    count: int = 0
    keys: list[str] = field(default_factory=list)


class Reasons:
    """Groups rows that are not cloaked by status and reason, one after the other.

    Reasons that differ only in the photo's own key or in numbers are one group.

    Args:
        keys_kept: photos that are named per group.
    """

    def __init__(self, keys_kept: int = KEYS_KEPT) -> None:
        self._keys_kept = keys_kept
        self._groups: dict[tuple[str, str], _Members] = {}

    def add(self, row: Row) -> None:
        """Take a row; one that is cloaked is passed over."""
        if row.status == "cloaked":
            return
        pattern = _NUMBER.sub("#", row.reason.replace(row.key, "#") if row.key else row.reason)
        group = self._groups.setdefault((row.status, pattern), _Members(reason=row.reason))
        group.count += 1
        if len(group.keys) < self._keys_kept:
            group.keys.append(row.key)

    def groups(self) -> list[ReasonGroup]:
        """The groups so far, largest first."""
        found = [
            ReasonGroup(
                status=status,
                reason=members.reason or "no reason recorded",
                count=members.count,
                keys=tuple(members.keys),
            )
            for (status, _), members in self._groups.items()
        ]
        return sorted(found, key=lambda g: (-g.count, g.status, g.reason))
