"""Figures beyond the judge's own: any registered metric by name, or why it cannot be taken."""

from __future__ import annotations

import contextlib
import math
import typing
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from anti_i2v_lit.checkpoints import ends_digest
from anti_i2v_lit.config import digest, parse_config
from anti_i2v_lit.evaluation.calibration import OTHERS
from anti_i2v_lit.evaluation.columns import COLUMNS, EMBEDDERS
from anti_i2v_lit.evaluation.export import BY_FRAME, FIELDS
from anti_i2v_lit.evaluation.facts import AbsentMetric, ColumnFacts
from anti_i2v_lit.evaluation.judge import PSNR_OF_EQUAL_DB
from anti_i2v_lit.metrics import METRICS, SET_METRICS
from anti_i2v_lit.metrics.availability import build_metric, missing, weights_of
from anti_i2v_lit.metrics.base import CloakedPhoto, GeneratedClip, Metric
from anti_i2v_lit.metrics.frames import FrameMetric

# The judge takes these itself, for every clip and file, with their default settings. With settings
# or a label of their own they are taken once more.
OWN = frozenset(
    ("ciede2000", "ciede2000_p99", "photo_lpips", "photo_psnr", "photo_ssim", "identity_dlib")
    + ("identity_hse", "lpips", "max_change_8bit", "missing_faces", "motion", "psnr", "ssim")
)
# Names of figures that the judge gives; no further metric may be called so.
_TAKEN = frozenset((*COLUMNS, *EMBEDDERS, "face", "lpips", "ssim", "ciede2000_p99"))
GROUP = "Further metrics"

Node = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Further:
    """Metrics that can run here, by what they look at, and those that cannot.

    A metric goes by its label, which is its registered name where none is given.

    Attributes:
        of_clips: label -> metric of one clip.
        of_files: label -> metric of a protected file.
        of_sets: label -> settings of a metric of two sets of clips; built when it is used, and
            anew for each pair of sets.
        weights: folder of weights.
        absent: what was asked for and lacks something.
        asked: label -> {name, <fields>} of metrics of clips and files that run.
        digests: label -> digest of the weights of those that read some.
    """

    of_clips: Mapping[str, Metric[GeneratedClip]]
    of_files: Mapping[str, Metric[CloakedPhoto]]
    of_sets: Mapping[str, Node]
    weights: Path | None
    absent: tuple[AbsentMetric, ...]
    asked: Mapping[str, Node]
    digests: Mapping[str, str]

    @property
    def nodes(self) -> tuple[dict[str, Any], ...]:
        """What decides the further figures of clips, whatever the order in which it was asked."""
        return tuple({**self._identity(label), "label": label} for label in sorted(self.of_clips))

    @property
    def file_settings(self) -> dict[str, str]:
        """Label of every metric of files -> digest of its settings and weights."""
        return {label: digest(self._identity(label)) for label in self.of_files}

    def _identity(self, label: str) -> dict[str, Any]:
        weights = {"digest": self.digests[label]} if label in self.digests else {}
        return {**self.asked[label], **weights}

    def judge_clip(
        self, clip: GeneratedClip
    ) -> tuple[dict[str, float], dict[str, tuple[float, ...]]]:
        """Figures of a clip, and values per frame of those metrics that have them.

        A metric that refuses the clip (too small, too short) is undefined for it. Infinity is 100
        for figures in dB, as of the judge's own PSNR, and undefined for others.
        """
        figures: dict[str, float] = {}
        by_frame: dict[str, tuple[float, ...]] = {}
        for name, metric in self.of_clips.items():
            figures[name] = math.nan
            with contextlib.suppress(ValueError):
                if isinstance(metric, FrameMetric):
                    values = _finite(metric, metric.per_frame(clip))
                    figures[name] = metric.reduce(values)
                    by_frame[name] = tuple(values.tolist())
                else:
                    figures[name] = _finite_score(metric, clip)
        return figures, by_frame

    def judge_file(self, file: CloakedPhoto, labels: Iterable[str]) -> dict[str, float]:
        """Some figures of a protected file beside its photo; undefined where it is refused."""
        figures = {}
        for label in labels:
            figures[label] = math.nan
            with contextlib.suppress(ValueError):
                figures[label] = _finite_score(self.of_files[label], file)
        return figures

    def columns(self) -> list[ColumnFacts]:
        """What an outcome says about the metrics of clips and files."""
        return [_column(label, node) for label, node in self.asked.items()]


def build_further(nodes: Sequence[Node], weights: Path | None) -> Further:
    """Build what can be built.

    Args:
        nodes: {name, <fields>, label} of every metric that is asked for; without a label it goes
            by its name.
        weights: folder of weights; None for $ANTI_I2V_DATA/models.

    Raises:
        ValueError: settings that a metric refuses, or a label that means something else.
    """
    of_clips: dict[str, Metric[GeneratedClip]] = {}
    of_files: dict[str, Metric[CloakedPhoto]] = {}
    of_sets: dict[str, Node] = {}
    asked: dict[str, Node] = {}
    absent = []
    for label, node in _labelled(nodes).items():
        name = str(node["name"])
        lacking = _lacking(node, weights)
        if not lacking and _is_own(label, node):
            continue
        metric: Metric[Any] | None = None
        if not lacking and name not in SET_METRICS.names():
            metric, lacking = _built(node, weights)
        if lacking:
            _warn_of_settings(label, node, lacking)
            absent.append(AbsentMetric(name=label, reason=lacking))
        elif metric is None:
            of_sets[label] = node
        else:
            asked[label] = node
            if subject_of(METRICS.load(name)) is CloakedPhoto:
                of_files[label] = metric
            else:
                of_clips[label] = metric
    return Further(
        of_clips=of_clips,
        of_files=of_files,
        of_sets=of_sets,
        weights=weights,
        absent=tuple(absent),
        asked=asked,
        digests={label: d for label, node in asked.items() if (d := _digest_of(node, weights))},
    )


