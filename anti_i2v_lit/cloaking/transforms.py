"""Expectation over transforms: purifications drawn inside the loop."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from anti_i2v_lit.checkpoints import EMBEDDED, PACKAGED
from anti_i2v_lit.checks import check_between
from anti_i2v_lit.config import parse_config
from anti_i2v_lit.purifications import PURIFICATIONS
from anti_i2v_lit.purifications.base import Purification

# The fields by which networks that have a gradient say where their weights are.
_FIELDS = ("model", "path")


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


def transform_models(nodes: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    """The models that transforms run, `name:path` as rows name surrogates; builds nothing.

    A cloak is computed through them, so they took part in it. The packaged model whose
    autoencoder is run goes by its own name, any other one by the name of the purification.

    Args:
        nodes: `{name, severity, <fields>}`.

    Raises:
        ValueError: unknown name or field.
    """
    packaged = {home: f"{name}:{EMBEDDED}" for name, home in PACKAGED.items()}
    found = []
    for node in nodes:
        name = str(node["name"])
        cls: Any = PURIFICATIONS.load(name)
        given = {k: v for k, v in node.items() if k not in ("name", "severity")}
        settings = parse_config(cls.Config, given, where=f"purification {name!r}")
        places = [str(value) for field, value in vars(settings).items() if field in _FIELDS]
        found += [packaged.get(place, f"{name}:{place}") for place in places]
    return tuple(dict.fromkeys(found))
