"""Purifications of a table by name: single ones at full severity, and rows of gauntlets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import final

import torch
from torch import Tensor

from anti_i2v_lit.evaluation.purifier_files import weights_digest
from anti_i2v_lit.ops.resize import Box
from anti_i2v_lit.purifications import PURIFICATIONS
from anti_i2v_lit.purifications.base import Purification
from anti_i2v_lit.purifications.gauntlets import GAUNTLETS, GauntletRow, gauntlet
from anti_i2v_lit.purifications.working_size import DEFAULT_WORK_PX

NONE = "none"


@final
class AtSeverity(Purification):
    """A purification whose full severity is a share of the inner one's.

    Args:
        inner: the purification.
        share: severity of `inner` that stands for 1 here, in [0, 1].
    """

    def __init__(self, inner: Purification, share: float) -> None:
        self.inner, self.share = inner, share

    @property
    def is_differentiable(self) -> bool:
        """As the inner one."""
        return self.inner.is_differentiable

    def _purify(self, photos: Tensor, severity: float, generator: torch.Generator) -> Tensor:
        return self.inner.purify(photos, self.share * severity, generator)

    def _purify_faces(
        self,
        photos: Tensor,
        faces: Sequence[Box | None],
        severity: float,
        generator: torch.Generator,
    ) -> Tensor:
        return self.inner.purify(photos, self.share * severity, generator, faces=faces)


def rows_named(names: Sequence[str], work_px: int = DEFAULT_WORK_PX) -> dict[str, GauntletRow]:
    """Label -> row of single purifications and of all rows of gauntlets, each label once.

    Args:
        names: "none", names of purifications (at full severity), names of gauntlets, or labels of
            their rows such as "WebP q50".
        work_px: shorter side at which networks purify, pixels.

    Raises:
        ValueError: an unknown name.
    """
    found: dict[str, GauntletRow] = {}
    single = {row.label: row for tier in GAUNTLETS for row in gauntlet(tier, work_px=work_px)}
    for name in names:
        rows: tuple[GauntletRow, ...]
        if name in GAUNTLETS:
            rows = gauntlet(name, work_px=work_px)
        elif name == NONE:
            rows = (GauntletRow(label=NONE, config=None, severity=0.0),)
        elif name in single and name not in PURIFICATIONS.table:
            rows = (single[name],)
        else:
            PURIFICATIONS.load(name)
            rows = (GauntletRow(label=name, config={"name": name}),)
        for row in rows:
            found.setdefault(row.label, row)
    return found


def purifications_named(names: Sequence[str], work_px: int) -> dict[str, Purification | None]:
    """Label -> what happens to a file, to be run at severity 1; None for nothing.

    Raises:
        ValueError: an unknown name, or a network whose weights are missing.
    """
    found: dict[str, Purification | None] = {}
    for label, row in rows_named(names, work_px).items():
        inner = row.build()
        found[label] = None if inner is None else AtSeverity(inner, row.severity)
    return found


def identities_named(names: Sequence[str], work_px: int) -> Mapping[str, object]:
    """Label -> all that decides what `purifications_named` gives: settings, severity, weights."""
    return {
        label: [dict(row.config or {}), row.severity, weights_digest(row.config)]
        for label, row in rows_named(names, work_px).items()
    }