def _digest_of(node: Node, weights: Path | None) -> str:
    """Of the weights that a metric reads; "" where it reads none."""
    return " ".join(ends_digest(place) for place in weights_of(node, weights))


def _is_own(label: str, node: Node) -> bool:
    """Whether the judge takes a metric itself, as it is asked for and under that label."""
    return label == node["name"] and label in OWN and len(node) == 1


def _labelled(nodes: Sequence[Node]) -> dict[str, Node]:
    """Label -> {name, <fields>}.

    Raises:
        ValueError: two metrics of one label, or a label that is taken by the judge or by a column
            of the exported rows.
    """
    found: dict[str, Node] = {}
    for given in nodes:
        node = {field: value for field, value in given.items() if field != "label"}
        name = str(node["name"])
        label = str(given.get("label") or name)
        if label in found:
            raise ValueError(
                f"metrics: two are called {label!r}; give one of them a label of its own: "
                f"{{name: {name}, label: ...}}"
            )
        _check_column(label)
        if label in _TAKEN and not _is_own(label, node):
            raise ValueError(
                f"metrics: a figure that is always taken is called {label!r} already; give the "
                f"one with other settings a label of its own: {{name: {name}, label: ...}}"
            )
        found[label] = node
    return found


def _check_column(label: str) -> None:
    """Refuse what means something else in the exported rows.

    Raises:
        ValueError: with what it means there.
    """
    if label in FIELDS:
        raise ValueError(
            f"metrics: {label!r} is a column of the exported rows already ({', '.join(FIELDS)}); "
            "choose another label"
        )
    if label.startswith((BY_FRAME, OTHERS)):
        raise ValueError(
            f"metrics: {label!r} begins like a column of values per frame ({BY_FRAME}...) or of "
            f"other people ({OTHERS}...); choose another label"
        )


def _built(node: Node, weights: Path | None) -> tuple[Metric[Any] | None, str]:
    """A metric of clips or files, or why it cannot run here."""
    try:
        return build_metric(node, weights), ""
    except (ValueError, OSError) as error:  # a damaged or incomplete file
        return None, str(error)


def _warn_of_settings(label: str, node: Node, lacking: str) -> None:
    """Warn that the settings of a metric that cannot run are ignored."""
    fields = ", ".join(field for field in node if field != "name")
    if fields:
        warnings.warn(
            f"metrics: the settings of {label} ({fields}) are ignored, it cannot run here: "
            f"{lacking}",
            stacklevel=3,
        )


def _lacking(node: Node, weights: Path | None) -> str:
    """What a metric needs and lacks, with how to get it; "" for nothing.

    Raises:
        ValueError: settings that the metric refuses.
    """
    name = str(node["name"])
    cls: Any = (SET_METRICS if name in SET_METRICS.names() else METRICS).load(name)
    fields = {field: value for field, value in node.items() if field != "name"}
    parse_config(cls.Config, fields, where=f"metric {name!r}")
    if name in METRICS.names():
        subject_of(cls)
    lacking = missing(node, weights)
    if not lacking:
        return ""
    return "needs " + "; ".join(f"{need.name}: {need.how_to_get}" for need in lacking)


def subject_of(cls: type[Any]) -> type[Any]:
    """What a metric looks at: `GeneratedClip` or `CloakedPhoto`.

    Raises:
        ValueError: its class does not say so.
    """
    for parent in cls.__mro__:
        for base in getattr(parent, "__orig_bases__", ()):
            for argument in typing.get_args(base):
                if argument in (GeneratedClip, CloakedPhoto):
                    return argument
    raise ValueError(
        f"metric {cls.__name__} does not say what it looks at: derive it from "
        "Metric[GeneratedClip], FrameMetric or Metric[CloakedPhoto]"
    )


def _finite_score(metric: Metric[Any], subject: Any) -> float:
    value = torch.tensor([metric.score(subject)], dtype=torch.float64)
    return float(_finite(metric, value))


def _finite(metric: Metric[Any], values: Tensor) -> Tensor:
    """Values whose infinities are bounded (dB) or undefined, so that means exist."""
    if metric.unit == "dB":
        values = values.clamp(max=PSNR_OF_EQUAL_DB)
    if values.isinf().any():
        warnings.warn(
            f"{type(metric).__name__} gave an infinite value, which counts as undefined",
            stacklevel=2,
        )
    return values.masked_fill(values.isinf(), math.nan)


def _column(label: str, node: Node) -> ColumnFacts:
    cls = METRICS.load(str(node["name"]))
    title = (cls.__doc__ or label).strip().split("\n")[0].rstrip(".")
    fields = ", ".join(f"{field}={value}" for field, value in node.items() if field != "name")
    return ColumnFacts(
        name=label,
        title=f"{title} [{fields}]" if fields else title,
        unit=cls.unit,
        better=cls.direction,
        digits=3,
        group=GROUP,
        source=cls.source,
    )
