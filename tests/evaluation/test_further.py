"""Further metrics: their settings, their names, and those that cannot run here."""

import math
import warnings
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from anti_i2v_lit.evaluation import further
from anti_i2v_lit.evaluation.further import Further, build_further, subject_of
from anti_i2v_lit.evaluation.settings import load_evaluation_settings
from anti_i2v_lit.metrics.availability import build_metric
from anti_i2v_lit.metrics.base import CloakedPhoto, GeneratedClip, Metric
from anti_i2v_lit.metrics.fidelity import ClipPsnr
from anti_i2v_lit.metrics.frames import FramesConfig
from anti_i2v_lit.metrics.requirements import WeightsFile
from anti_i2v_lit.registry import Registry


class Counting(Metric[GeneratedClip]):
    """Frames of a clip, times a factor."""

    @dataclass(kw_only=True)
    class Config:
        """Settings.

        Attributes:
            factor: of the count; no unit.
        """

        factor: float = 1.0

    direction, unit, source = "none", "frames", "here"

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config

    def _score(self, subject: GeneratedClip) -> float:
        return self.config.factor * len(subject.frames)


class Weighing(Counting):
    """Frames of a clip, beside a file of weights."""

    @dataclass(kw_only=True)
    class Config(Counting.Config):
        """Settings.

        Attributes:
            weights: path of the file.
        """

        weights: str = ""

    needs = (WeightsFile(name="scales.bin", how_to_get="make it"),)


class WeighingFiles(Metric[CloakedPhoto]):
    """Nothing of a file, beside the same weights."""

    Config = Weighing.Config
    direction, unit, source = "none", "none", "here"
    needs = Weighing.needs

    def __init__(self, config: Weighing.Config) -> None:
        super().__init__()

    def _score(self, subject: CloakedPhoto) -> float:
        return 0.0


class Aimless(Metric):  # type: ignore[type-arg]
    """Looks at nothing in particular."""


@pytest.fixture
def plugged(monkeypatch: pytest.MonkeyPatch) -> None:
    """A user's package has registered a metric of its own."""
    targets = Registry.targets

    def more(self: Registry[object]) -> dict[str, str]:
        classes = {"counting": Counting, "weighing": Weighing, "weighing_files": WeighingFiles}
        own = {n: f"{__name__}:{c.__name__}" for n, c in classes.items()}
        own = own if self.seam == "metric" else {}
        return {**own, **targets(self)}

    monkeypatch.setattr(Registry, "targets", more)


def clip() -> GeneratedClip:
    return GeneratedClip(key="a", photo=torch.zeros(3, 8, 8), frames=torch.zeros(5, 3, 8, 8))


def further_of(*overrides: str):
    settings = load_evaluation_settings(overrides=overrides)
    return build_further(settings.metric_nodes(), None)


