"""What every registered metric promises, on photos and clips without real people."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from skimage.data import astronaut

from anti_i2v_lit.metrics import METRICS
from anti_i2v_lit.metrics.availability import build_metric, missing
from anti_i2v_lit.metrics.base import CloakedPhoto, GeneratedClip, Metric
from anti_i2v_lit.metrics.frames import FrameMetric
from anti_i2v_lit.metrics.semantic import ClipText
from tests.metrics.stand_ins import random_kernel, write_arcface, write_clip, write_vit

# Eyes, nose and corners of the mouth of scikit-image's astronaut, pixels of the 512 x 512 photo.
LANDMARKS = torch.tensor([[205.0, 110], [243, 106], [227, 133], [212, 151], [245, 147]])
NEEDS_REAL_WEIGHTS = {"brisque", "identity_dlib", "identity_hse"}


@pytest.fixture(scope="module")
def stand_ins(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of weights in which all networks that are not at hand are small random ones."""
    folder = tmp_path_factory.mktemp("weights")
    write_vit(folder / "dino-vitb16")
    write_clip(folder / "clip-vit-base-patch32")
    write_arcface(folder / "w600k_r50.onnx", random_kernel())
    return folder


@pytest.fixture(params=METRICS.names())
def metric(request: pytest.FixtureRequest, stand_ins: Path) -> Metric[Any]:
    node, folder = {"name": request.param}, stand_ins
    if request.param in NEEDS_REAL_WEIGHTS:
        folder = request.getfixturevalue("real_data") / "models"
    lacking = missing(node, folder)
    if lacking:
        pytest.skip(f"not at hand: {', '.join(need.name for need in lacking)}")
    return build_metric(node, folder)


def subject(metric: Metric[Any], key: str, level: float) -> CloakedPhoto | GeneratedClip:
    """What this metric judges: the astronaut with noise of a level, as a photo or as a clip."""
    photo = torch.from_numpy(astronaut()[30:222, 130:322].copy()).permute(2, 0, 1).float() / 255
    generator = torch.Generator().manual_seed(len(key))
    noise = level * torch.randn(3, *photo.shape, generator=generator)
    frames = (photo + noise).clamp(0, 1)
    base: Any = type(metric).__mro__
    kinds = [get_args(b) for cls in base for b in getattr(cls, "__orig_bases__", ())]
    if (CloakedPhoto,) in kinds:
        return CloakedPhoto(key=key, photo=photo, cloak=frames[0])
    points = LANDMARKS - torch.tensor([130.0, 30.0])
    landmarks = points.repeat(3, 1, 1)
    landmarks[2] = torch.nan if level > 0.1 else landmarks[2]
    return GeneratedClip(
        key=key,
        photo=photo,
        frames=frames,
        photo_landmarks=points,
        frame_landmarks=landmarks,
        prompt="a person is talking",
    )


def value(metric: Metric[Any], level: float) -> float:
    metric.reset()
    metric.update([subject(metric, "a", level)])
    return metric.compute().item()


def test_it_declares_what_its_number_means(metric: Metric[Any]) -> None:
    assert metric.direction in ("higher", "lower", "none")
    assert metric.unit and metric.source
    assert type(metric).__doc__
    # Checkpoints and devices of a run are none of a judge's business.
    assert not list(metric.parameters()) and not metric.state_dict()


def test_two_photos_are_the_mean_of_one_and_one(metric: Metric[Any]) -> None:
    values = {}
    for key, level in (("a", 0.03), ("bb", 0.06)):
        metric.reset()
        metric.update([subject(metric, key, level)])
        values[key] = metric.compute().item()
    metric.reset()
    metric.update([subject(metric, "a", 0.03), subject(metric, "bb", 0.06)])
    assert metric.per_photo() == pytest.approx(values, rel=1e-5)
    assert metric.compute().item() == pytest.approx(sum(values.values()) / 2, rel=1e-5)


def test_the_clip_s_value_is_made_of_its_frames(metric: Metric[Any]) -> None:
    judged = subject(metric, "a", 0.05)
    if not isinstance(metric, FrameMetric) or not isinstance(judged, GeneratedClip):
        pytest.skip("no values per frame")
    values = metric.per_frame(judged)
    assert values.shape == (len(judged.frames),)
    assert metric.reduce(values) == metric.score(judged)
    last = metric.per_frame(GeneratedClip(**{**vars(judged), "frames": judged.frames.clone()}))
    torch.testing.assert_close(last, values, equal_nan=True)


def test_its_direction_is_right(metric: Metric[Any]) -> None:
    """More noise: a cloak is easier to see (worse), a clip is less like the photo (better)."""
    if isinstance(metric, ClipText):
        pytest.skip("a random network ties no text to any picture")
    little, much = value(metric, 0.01), value(metric, 0.3)
    assert math.isfinite(little) and math.isfinite(much)
    if metric.direction == "none":
        assert much > little
        return
    judges_photo = isinstance(subject(metric, "a", 0.01), CloakedPhoto)
    grows_better = metric.direction == "higher"
    assert (much > little) == (grows_better != judges_photo)
    assert much != little


def test_the_subject_is_left_untouched(metric: Metric[Any]) -> None:
    judged, untouched = subject(metric, "a", 0.05), subject(metric, "a", 0.05)
    metric.update([judged])
    for name, before in vars(untouched).items():
        if isinstance(before, torch.Tensor):
            assert torch.equal(getattr(judged, name).nan_to_num(-1), before.nan_to_num(-1))
