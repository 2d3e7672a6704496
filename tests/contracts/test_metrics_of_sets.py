"""What every registered metric of two sets of clips promises, on random networks."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from anti_i2v_lit.metrics import SET_METRICS
from anti_i2v_lit.metrics.availability import build_set_metric, missing
from anti_i2v_lit.metrics.base import GeneratedClip
from anti_i2v_lit.metrics.sets import SetMetric
from tests.metrics.stand_ins import write_i3d, write_vit

pytestmark = pytest.mark.filterwarnings("ignore:.*is biased")


@pytest.fixture(scope="module")
def stand_ins(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("weights")
    write_i3d(folder / "i3d_torchscript.pt")
    write_vit(folder / "dino-vitb16")
    return folder


@pytest.fixture(params=SET_METRICS.names())
def metric(request: pytest.FixtureRequest, stand_ins: Path) -> SetMetric:
    node = {"name": request.param, "min_clips": 2}
    assert missing(node, stand_ins) == ()
    return build_set_metric(node, stand_ins)


def noisy(key: str, level: float) -> GeneratedClip:
    generator = torch.Generator().manual_seed(sum(key.encode()))
    frames = (level + 0.1 * torch.randn(10, 3, 40, 56, generator=generator)).clamp(0, 1)
    return GeneratedClip(key=key, photo=frames[0], frames=frames)


def test_it_declares_what_its_number_means(metric: SetMetric) -> None:
    assert metric.direction == "higher" and metric.unit and metric.source and metric.needs
    assert type(metric).__doc__


def test_it_is_zero_for_one_set_and_grows_with_the_distance(metric: SetMetric) -> None:
    reference = [noisy(key, 0.5) for key in "abc"]
    found = {}
    for level in (0.5, 0.52, 0.7):
        metric.reset()
        metric.update([noisy(key, level) for key in "abc"], reference)
        found[level] = metric.compute().item()
    assert found[0.5] == pytest.approx(0, abs=1e-6)
    assert 1e-6 < found[0.52] < found[0.7]


def test_order_and_repetition_do_not_matter(metric: SetMetric) -> None:
    judged, reference = ([noisy(key, level) for key in "abc"] for level in (0.4, 0.5))
    metric.update(judged, reference)
    expected = metric.compute().item()
    metric.reset()
    for clip in reversed(judged):
        metric.update([clip, clip])
    metric.update(reference=reference[::-1])
    assert metric.counts() == (3, 3)
    assert metric.compute().item() == pytest.approx(expected, rel=1e-9)


def test_without_clips_there_is_no_value(metric: SetMetric) -> None:
    with pytest.warns(UserWarning, match="0 judged and 0 reference clips"):
        assert math.isnan(metric.compute())