def test_a_users_metric_gets_its_settings(plugged: None) -> None:
    found = further_of("metrics=[counting]", "metrics.counting.factor=3")
    assert found.judge_clip(clip())[0] == {"counting": 15.0}
    both = further_of("metrics=[counting,{name: counting, factor: 2, label: twice}]")
    assert both.judge_clip(clip())[0] == {"counting": 5.0, "twice": 10.0}
    assert [c.title for c in both.columns()] == [
        "Frames of a clip, times a factor",
        "Frames of a clip, times a factor [factor=2]",
    ]
    assert "counting" in further_of("metrics.counting.factor=2").of_clips, "all of them"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["metrics=[counting]", "metrics.counting.facto=3"], "Did you mean 'factor'"),
        (["metrics=[counting]", "metrics.countin.factor=3"], "Did you mean 'counting'"),
        (["metrics=[counting]", "metrics.counting=3"], "metrics.NAME.FIELD"),
        (["metrics=[counting,counting]"], "label of its own"),
        (["metrics=[{name: photo_lpips, frames: first}]"], "label of its own"),
        (["metrics=[{name: counting, label: dlib_mean}]"], "called 'dlib_mean' already"),
        (["metrics=[{name: identity_dlib, missin: zero}]"], "Did you mean 'missing'"),
        (["metrics=[{name: counting, label: seed}]"], "'seed' is a column of the exported rows"),
        (["metrics=[{name: counting, label: verdict}]"], "photo, protection, .*verdict"),
        (["metrics=[{name: counting, label: frames_dlib}]"], "values per frame"),
        (["metrics=[{name: counting, label: others_dlib}]"], "other people"),
        (["metrics=[clip_psnr]"], "compares with the photo is photo_psnr"),
    ],
)
def test_mistakes_are_refused_with_the_remedy(plugged, words: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        further_of(*words)


def test_the_judges_own_metrics_are_not_built_and_others_of_their_kind_are(
    plugged: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    built = []

    def build(node: dict[str, object], weights: object) -> object:
        built.append(node["name"])
        return build_metric(node, weights)

    monkeypatch.setattr(further, "build_metric", build)
    found = further_of("metrics=[motion,psnr,counting]")
    assert list(found.asked) == built == ["counting"]
    found = further_of("metrics=[motion,{name: motion, label: mine},{name: psnr, label: decibels}]")
    assert set(found.of_clips) == {"mine"} and set(found.of_files) == {"decibels"}
    assert found.judge_clip(clip())[0] == {"mine": 0.0}


def test_settings_of_a_metric_that_cannot_run_are_warned_about(
    monkeypatch: pytest.MonkeyPatch, tmp_path
) -> None:
    monkeypatch.setenv("ANTI_I2V_DATA", str(tmp_path))
    with pytest.warns(UserWarning, match=r"settings of clip_i \(frames\) are ignored"):
        found = further_of("metrics=[{name: clip_i, frames: first}]")
    assert [metric.name for metric in found.absent] == ["clip_i"]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        further_of("metrics=[clip_i]")


def test_the_order_in_which_metrics_are_asked_for_is_no_part_of_a_row(plugged: None) -> None:
    one, other = (
        further_of("metrics=[counting,motion_amount]"),
        further_of("metrics=[motion_amount,lightness,counting]"),
    )
    assert one.nodes == other.nodes, "figures of files are no part either"


def test_other_weights_are_another_metric(plugged: None, tmp_path: Path) -> None:
    def of(content: bytes) -> Further:
        (tmp_path / "scales.bin").write_bytes(content)
        return build_further([{"name": n} for n in ("counting", *names)], tmp_path)

    names = ("weighing", "weighing_files")
    one, same, other = of(b"1"), of(b"1"), of(b"2")
    assert one.nodes == same.nodes and one.file_settings == same.file_settings
    assert one.nodes[0] == other.nodes[0] == {"name": "counting", "label": "counting"}
    assert one.nodes[1] != other.nodes[1]
    assert one.file_settings["weighing_files"] != other.file_settings["weighing_files"]


def test_a_metric_says_what_it_looks_at() -> None:
    class OfFiles(Metric[CloakedPhoto]):
        """Looks at files."""

    assert subject_of(Counting) is GeneratedClip and subject_of(OfFiles) is CloakedPhoto
    with pytest.raises(ValueError, match=r"Metric\[GeneratedClip\]"):
        subject_of(Aimless)


class Endless(Counting):
    """Infinite for every clip."""

    def _score(self, subject: GeneratedClip) -> float:
        return float("inf")


def test_infinite_figures_are_bounded_or_undefined() -> None:
    """Frames equal to the photo: 10 log10(1 / 0) stands at 100 dB, as the judge's own."""
    photo = torch.full((3, 16, 16), 0.5)
    frames = torch.stack([photo, photo + 0.1])
    metrics = {"again": ClipPsnr(FramesConfig()), "endless": Endless(Counting.Config())}
    found = Further(
        of_clips=metrics,
        of_files={},
        of_sets={},
        weights=None,
        absent=(),
        asked={},
        digests={},
    )
    with pytest.warns(UserWarning, match="Endless gave an infinite value"):
        figures, by_frame = found.judge_clip(GeneratedClip(key="c", photo=photo, frames=frames))
    assert by_frame["again"] == pytest.approx((100.0, 20.0), abs=1e-4)
    assert figures["again"] == pytest.approx(60.0, abs=1e-4)
    assert math.isnan(figures["endless"])
