"""Settings of an evaluation: defaults, YAML, `section.field=value`."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from anti_i2v_lit.checks import check_at_least, check_between, check_in
from anti_i2v_lit.config import check_sections, parse_config, parse_override, read_sections
from anti_i2v_lit.data.faces import FaceConfig
from anti_i2v_lit.data.framing import FramingConfig
from anti_i2v_lit.data.reading import ReadingConfig
from anti_i2v_lit.evaluation.gauntlet import Entry, entries
from anti_i2v_lit.generators import GENERATORS
from anti_i2v_lit.metrics import METRICS, SET_METRICS

KEEP = ("report", "all")
ALL_METRICS = "all"
# Figures of the judge that no metric is called by, and the nearest metrics.
_BESIDE_CLIPS = {f"clip_{what}": f"photo_{what}" for what in ("lpips", "psnr", "ssim")}


@dataclass(kw_only=True)
class NoiseSettings:
    """Random noise of the cloaks' size, against which they are calibrated.

    Attributes:
        seeds: number of the clips' seeds that are repeated with noise, at most all of them; with
            fewer than two clips under noise (photos x prompts x seeds) nothing is judged.
        quantile: share of single clips under noise, over all photos, prompts and seeds, in
            (0, 0.5], that may change more than the limit.
    """

    seeds: int = 1
    quantile: float = 0.05

    def __post_init__(self) -> None:
        """Refuse values without meaning."""
        check_at_least(self.seeds, 0, "noise.seeds")
        check_between(self.quantile, 0.001, 0.5, "noise.quantile")


@dataclass(kw_only=True)
class IdentitySettings:
    """When a clip no longer shows the person.

    Attributes:
        thresholds: face network -> cosine below which a clip shows somebody else; a network that
            is not named here is calibrated on the clean clips.
        min_people: people, told apart by their faces, that the calibration needs; with fewer,
            `fallback` is taken.
        fallback: face network -> cosine for evaluations with too few people, and from which two
            photos may show the same person; networks without one tell nobody apart.
        others: most photos of other people that a clean clip is compared with.
    """

    thresholds: dict[str, float] = field(default_factory=dict)
    min_people: int = 4
    fallback: dict[str, float] = field(default_factory=lambda: {"dlib": 0.25, "hse": 0.25})
    others: int = 32

    def __post_init__(self) -> None:
        """Refuse values without meaning."""
        check_at_least(self.min_people, 2, "identity.min_people")
        check_at_least(self.others, 1, "identity.others")
        for name, value in (*self.thresholds.items(), *self.fallback.items()):
            check_between(value, -1.0, 1.0, f"identity threshold of {name}")


@dataclass(kw_only=True)
class ClipSettings:
    """Which clips are kept.

    Attributes:
        keep: "report" keeps one clip per photo, protection and generator; "all" keeps all clean
            and protected clips, which figures of sets of clips (FVD) need.
        purifications: labels whose clips are kept; empty for the first of the gauntlet.
    """

    keep: str = "report"
    purifications: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Refuse an unknown choice."""
        check_in(self.keep, KEEP, "clips.keep")


@dataclass(kw_only=True)
class StatisticsSettings:
    """How means are taken.

    Attributes:
        level: coverage of the intervals, in (0, 1).
        resamples: bootstrap resamples.
    """

    level: float = 0.95
    resamples: int = 10_000

    def __post_init__(self) -> None:
        """Refuse values without meaning."""
        check_between(self.level, 0.01, 0.999, "statistics.level")
        check_at_least(self.resamples, 1, "statistics.resamples")


@dataclass(kw_only=True)
class ReportSettings:
    """How much of an evaluation `report.html` shows; the files beside it hold all.

    Attributes:
        photos: photos shown with pictures and clips: the worst, the middle and the best ones.
        pictures_per_photo: protected files shown with pictures and residual, per photo.
        comparisons_per_photo: generator, purification, prompt and seed settings shown per photo.
        frames: frames shown per clip; of longer clips evenly spaced ones.
        frame_side_px: longer side of a shown frame, pixels.
        clip_megabytes: size of all embedded clips together, in 10^6 bytes as written to the page.
        charts: charts by frame index.
        table_rows: rows of the table of all photos, and of the table of file hashes.
        metric_rows: rows of a metric's table.
        problems: problems listed per kind.
    """

    photos: int = 12
    pictures_per_photo: int = 6
    comparisons_per_photo: int = 4
    frames: int = 48
    frame_side_px: int = 160
    clip_megabytes: float = 24.0
    charts: int = 72
    table_rows: int = 10_000
    metric_rows: int = 400
    problems: int = 100

    def __post_init__(self) -> None:
        """Refuse negative limits and frames that are too small to see."""
        for limit in dataclasses.fields(self):
            low = {"frames": 2, "frame_side_px": 16}.get(limit.name, 0)
            check_at_least(getattr(self, limit.name), low, f"report.{limit.name}")


