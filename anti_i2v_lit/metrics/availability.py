"""Which metrics can run here, and what the others lack."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from anti_i2v_lit.metrics import METRICS
from anti_i2v_lit.metrics.base import Metric
from anti_i2v_lit.metrics.requirements import Requirement, WeightsFile


def missing(node: Mapping[str, Any], folder: Path | None = None) -> tuple[Requirement, ...]:
    """What a metric needs and lacks on this machine; empty if it can be built.

    Args:
        node: `{name: ..., <fields of its Config>}`.
        folder: folder of weights; None means $ANTI_I2V_DATA/models.

    Raises:
        ValueError: unknown name.
    """
    configured = str(node.get("weights", ""))
    return tuple(
        need
        for need in METRICS.load(node["name"]).needs
        if not (
            need.find(configured, folder) if isinstance(need, WeightsFile) else need.is_installed
        )
    )


def build_metric(node: Mapping[str, Any], folder: Path | None = None) -> Metric[Any]:
    """Build a metric with its weights from a folder.

    Args:
        node: `{name: ..., <fields of its Config>}`; its own `weights` win over the folder.
        folder: folder of weights; None means $ANTI_I2V_DATA/models.

    Raises:
        ValueError: something is missing (with how to get it), or wrong settings.
    """
    lacking = missing(node, folder)
    if lacking:
        advice = " ".join(f"{need.name}: {need.how_to_get}." for need in lacking)
        raise ValueError(f"metric {node['name']!r} cannot run here. It lacks {advice}")
    fields = dict(node)
    for need in METRICS.load(node["name"]).needs:
        if isinstance(need, WeightsFile):
            fields["weights"] = str(need.find(str(fields.get("weights", "")), folder))
    return METRICS.build(fields)
