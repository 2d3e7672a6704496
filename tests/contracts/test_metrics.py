"""What every registered metric promises, on photos and clips without real people."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from skimage.data import astronaut

from anti_i2v_lit.metrics import METRICS
from anti_i2v_lit.metrics.base import CloakedPhoto, GeneratedClip, Metric
from anti_i2v_lit.metrics.requirements import DATA_VARIABLE

# Eyes, nose and corners of the mouth of scikit-image's astronaut, pixels of the 512 x 512 photo.
LANDMARKS = torch.tensor([[205.0, 110], [243, 106], [227, 133], [212, 151], [245, 147]])
NEEDS_WEIGHTS = {"identity_dlib", "identity_hse"}


@pytest.fixture(params=METRICS.names())
def metric(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Metric[Any]:
    if request.param in NEEDS_WEIGHTS:
        folder: Path = request.getfixturevalue("real_data")
        monkeypatch.setenv(DATA_VARIABLE, str(folder))
    return METRICS.build({"name": request.param})


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
        key=key, photo=photo, frames=frames, photo_landmarks=points, frame_landmarks=landmarks
    )


def value(metric: Metric[Any], level: float) -> float:
    metric.reset()
    metric.update([subject(metric, "a", level)])
    return metric.compute().item()


def test_it_declares_what_its_number_means(metric: Metric[Any]) -> None:
    assert metric.direction in ("higher", "lower", "none")
    assert metric.unit and metric.source
    assert type(metric).__doc__


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


def test_its_direction_is_right(metric: Metric[Any]) -> None:
    """More noise: a cloak is easier to see (worse), a clip is less like the photo (better)."""
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