def default_generators() -> list[dict[str, Any]]:
    """Both packaged models."""
    return [
        {"label": "mmdit", "name": "cogvideox", "path": "embedded"},
        {"label": "unet", "name": "dynamicrafter", "path": "embedded"},
    ]


@dataclass(kw_only=True)
class EvaluationSettings:
    """Resolved settings of an evaluation.

    Attributes:
        generators: {name, label, <fields>} per model of the attacker.
        prompts: texts of the clips.
        seeds: seeds of the clips, the same for a photo and its cloak.
        sampling_steps: denoising steps per clip; 0 for what each generator says itself.
        batch_size: clips made together.
        long_clip_chains: how often a clip's last frame is fed back as the next photo.
        gauntlet: name of a gauntlet, or a list of names and {name, severity, label, <fields>}.
        metrics: further figures by registered name, or {name, <fields>, label}; "all" for every
            one. `metrics.NAME.FIELD=VALUE` sets a field of one of them.
        surrogates: name of a protection -> models that computed it, besides those of its manifest:
            labels of generators, packaged models, `name` or `name:path` of registered ones, or
            "other". Where nobody says, it is unknown.
        weights: folder of face networks and other files; "" for $ANTI_I2V_DATA/models.
        noise: noise of equal size.
        identity: when a clip shows somebody else.
        clips: which clips are kept.
        statistics: how means are taken.
        report: how much the page shows.
        framing: how a photo is cut to a generator's frame.
        faces: face detector.
        reading: limits on input files.
        trainer: devices, in the words of Lightning's Trainer: accelerator, devices, num_nodes.
    """

    generators: list[dict[str, Any]] = field(default_factory=default_generators)
    prompts: list[str] = field(default_factory=lambda: ["a person is talking"])
    seeds: list[int] = field(default_factory=lambda: [0, 1, 2])
    sampling_steps: int = 0
    batch_size: int = 4
    long_clip_chains: int = 0
    gauntlet: Any = "quick"
    metrics: Any = ALL_METRICS
    surrogates: dict[str, list[str]] = field(default_factory=dict)
    weights: str = ""
    noise: NoiseSettings = field(default_factory=NoiseSettings)
    identity: IdentitySettings = field(default_factory=IdentitySettings)
    clips: ClipSettings = field(default_factory=ClipSettings)
    statistics: StatisticsSettings = field(default_factory=StatisticsSettings)
    report: ReportSettings = field(default_factory=ReportSettings)
    framing: FramingConfig = field(default_factory=FramingConfig)
    faces: FaceConfig = field(default_factory=FaceConfig)
    reading: ReadingConfig = field(default_factory=ReadingConfig)
    trainer: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse an empty plan and unknown components.

        Raises:
            ValueError: with the field and what it expects.
        """
        check_at_least(self.sampling_steps, 0, "sampling_steps")
        check_at_least(self.batch_size, 1, "batch_size")
        check_at_least(self.long_clip_chains, 0, "long_clip_chains")
        for name in ("prompts", "seeds", "generators"):
            values = getattr(self, name)
            if not values:
                raise ValueError(f"{name}: expected at least one entry, got {values!r}")
        for name in ("prompts", "seeds"):
            values = getattr(self, name)
            if len(set(values)) < len(values):
                raise ValueError(f"{name}: expected different ones, got {values}")
        if self.noise.seeds > len(self.seeds):
            raise ValueError(
                f"noise.seeds: noise repeats the clips' seeds, so expected at most "
                f"{len(self.seeds)} of them, got {self.noise.seeds}; give more seeds"
            )
        labels = [node["label"] for node in map(labelled, self.generators)]
        if len(set(labels)) < len(labels):
            raise ValueError(f"generators: two are called {labels}; give each its own label")
        known = [entry.label for entry in self.purifications()]
        for label in self.clips.purifications:
            check_in(label, known, "clips.purifications")
        self.metric_nodes()

    def purifications(self) -> tuple[Entry, ...]:
        """The gauntlet, in order."""
        return entries(self.gauntlet)

    def metric_nodes(self) -> list[dict[str, Any]]:
        """{name, <fields>, label} of every further metric."""
        return _metric_nodes(self.metrics)

    def plain(self) -> dict[str, Any]:
        """Everything as plain data."""
        return dataclasses.asdict(self)


SECTIONS: dict[str, type[Any]] = {
    "noise": NoiseSettings,
    "identity": IdentitySettings,
    "clips": ClipSettings,
    "statistics": StatisticsSettings,
    "report": ReportSettings,
    "framing": FramingConfig,
    "faces": FaceConfig,
    "reading": ReadingConfig,
}


def labelled(node: Mapping[str, Any]) -> dict[str, Any]:
    """A generator's node with its label: the given one, else its name.

    Raises:
        ValueError: not `{name: ..., <fields>}`, or an unknown name.
    """
    if not isinstance(node, Mapping) or not isinstance(node.get("name"), str):
        raise ValueError(f"generators: expected {{name: ..., <fields>}}, got {node!r}")
    check_in(node["name"], GENERATORS.targets(), "generator")
    return {**node, "label": str(node.get("label") or node["name"])}


def _metric_nodes(given: Any) -> list[dict[str, Any]]:
    """{name, <fields>, label} of the metrics that the setting `metrics` asks for.

    Raises:
        ValueError: neither "all" nor a list of names and nodes, or an unknown name.
    """
    every = [*METRICS.names(), *SET_METRICS.names()]
    listed = every if given == ALL_METRICS else given
    if not isinstance(listed, list):
        raise ValueError(
            f"metrics: expected a list of names or {{name: ..., <fields>}}, or {ALL_METRICS!r}, "
            f"got {given!r}"
        )
    nodes = [{"name": node} if isinstance(node, str) else dict(node) for node in listed]
    for node in nodes:
        if node.get("name") in _BESIDE_CLIPS:
            raise ValueError(
                f"metrics: {node['name']} compares with the clean photo's clip and is always "
                f"taken; the metric that compares with the photo is {_BESIDE_CLIPS[node['name']]}"
            )
        check_in(str(node.get("name")), every, "metric")
    return nodes


def _with_metric_field(given: Any, place: str, value: Any) -> list[dict[str, Any]]:
    """The metrics with one field of one of them set.

    Args:
        given: the setting `metrics`.
        place: `NAME.FIELD`, with the metric's label, which is its name where it has none.
        value: of the field.

    Raises:
        ValueError: another form, or a metric that was not asked for.
    """
    label, _, name = place.partition(".")
    if not name:
        raise ValueError(f"expected metrics.NAME.FIELD=VALUE, got metrics.{place}")
    nodes = _metric_nodes(given)
    named = {str(node.get("label") or node["name"]): node for node in nodes}
    check_in(label, named, "metric among those that are asked for")
    named[label][name] = value
    return nodes


def load_evaluation_settings(
    path: Path | None = None,
    overrides: Sequence[str] = (),
    values: Mapping[str, Any] | None = None,
) -> EvaluationSettings:
    """Read settings: defaults, then a YAML file, then `values`, then `section.field=value`.

    Args:
        path: YAML file.
        overrides: of the command line, e.g. `seeds=[0,1]` or `generators.0.path=/models/x`.
        values: nested plain values, for programs.

    Raises:
        ValueError: unknown section, field, component or value, with the nearest known one.
    """
    merged: Any = OmegaConf.create(EvaluationSettings().plain())
    read = read_sections(path) if path is not None else {}
    for where, given in ((str(path), read), ("values", dict(values or {}))):
        check_sections(EvaluationSettings, given, where)
        try:
            merged = OmegaConf.merge(merged, given)
        except (OmegaConfBaseException, ValueError, TypeError) as error:
            raise ValueError(f"{where}: {str(error).splitlines()[0]}") from error
    for override in overrides:
        _override(merged, override)
    plain = OmegaConf.to_container(merged, resolve=True)
    assert isinstance(plain, dict)
    for name, cls in SECTIONS.items():  # for messages that name the nearest field
        parse_config(cls, plain.get(name) or {}, where=name)
    return parse_config(EvaluationSettings, {str(k): v for k, v in plain.items()}, "settings")


def _override(merged: Any, override: str) -> None:
    """Apply one `a.b=c`; `a.0.b=c` reaches into lists."""
    key, value = parse_override(EvaluationSettings, override)
    section, _, place = key.partition(".")
    if section == "metrics" and place and not place.partition(".")[0].isdigit():
        plain = OmegaConf.to_container(merged)
        assert isinstance(plain, dict)
        key, value = section, _with_metric_field(plain[section], place, value)
    try:
        OmegaConf.update(merged, key, value, merge=False, force_add=True)
    except (OmegaConfBaseException, ValueError, TypeError, IndexError) as error:
        raise ValueError(f"override {override!r}: {str(error).splitlines()[0]}") from error
