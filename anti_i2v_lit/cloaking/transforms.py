"""Expectation over transforms: purifications drawn inside the loop."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from anti_i2v_lit.checks import check_between
from anti_i2v_lit.purifications import PURIFICATIONS
from anti_i2v_lit.purifications.base import Purification


@dataclass(frozen=True, kw_only=True)
class DrawnTransform:
    """A differentiable purification and the largest severity it is drawn with."""

    purification: Purification
    severity: float

    def apply(self, canvas: Tensor, generator: torch.Generator) -> Tensor:
        """Apply it to [B, 3, h, w] at a severity drawn uniformly from (0, severity]."""
        share = 1.0 - torch.rand((), generator=generator).item()
        return self.purification.purify(canvas, self.severity * share, generator)


def build_transforms(nodes: Sequence[Mapping[str, Any]]) -> list[DrawnTransform]:
    """Build transforms from `{name, severity, <fields>}` nodes.

    Raises:
        ValueError: unknown name or field, severity out of range, or no gradient through it.
    """
    found = []
    for node in nodes:
        fields = dict(node)
        severity = float(fields.pop("severity", 0.5))
        check_between(severity, 0.0, 1.0, "attack.transforms severity")
        purification = PURIFICATIONS.build(fields)
        if not purification.is_differentiable:
            raise ValueError(
                f"attack.transforms: {node['name']!r} has no gradient and cannot be drawn inside "
                "the loop; use it in evaluation"
            )
        found.append(DrawnTransform(purification=purification, severity=severity))
    return found
