"""Which metrics can run here, and what the others lack."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from anti_i2v_lit.metrics import METRICS, SET_METRICS
from anti_i2v_lit.metrics.base import Metric
from anti_i2v_lit.metrics.requirements import Requirement, WeightsFile
from anti_i2v_lit.metrics.sets import SetMetric


def missing(node: Mapping[str, Any], folder: Path | None = None) -> tuple[Requirement, ...]:
    """What a metric needs and lacks on this machine; empty if it can be built.

    Args:
        node: `{name: ..., <fields of its Config>}`, of a metric or of a set metric.
        folder: folder of weights; None means $ANTI_I2V_DATA/models.

    Raises:
        ValueError: unknown name.
    """
    configured = str(node.get("weights", ""))
    return tuple(
        need
        for need in _needs(node)
        if not (need.find(configured, folder) if isinstance(need, WeightsFile) else need.is_here)
    )


def weights_of(node: Mapping[str, Any], folder: Path | None = None) -> tuple[Path, ...]:
    """The files and model folders that a metric would read, of those that are there.

    Args:
        node: `{name: ..., <fields of its Config>}`; its own `weights` win over the folder.
        folder: folder of weights; None means $ANTI_I2V_DATA/models.

    Raises:
        ValueError: unknown name.
    """
    configured = str(node.get("weights", ""))
    needs = [need for need in _needs(node) if isinstance(need, WeightsFile)]
    found = [need.find(configured, folder) for need in needs]
    return tuple(path for path in found if path is not None)


def build_metric(node: Mapping[str, Any], folder: Path | None = None) -> Metric[Any]:
    """Build a metric with its weights from a folder.

    Args:
        node: `{name: ..., <fields of its Config>}`; its own `weights` win over the folder.
        folder: folder of weights; None means $ANTI_I2V_DATA/models.

    Raises:
        ValueError: something is missing (with how to get it), or wrong settings.
    """
    return METRICS.build(_with_weights(node, folder))


def build_set_metric(node: Mapping[str, Any], folder: Path | None = None) -> SetMetric:
    """Build a set metric with its weights from a folder; as `build_metric`."""
    return SET_METRICS.build(_with_weights(node, folder))


def _needs(node: Mapping[str, Any]) -> tuple[Requirement, ...]:
    name = node["name"]
    return SET_METRICS.load(name).needs if name in SET_METRICS.names() else METRICS.load(name).needs


def _with_weights(node: Mapping[str, Any], folder: Path | None) -> dict[str, Any]:
    """The settings of a metric with the path of its weights.

    Raises:
        ValueError: something is missing; the message says how to get it.
    """
    lacking = missing(node, folder)
    if lacking:
        advice = " ".join(f"{need.name}: {need.how_to_get}." for need in lacking)
        raise ValueError(f"metric {node['name']!r} cannot run here. It lacks {advice}")
    fields = dict(node)
    for need in _needs(node):
        if isinstance(need, WeightsFile):
            fields["weights"] = str(need.find(str(fields.get("weights", "")), folder))
    return fields
