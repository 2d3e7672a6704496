"""Figures beyond the judge's own: any registered metric by name, or why it cannot be taken."""

from __future__ import annotations

import contextlib
import math
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from anti_i2v_lit.config import parse_config
from anti_i2v_lit.evaluation.facts import AbsentMetric, ColumnFacts
from anti_i2v_lit.metrics import METRICS, SET_METRICS
from anti_i2v_lit.metrics.availability import build_metric, missing
from anti_i2v_lit.metrics.base import CloakedPhoto, GeneratedClip, Metric
from anti_i2v_lit.metrics.frames import FrameMetric

# The judge takes these itself, for every clip and file, under its own column names.
OWN = frozenset(
    ("ciede2000", "ciede2000_p99", "clip_lpips", "clip_psnr", "clip_ssim", "identity_dlib")
    + ("identity_hse", "lpips", "max_change_8bit", "missing_faces", "motion", "psnr", "ssim")
)
GROUP = "Further metrics"


@dataclass(frozen=True, kw_only=True)
class Further:
    """Metrics that can run here, by what they look at, and those that cannot.

    Attributes:
        of_clips: name -> metric of one clip.
        of_files: name -> metric of a protected file.
        of_sets: name -> settings of a metric of two sets of clips; built when it is used, and
            anew for each pair of sets.
        weights: folder of weights.
        absent: what was asked for and lacks something.
        nodes: settings of those that run, for digests.
    """

    of_clips: Mapping[str, Metric[GeneratedClip]]
    of_files: Mapping[str, Metric[CloakedPhoto]]
    of_sets: Mapping[str, Mapping[str, Any]]
    weights: Path | None
    absent: tuple[AbsentMetric, ...]
    nodes: tuple[Mapping[str, Any], ...]

    def judge_clip(
        self, clip: GeneratedClip
    ) -> tuple[dict[str, float], dict[str, tuple[float, ...]]]:
        """Figures of a clip, and values per frame of those metrics that have them.

        A metric that refuses the clip (too small, too short) is undefined for it.
        """
        figures: dict[str, float] = {}
        by_frame: dict[str, tuple[float, ...]] = {}
        for name, metric in self.of_clips.items():
            figures[name] = math.nan
            with contextlib.suppress(ValueError):
                if isinstance(metric, FrameMetric):
                    values = metric.per_frame(clip)
                    figures[name] = metric.reduce(values)
                    by_frame[name] = tuple(values.tolist())
                else:
                    figures[name] = metric.score(clip)
        return figures, by_frame

    def judge_file(self, file: CloakedPhoto) -> dict[str, float]:
        """Figures of a protected file beside its photo."""
        return {name: metric.score(file) for name, metric in self.of_files.items()}


def build_further(nodes: Sequence[Mapping[str, Any]], weights: Path | None) -> Further:
    """Build what can be built.

    Args:
        nodes: {name, <fields>} of every metric that is asked for.
        weights: folder of weights; None for $ANTI_I2V_DATA/models.

    Raises:
        ValueError: settings that a metric refuses.
    """
    of_clips: dict[str, Metric[GeneratedClip]] = {}
    of_files: dict[str, Metric[CloakedPhoto]] = {}
    of_sets: dict[str, Mapping[str, Any]] = {}
    absent, used = [], []
    for node in nodes:
        name = str(node["name"])
        lacking = _lacking(node, weights)
        if lacking:
            absent.append(AbsentMetric(name=name, reason=lacking))
            continue
        if name in SET_METRICS.names():
            of_sets[name] = node
            continue
        if name in OWN:
            continue
        try:
            metric = build_metric(node, weights)
        except (ValueError, OSError) as error:  # a damaged or incomplete file
            absent.append(AbsentMetric(name=name, reason=str(error)))
            continue
        used.append(node)
        if subject_of(METRICS.load(name)) is CloakedPhoto:
            of_files[name] = metric
        else:
            of_clips[name] = metric
    return Further(
        of_clips=of_clips,
        of_files=of_files,
        of_sets=of_sets,
        weights=weights,
        absent=tuple(absent),
        nodes=tuple(used),
    )


def _lacking(node: Mapping[str, Any], weights: Path | None) -> str:
    """What a metric needs and lacks, with how to get it; "" for nothing.

    Raises:
        ValueError: settings that the metric refuses.
    """
    name = str(node["name"])
    cls: Any = (SET_METRICS if name in SET_METRICS.names() else METRICS).load(name)
    fields = {field: value for field, value in node.items() if field != "name"}
    parse_config(cls.Config, fields, where=f"metric {name!r}")
    lacking = missing(node, weights)
    if not lacking:
        return ""
    return "needs " + "; ".join(f"{need.name}: {need.how_to_get}" for need in lacking)


def subject_of(cls: type[Any]) -> type[Any]:
    """What a metric looks at: `GeneratedClip` or `CloakedPhoto`."""
    for parent in cls.__mro__:
        for base in getattr(parent, "__orig_bases__", ()):
            for argument in typing.get_args(base):
                if argument in (GeneratedClip, CloakedPhoto):
                    return argument
    raise AssertionError(f"{cls} does not say what it looks at")


def further_columns(names: Sequence[str]) -> list[ColumnFacts]:
    """What an outcome says about registered metrics."""
    found = []
    for name in names:
        cls = METRICS.load(name)
        title = (cls.__doc__ or name).strip().split("\n")[0].rstrip(".")
        found.append(
            ColumnFacts(
                name=name,
                title=title,
                unit=cls.unit,
                better=cls.direction,
                digits=3,
                group=GROUP,
                source=cls.source,
            )
        )
    return found
