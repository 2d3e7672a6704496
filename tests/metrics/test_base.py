"""Values beside the mean, over several ranks, repeated keys and undefined values."""

from __future__ import annotations

import math
from datetime import timedelta
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from anti_i2v_lit.metrics.base import CloakedPhoto, Metric
from anti_i2v_lit.metrics.imperceptibility import NoSettings


class Brightness(Metric[CloakedPhoto]):
    """Mean of the cloak."""

    Config = NoSettings
    direction, unit, source = "none", "1", "test"

    def _score(self, subject: CloakedPhoto) -> float:
        return subject.cloak.mean().item()


class Absent(Brightness):
    """Never a number."""

    def _score(self, subject: CloakedPhoto) -> float:
        return math.nan


def pair(key: str, level: float) -> CloakedPhoto:
    return CloakedPhoto(key=key, photo=torch.zeros(3, 2, 2), cloak=torch.full((3, 2, 2), level))


def test_mean_and_values_by_key() -> None:
    metric = Brightness()
    metric.update([pair("b.jpg", 0.5), pair("ä/ж.png", 0.25)])
    metric.update([pair("a.jpg", 0.75)])
    assert metric.compute().item() == pytest.approx(0.5)
    assert metric.per_photo() == {"a.jpg": 0.75, "b.jpg": 0.5, "ä/ж.png": 0.25}
    metric.reset()
    assert metric.per_photo() == {}


def test_a_repeated_photo_counts_once_and_may_not_differ() -> None:
    metric = Brightness()
    metric.update([pair("a", 0.25), pair("a", 0.25), pair("b", 0.75)])
    assert metric.compute().item() == pytest.approx(0.5)
    metric.update([pair("a", 0.5)])
    with pytest.raises(ValueError, match="a has the values 0.25 and 0.5"):
        metric.compute()


def test_a_value_that_is_not_a_number_is_refused_unless_declared() -> None:
    with pytest.raises(ValueError, match="Absent of a is not a number"):
        Absent().update([pair("a", 0.5)])


def test_weights_of_judges_are_not_part_of_a_checkpoint() -> None:
    from anti_i2v_lit.metrics import METRICS

    metric = METRICS.build({"name": "lpips"})
    assert metric.state_dict() == {} and list(metric.parameters()) == []


def _rank(rank: int, folder: Path) -> None:
    dist.init_process_group(
        "gloo", f"file://{folder}/store", timeout=timedelta(seconds=1000), rank=rank, world_size=3
    )
    metric = Brightness()
    # Rank 2 has no photo at all; "shared" comes twice, as a padding sampler makes it.
    photos = {0: [("a", 0.0), ("shared", 0.5), ("long name.jpg", 1.0)], 1: [("shared", 0.5)]}
    metric.update([pair(*entry) for entry in photos.get(rank, [])])
    values = metric.per_photo()
    torch.save((metric.compute().item(), values, metric.per_photo()), folder / f"{rank}.pt")
    dist.destroy_process_group()


def test_ranks_agree_on_the_mean_and_on_every_photo(tmp_path: Path) -> None:
    # Forked: three interpreters that import torch anew would take most of a minute of CPU time.
    mp.start_processes(_rank, args=(tmp_path,), nprocs=3, start_method="fork")
    for rank in range(3):
        mean, first, again = torch.load(tmp_path / f"{rank}.pt")
        assert mean == pytest.approx(0.5)
        assert first == again == {"a": 0.0, "long name.jpg": 1.0, "shared": 0.5}
