"""Frechet distances against SciPy and torchmetrics; sets, their counts and their ranks."""

from __future__ import annotations

import math
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from scipy.linalg import sqrtm
from torch import Tensor
from torchmetrics.image.fid import _compute_fid

from anti_i2v_lit.metrics.availability import build_set_metric
from anti_i2v_lit.metrics.base import GeneratedClip
from anti_i2v_lit.metrics.frechet import frechet_distance
from anti_i2v_lit.metrics.sets import SetConfig, SetMetric
from tests.metrics.stand_ins import write_i3d


class MeanColours(SetMetric):
    """Distance of the mean colours of clips."""

    Config = SetConfig
    direction, unit, source = "higher", "1", "test"

    def _features(self, subject: GeneratedClip) -> Tensor:
        return subject.frames.mean(dim=(2, 3))

    def _distance(self, judged: Tensor, reference: Tensor) -> float:
        return (judged.mean(dim=0) - reference.mean(dim=0)).abs().sum().item()


def clip(key: str, level: float, num_frames: int = 2) -> GeneratedClip:
    frames = torch.full((num_frames, 3, 8, 8), level)
    return GeneratedClip(key=key, photo=frames[0], frames=frames)


def samples(count: int, width: int, seed: int) -> Tensor:
    rng = np.random.default_rng(seed)
    mixing = rng.normal(size=(width, width))
    return torch.from_numpy(rng.normal(seed, 1, (count, width)) @ mixing)


@pytest.mark.parametrize(("count", "width"), [(60, 12), (300, 40)])
def test_distance_equals_scipy_and_torchmetrics(count: int, width: int) -> None:
    first, second = samples(count, width, 0), samples(count + 7, width, 1)
    moments = [(x.mean(dim=0), x.T.cov()) for x in (first, second)]
    root = sqrtm((moments[0][1] @ moments[1][1]).numpy())
    expected = (moments[0][0] - moments[1][0]).square().sum().item() + np.trace(
        moments[0][1].numpy() + moments[1][1].numpy() - 2 * root.real
    )
    found = frechet_distance(first, second)
    assert found == pytest.approx(expected, rel=1e-8)
    theirs = _compute_fid(*moments[0], *moments[1]).item()
    assert found == pytest.approx(theirs, rel=1e-8)


def test_fewer_samples_than_features() -> None:
    """Moments of 5 and 6 samples in 4 dimensions do not change when 96 zeros are appended."""
    first, second = samples(5, 4, 0), samples(6, 4, 1)
    wide = [torch.nn.functional.pad(x, (0, 96)) for x in (first, second)]
    expected = frechet_distance(first, second)
    assert frechet_distance(*wide) == pytest.approx(expected, rel=1e-9)
    turned = [x @ torch.linalg.qr(samples(100, 100, 3)).Q for x in wide]
    assert frechet_distance(*turned) == pytest.approx(expected, rel=1e-9)
    assert frechet_distance(first, first) == pytest.approx(0, abs=1e-10)


def test_too_few_clips_have_no_value_and_few_a_warning() -> None:
    metric = MeanColours(SetConfig(min_clips=2))
    metric.update([clip("a", 0.2)], [clip("a", 0.6), clip("b", 0.6)])
    with pytest.warns(UserWarning, match="1 judged and 2 reference clips, fewer than min_clips=2"):
        assert math.isnan(metric.compute())
    metric.update([clip("b", 0.2), clip("b", 0.2)])
    assert metric.counts() == (2, 2)
    with pytest.warns(UserWarning, match="of 2 judged and 2 reference clips is biased"):
        assert metric.compute().item() == pytest.approx(1.2)
    with pytest.raises(ValueError, match="min_clips must be at least 2"):
        SetConfig(min_clips=1)


def test_a_hundred_clips_are_enough(recwarn: pytest.WarningsRecorder) -> None:
    metric = MeanColours(SetConfig())
    for number in range(100):
        metric.update([clip(str(number), 0.25)], [clip(str(number), 0.5)])
    assert metric.compute().item() == pytest.approx(0.75)
    assert not [w for w in recwarn if "clips" in str(w.message)]


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("weights")
    write_i3d(folder / "i3d_torchscript.pt")
    return folder


def test_fvd_hands_whole_clips_to_the_network(weights: Path) -> None:
    metric = build_set_metric({"name": "fvd"}, weights)
    frames = torch.cat([torch.full((5, 3, 40, 40), 0.25), torch.full((5, 3, 40, 40), 1.0)])
    features = metric._features(GeneratedClip(key="a", photo=frames[0], frames=frames))
    torch.testing.assert_close(features, torch.tensor([[-0.5, 1.0] * 3]))
    with pytest.raises(ValueError, match="at least 10 frames, got 9"):
        metric.update([clip("a", 0.5, num_frames=9)])
    with pytest.raises(ValueError, match="is no TorchScript file"):
        build_set_metric({"name": "fvd", "weights": str(Path(__file__))})


def _rank(rank: int, folder: Path) -> None:
    dist.init_process_group(
        "gloo", f"file://{folder}/store", timeout=timedelta(seconds=1000), rank=rank, world_size=2
    )
    metric = MeanColours(SetConfig(min_clips=2))
    # Rank 1 has no reference at all; "b" comes twice, as a padding sampler makes it.
    if rank == 0:
        metric.update([clip("a", 0.1), clip("b", 0.3)], [clip("a", 0.5), clip("b", 0.7, 4)])
    else:
        metric.update([clip("b", 0.3), clip("c", 0.5)])
    torch.save((metric.counts(), metric.compute().item()), folder / f"{rank}.pt")
    dist.destroy_process_group()


@pytest.mark.filterwarnings("ignore:.*is biased")
def test_ranks_agree_on_the_sets(tmp_path: Path) -> None:
    mp.start_processes(_rank, args=(tmp_path,), nprocs=2, start_method="fork")
    for rank in range(2):
        counts, distance = torch.load(tmp_path / f"{rank}.pt")
        assert counts == (3, 2)
        # Frames count: two of 0.5 and four of 0.7 in the reference.
        assert distance == pytest.approx(3 * (0.38 / 0.6 - 0.3), rel=1e-5)
